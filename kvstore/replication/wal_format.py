"""The write-ahead log's bytes. Pure: encodes and decodes, touches no disk. kvstore/replication/DESIGN.md.

    segment := preamble | frame * | zeros up to the preallocated size                      (big-endian)
    preamble:= magic 8 | sequence u64 | salt u32 | CRC-32 of these u32
    frame   := header | payload | zeros to a multiple of 8
    header  := magic u32 | payload length u32 | frame number u64 | chain u32 | CRC-32 of header and salt u32
    payload := record *
    record  := type u8 | length u32 | body

A frame is what one flush wrote. Its chain value is the CRC-32 of its payload continued from the previous
frame's, so a frame proves everything before it in its segment; a segment's first frame starts from 0 and holds
the chain value it follows. Frame numbers count from 1 through all segments without a gap.
The salt comes from the member's random data id: without it a client could store a value that looks like a
frame, and make a torn flush look like damage in the middle.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from kvstore.replication.codec import decode_conf_state, encode_conf_state
from raft.types import ConfState, Entry, EntryKind, HardState, SnapshotMeta

SEGMENT_MAGIC = b"KVSWAL\x00\x01"
FRAME_MAGIC = b"\xf5KVf"
PREAMBLE = struct.Struct(">8sQII")
HEADER = struct.Struct(">4sIQII")
ALIGNMENT = 8
PAYLOAD_BYTES_MAX = (1 << 32) - ALIGNMENT

_RECORD = struct.Struct(">BI")
_ENTRY = struct.Struct(">BIQQB")  # type, length, index, term, kind; data follows
_ENTRY_BODY = struct.Struct(">QQB")
_SEGMENT = struct.Struct(">QQQQI")
_METADATA = struct.Struct(">QQQQ")
_BOOT = struct.Struct(">Q")
_HARD_STATE = struct.Struct(">QQQ")
_SNAPSHOT = struct.Struct(">QQ")
_HEADER_CRC_AT = HEADER.size - 4
_KINDS = {int(kind): kind for kind in EntryKind}

# Record types are in logs: never reuse one.
SEGMENT = 1
METADATA = 2
BOOT = 3
HARD_STATE = 4
CONF_STATE = 5
SNAPSHOT = 6
ENTRY = 7


class Damage(Exception):
    """These bytes are not what was written. What that means depends on where they are: see Replay."""


class WalError(Exception):
    """One line: what, and where."""


class WalCorrupt(WalError):
    """Acknowledged data is damaged or missing. Only a new copy from the other members helps."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(f"write-ahead log is corrupt: {path} at byte {offset}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason


@dataclass(slots=True, frozen=True)
class WalMetadata:
    """Whose log this is. data_id is drawn at random when the data directory is made; created is Unix time in
    milliseconds."""

    cluster_id: int
    member_id: int
    data_id: int
    created_ms: int


@dataclass(slots=True, frozen=True)
class Segment:
    """First record of each segment: its place, its whole size, and the log's last entry and the chain before it."""

    sequence: int
    size_bytes: int
    base_index: int
    base_term: int
    chain: int


@dataclass(slots=True, frozen=True)
class Boot:
    """One start of the member; incarnation grows by one with each."""

    incarnation: int


Record = Segment | WalMetadata | Boot | HardState | ConfState | SnapshotMeta | Entry


@dataclass(slots=True, frozen=True)
class Frame:
    number: int
    chain: int
    records: list[Record]
    end: int  # offset of the next frame


def salt_of(metadata: WalMetadata) -> int:
    return zlib.crc32(encode_record(metadata))


def encode_preamble(sequence: int, salt: int) -> bytes:
    body = PREAMBLE.pack(SEGMENT_MAGIC, sequence, salt, 0)[:-4]
    return body + zlib.crc32(body).to_bytes(4, "big")


def decode_preamble(data: bytes) -> tuple[int, int]:
    """(sequence, salt). Raises Damage."""
    if len(data) < PREAMBLE.size:
        raise Damage(f"{len(data)} bytes are fewer than a segment's preamble")
    magic, sequence, salt, crc = PREAMBLE.unpack_from(data)
    if magic != SEGMENT_MAGIC:
        raise Damage("not a segment of this format")
    if crc != zlib.crc32(data[: PREAMBLE.size - 4]):
        raise Damage("preamble fails its CRC")
    return sequence, salt


def encode_record(record: Record) -> bytes:
    if isinstance(record, Entry):
        return b"".join(encode_entries([record]))
    if isinstance(record, HardState):
        return _framed(HARD_STATE, _HARD_STATE.pack(record.term, record.vote, record.commit))
    if isinstance(record, SnapshotMeta):
        conf = encode_conf_state(record.conf_state)
        return _framed(SNAPSHOT, _SNAPSHOT.pack(record.index, record.term) + conf)
    if isinstance(record, ConfState):
        return _framed(CONF_STATE, encode_conf_state(record))
    if isinstance(record, Boot):
        return _framed(BOOT, _BOOT.pack(record.incarnation))
    if isinstance(record, WalMetadata):
        body = _METADATA.pack(record.cluster_id, record.member_id, record.data_id, record.created_ms)
        return _framed(METADATA, body)
    base = record.base_index, record.base_term
    return _framed(SEGMENT, _SEGMENT.pack(record.sequence, record.size_bytes, *base, record.chain))


def _framed(kind: int, body: bytes) -> bytes:
    return _RECORD.pack(kind, len(body)) + body


def encode_entries(entries: Sequence[Entry]) -> list[bytes]:
    """Parts to be joined: each entry's data is the very object the entry holds."""
    parts: list[bytes] = []
    pack, add, fixed = _ENTRY.pack, parts.append, _ENTRY_BODY.size
    for entry in entries:
        data = entry.data
        add(pack(ENTRY, fixed + len(data), entry.index, entry.term, entry.kind))
        add(data)
    return parts


def encode_frame(payload: bytes, *, number: int, chain: int, salt: int) -> tuple[list[bytes], int, int]:
    """(buffers to write one after another, their size, chain of this frame). chain is the previous frame's."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"a frame of {len(payload)} bytes")
    chain = zlib.crc32(payload, chain)
    head = HEADER.pack(FRAME_MAGIC, len(payload), number, chain, 0)[:_HEADER_CRC_AT]
    buffers = [head + zlib.crc32(head, salt).to_bytes(4, "big"), payload]
    padding = -len(payload) % ALIGNMENT
    if padding:
        buffers.append(bytes(padding))
    return buffers, HEADER.size + len(payload) + padding, chain


def frame_size(payload_bytes: int) -> int:
    return HEADER.size + payload_bytes + -payload_bytes % ALIGNMENT


def _decode_header(data: bytes, offset: int, salt: int) -> tuple[int, int, int] | None:
    """(payload length, number, chain) of a header that is whole, else None."""
    if offset + HEADER.size > len(data):
        return None
    magic, length, number, chain, crc = HEADER.unpack_from(data, offset)
    if magic != FRAME_MAGIC or crc != zlib.crc32(data[offset : offset + _HEADER_CRC_AT], salt):
        return None
    return length, number, chain


def decode_frame(data: bytes, offset: int, *, number: int | None, chain: int, salt: int) -> Frame:
    """The frame that must lie at offset: this number (None: any), continuing this chain. Raises Damage."""
    header = _decode_header(data, offset, salt)
    if header is None:
        raise Damage("no valid frame header")
    length, found, expected_chain = header
    if number is not None and found != number:
        raise Damage(f"frame {found} where {number} should be")
    start, end = offset + HEADER.size, offset + frame_size(length)
    if end > len(data):
        raise Damage(f"frame {found} of {length} bytes does not fit its segment")
    payload = data[start : start + length]
    if zlib.crc32(payload, chain) != expected_chain:
        raise Damage(f"frame {found} fails its chained CRC")
    if any(data[start + length : end]):
        raise Damage(f"frame {found} has bytes in its padding")
    return Frame(found, expected_chain, decode_records(payload), end)


def find_later_frame(data: bytes, offset: int, *, number: int, salt: int) -> int | None:
    """Where, from offset on, a valid header has a number above `number`: frame `number` was synced then."""
    at = data.find(FRAME_MAGIC, offset)
    while at >= 0:
        if at % ALIGNMENT == 0:
            header = _decode_header(data, at, salt)
            if header is not None and header[1] > number:
                return at
        at = data.find(FRAME_MAGIC, at + 1)
    return None


def decode_records(payload: bytes) -> list[Record]:
    """Raises Damage. A frame that passes its CRC and fails here was not written by this program."""
    records: list[Record] = []
    at, end = 0, len(payload)
    while at < end:
        if at + _RECORD.size > end:
            raise Damage("a record's header is cut off")
        kind, length = _RECORD.unpack_from(payload, at)
        at += _RECORD.size
        if at + length > end:
            raise Damage(f"a record of {length} bytes in {end - at}")
        records.append(_decode_record(kind, payload, at, at + length))
        at += length
    return records


def _decode_record(kind: int, payload: bytes, start: int, end: int) -> Record:
    try:
        if kind == ENTRY:
            if end - start < _ENTRY_BODY.size:
                raise Damage(f"an entry in {end - start} bytes")
            index, term, entry_kind = _ENTRY_BODY.unpack_from(payload, start)
            return Entry(index, term, payload[start + _ENTRY_BODY.size : end], _KINDS[entry_kind])
        body = payload[start:end]
        if kind == HARD_STATE:
            return HardState(*_HARD_STATE.unpack(body))
        if kind == SNAPSHOT:
            index, term = _SNAPSHOT.unpack_from(body)
            return SnapshotMeta(index, term, decode_conf_state(body[_SNAPSHOT.size :]))
        if kind == CONF_STATE:
            return decode_conf_state(body)
        if kind == BOOT:
            return Boot(*_BOOT.unpack(body))
        if kind == METADATA:
            return WalMetadata(*_METADATA.unpack(body))
        if kind == SEGMENT:
            return Segment(*_SEGMENT.unpack(body))
    except (struct.error, ValueError, KeyError) as error:
        raise Damage(f"record of type {kind}: {error}") from None
    raise Damage(f"unknown record type {kind}")


@dataclass(slots=True)
class Recovered:
    """What a log says. entries follow base_index@base_term without a gap. conf_state is the one the member was
    bootstrapped with; snapshot is the last one that was installed, where there was one."""

    metadata: WalMetadata
    incarnation: int
    hard_state: HardState
    conf_state: ConfState
    snapshot: SnapshotMeta | None
    base_index: int
    base_term: int
    entries: list[Entry]

    @property
    def last_index(self) -> int:
        return self.entries[-1].index if self.entries else self.base_index

    @property
    def last_term(self) -> int:
        return self.entries[-1].term if self.entries else self.base_term


def header_records(state: Recovered, place: Segment) -> list[Record]:
    """The first frame of a segment: all that earlier segments said, but for the entries."""
    records: list[Record] = [
        place,
        state.metadata,
        Boot(state.incarnation),
        state.hard_state,
        state.conf_state,
    ]
    return records if state.snapshot is None else [*records, state.snapshot]


class Replay:
    """Reads segments one after another, oldest first; state, and the place to go on from, are what they said.

    Frame k+1 was written only after frame k was synced. So damage at frame k with a later frame behind it, in
    the segment or in a later one, is damage to acknowledged data and raises WalCorrupt. Damage with nothing
    behind it is a flush that a crash tore: torn_bytes from `end` on, to be zeroed before anything is written.
    A segment is made whole before it gets its name, so its first frame cannot be torn.
    """

    def __init__(self) -> None:
        self.state: Recovered | None = None
        self.number = 0  # of the next frame
        self.chain = 0
        self.end = 0  # of the last frame, in the last segment read
        self.torn_bytes = 0
        self.highest_index = 0  # of any entry in the last segment read
        self._sequence = 0
        self._salt = 0
        self._damage: WalCorrupt | None = None  # at the end of the last segment read

    def segment(self, path: str, sequence: int, data: bytes, *, last: bool) -> None:
        used = len(data.rstrip(b"\x00"))
        self.highest_index = 0
        self._begin(path, sequence, data)
        while self.end < used:
            try:
                frame = decode_frame(data, self.end, number=self.number, chain=self.chain, salt=self._salt)
            except Damage as damage:
                self._damaged(path, data, damage, last=last)
                self.torn_bytes = used - self.end
                return
            try:
                self._replay(frame.records)
            except Damage as damage:
                raise WalCorrupt(path, self.end, str(damage)) from None
            self.number, self.chain, self.end = frame.number + 1, frame.chain, frame.end

    def finish(self, path: str) -> Recovered:
        """The state, after the last segment."""
        if self.state is None:
            raise WalCorrupt(path, 0, "there is no segment")
        commit, last_index = self.state.hard_state.commit, self.state.last_index
        if commit > last_index:
            raise WalCorrupt(path, self.end, f"{commit} was committed and the log ends at {last_index}")
        return self.state

    def _begin(self, path: str, sequence: int, data: bytes) -> None:
        """The preamble and the first frame, which must go on from the segment before."""
        if self.state is not None and sequence != self._sequence + 1:
            raise WalCorrupt(path, 0, f"segment {sequence} follows segment {self._sequence}")
        offset = 0
        try:
            written, salt = decode_preamble(data)
            if written != sequence:
                raise Damage(f"segment {written} under the name of {sequence}")
            offset = PREAMBLE.size
            number = None if self.state is None else self.number
            frame = decode_frame(data, offset, number=number, chain=0, salt=salt)
            self._header(frame.records, sequence, len(data))
        except Damage as damage:
            # Where the segment before ended in damage, a frame that does not fit on says: that one was synced.
            raise (self._damage or WalCorrupt(path, offset, str(damage))) from None
        self._sequence, self._salt, self._damage, self.torn_bytes = sequence, salt, None, 0
        self.number, self.chain, self.end = frame.number + 1, frame.chain, frame.end

    def _header(self, records: list[Record], sequence: int, size: int) -> None:
        if len(records) not in (5, 6):
            raise Damage("not a segment's first frame")
        place, metadata, boot, hard_state, conf_state, *rest = records
        snapshot = rest[0] if rest else None
        if not (isinstance(place, Segment) and isinstance(metadata, WalMetadata) and isinstance(boot, Boot)):
            raise Damage("not a segment's first frame")
        if not (isinstance(hard_state, HardState) and isinstance(conf_state, ConfState)):
            raise Damage("not a segment's first frame")
        if not isinstance(snapshot, SnapshotMeta | None):
            raise Damage("not a segment's first frame")
        if place.sequence != sequence or place.size_bytes != size:
            raise Damage(f"segment {place.sequence} of {place.size_bytes} bytes, found {sequence} of {size}")
        base = place.base_index, place.base_term
        said = Recovered(metadata, boot.incarnation, hard_state, conf_state, snapshot, *base, entries=[])
        if self.state is None:
            self.state = said
            return
        known = header_records(self.state, place)
        if (
            place.chain != self.chain
            or base != (self.state.last_index, self.state.last_term)
            or known != records
        ):
            raise Damage("the segment does not go on from the one before")

    def _damaged(self, path: str, data: bytes, damage: Damage, *, last: bool) -> None:
        self._damage = WalCorrupt(path, self.end, str(damage))
        if last:
            later = find_later_frame(data, self.end, number=self.number, salt=self._salt)
            if later is not None:
                raise WalCorrupt(path, self.end, f"{damage}; the frame at byte {later} was written after it")

    def _replay(self, records: list[Record]) -> None:
        state = self.state
        assert state is not None, "a frame before the first segment's header"
        for record in records:
            if isinstance(record, Entry):
                self._entry(state, record)
            elif isinstance(record, HardState):
                state.hard_state = record
            elif isinstance(record, SnapshotMeta):
                state.snapshot = record
                state.base_index, state.base_term, state.entries = record.index, record.term, []
            elif isinstance(record, Boot):
                state.incarnation = record.incarnation
            else:
                raise Damage(f"a {type(record).__name__} record outside a segment's first frame")

    def _entry(self, state: Recovered, entry: Entry) -> None:
        """A new entry replaces those from its index on: they were another leader's, never committed."""
        index, entries = entry.index, state.entries
        self.highest_index = max(self.highest_index, index)
        position = index - state.base_index - 1
        if position == len(entries):
            entries.append(entry)
        elif position > len(entries):
            raise Damage(f"entry {index} follows {state.last_index}")
        elif position >= 0:
            del entries[position:]
            entries.append(entry)
        elif index == 0 or (state.snapshot is not None and index <= state.snapshot.index):
            raise Damage(f"entry {index} is below the log's beginning at {state.base_index}")
        else:
            # The segments before this one are gone, so all they held was applied, and this entry, which had
            # replaced one of theirs, was applied as well: the log can begin right behind it.
            entries.clear()
            state.base_index, state.base_term = index, entry.term
