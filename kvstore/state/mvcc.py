"""The key space: every key's versions, the revision counter, and reads at any revision not compacted.

Pure: what is committed is read through a Store, what is not lies in the overlay. Invariants:
  1. `revision` never falls. It grows by one for each mutating command that changed something, and by nothing
     else; the changes of one command share it and are told apart by sub-revisions in the order made.
  2. A key has at most one version per revision (kvstore/state/checks.py refuses what would make two).
  3. compact_revision <= revision. Nothing below compact_revision is readable, at it everything is.
  4. What is readable depends on revision and compact_revision only, never on how far the physical removal of
     old versions has come: members differ in that.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.state.key_counts import KeyCounts, KeysIn
from kvstore.state.long_keys import SHORT_MAX, LongKeys
from kvstore.state.meters import StateMeter
from kvstore.state.overlay import Latest, Overlay
from kvstore.state.quotas import Quotas
from kvstore.state.records import (
    ANCHOR_AT,
    ANCHOR_EVERY,
    DEPTH_AND_FLAGS,
    DEPTH_AT,
    FLAGS_AT,
    KV_AT,
    NO_REVISION,
    PREVIOUS_AT,
    REVISION,
    Buffer,
    bound,
    version_at,
)
from kvstore.state.varint import varint

# revision, key, kv bytes, kv bytes of the version before (None for a creation), whether it is a delete
Listener = Callable[[int, bytes, bytes, bytes | None, bool], None]
UNDONE_MAX = 10_000
"""Revisions between now and a past one that is counted by today's counts: 2 us each."""
PAST_COUNTS_MAX = 4
_DEPTH_MASK = ANCHOR_EVERY - 1
_pack = REVISION.pack
_new = tuple.__new__  # of a named tuple, without the call in Python that its class makes: 0.12 us, not 0.23
_FIRST = NO_REVISION + NO_REVISION + DEPTH_AND_FLAGS[0][0]
_CONTINUED = [bytes((low | 0x80,)) for low in range(0x80)]  # a varint's first byte where others follow
_KEY, _CREATE_REVISION, _MOD_REVISION, _VERSION, _VALUE, _LEASE = (
    b"\x0a",
    b"\x10",
    b"\x18",
    b"\x20",
    b"\x2a",
    b"\x30",
)
"""The tags of a KeyValue, in the order in which protobuf writes its fields."""
_TAGS = _KEY + _CREATE_REVISION + _MOD_REVISION  # those of Latest.head


class Store(Protocol):
    """What is committed (kvstore/state/reader.py)."""

    def latest(self, key: bytes) -> bytes | None: ...

    def version(self, position: bytes) -> bytes | None: ...

    def keys(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, Buffer]]: ...

    def first(self, start: bytes, end: bytes | None, limit: int) -> tuple[list[bytes], bytes | None]: ...

    def history(self, position: bytes) -> Iterator[tuple[bytes, Buffer]]: ...


class Keyspace:
    def __init__(
        self,
        store: Store,
        overlay: Overlay,
        *,
        revision: int,
        compact_revision: int,
        key_count: int = 0,
        meter: StateMeter | None = None,
    ) -> None:
        self.revision = revision
        self.key_count = key_count  # keys that are there now
        self.meter = meter or StateMeter()
        self.compact_revision = compact_revision
        self.committed_revision = revision  # what the store's transaction holds
        self.listener: Listener | None = None
        self.quotas: Quotas | None = None  # where there are any
        self._store = store
        self._overlay = overlay
        self._counts: KeyCounts | None = None  # once somebody counts
        self._counts_then: OrderedDict[int, KeyCounts] = (
            OrderedDict()
        )  # by revision, the last asked for at the end
        self._sub = 0
        self._high_of, self._high = -1, b""  # the bytes that the mod_revisions of 128 revisions share

    # Writing: any number of put() and delete(), then end()

    def put(self, key: bytes, value: bytes, lease: int, before: Latest | None) -> None:
        """before: current(key), which the caller had to look up anyway."""
        if self.quotas is not None:
            self.quotas.put(key, len(value), before)
        main, sub = self.revision + 1, self._sub
        self._sub = sub + 1
        if main >> 7 != self._high_of:
            self._high_of = main >> 7
            self._high = varint(self._high_of)
        mod = _CONTINUED[main & 0x7F] + self._high if main > 0x7F else varint(main)
        if before is None or not before.version:
            self.key_count += 1
            if self._counts is not None:
                self._counts.added(key)
            create, version = main, 1
            head = b"".join((_KEY, varint(len(key)), key, _CREATE_REVISION, mod, _MOD_REVISION))
        else:
            create, version, head = before.create_revision, before.version + 1, before.head
        parts = [head, mod, _VERSION, varint(version)]
        if value:
            parts += (_VALUE, varint(len(value)), value)
        if lease:
            parts += (_LEASE, varint(lease))
        encoded = b"".join(parts)
        if before is None:
            record = b"".join((_pack(main, sub), _FIRST, encoded))
        else:
            old = before.record
            depth, own = old[DEPTH_AT], old[:12]
            anchor = old[ANCHOR_AT:DEPTH_AT] if depth else own
            links = DEPTH_AND_FLAGS[depth + 1 & _DEPTH_MASK][0]
            record = b"".join((_pack(main, sub), own, anchor, links, encoded))
        self._overlay.filling.add(key, _new(Latest, (record, create, version, lease, head)))
        if self.listener is not None:
            live = before is not None and before.version
            self.listener(main, key, encoded, before.record[KV_AT:] if before and live else None, False)

    def delete(self, key: bytes, before: Latest) -> None:
        """Writes a tombstone over a version that is not one."""
        main, sub = self.revision + 1, self._sub
        self._sub = sub + 1
        self.key_count -= 1
        if self.quotas is not None:
            self.quotas.delete(key, before)
        if self._counts is not None:
            self._counts.removed(key)
        encoded = KeyValue(key=key, mod_revision=main).SerializeToString()
        old = before.record
        depth, own = old[DEPTH_AT], old[:12]
        anchor = old[ANCHOR_AT:DEPTH_AT] if depth else own
        links = (_pack(main, sub), own, anchor, DEPTH_AND_FLAGS[depth + 1 & _DEPTH_MASK][1], encoded)
        self._overlay.filling.add(key, Latest(b"".join(links), 0, 0, 0, b""))
        if self.listener is not None:
            self.listener(main, key, encoded, old[KV_AT:], True)

    @property
    def changing(self) -> bool:
        """True once the command under way has changed something: its reads are at revision + 1."""
        return self._sub > 0

    @property
    def read_revision(self) -> int:
        return self.revision + 1 if self._sub else self.revision

    def end(self) -> int:
        """Ends a command: the revision it left behind."""
        if self._sub:
            self.revision += 1
            self._sub = 0
        return self.revision

    # Reading

    def current(self, key: bytes) -> Latest | None:
        """The newest version, tombstones included (their version is 0)."""
        found = self._overlay.latest(key)
        if found is not None:
            return found
        record = self._store.latest(key)
        return None if record is None else decoded(record)

    def get(self, key: bytes, revision: int | None = None) -> Buffer | None:
        """The key's KeyValue bytes at a revision (None: newest), None where it is not there."""
        found = self._overlay.latest(key)
        record: Buffer | None = self._store.latest(key) if found is None else found.record
        if record is not None and revision is not None:
            record = version_at(record, bound(revision), self.version)
        return None if record is None or record[FLAGS_AT] else record[KV_AT:]

    def scan(
        self, start: bytes, end: bytes | None, revision: int | None = None
    ) -> Iterator[tuple[bytes, Buffer]]:
        """(key, record) of each key there at a revision, in key order. Good until the next write or turn."""
        if revision is None:
            for key, record in self._newest(start, end):
                if not record[FLAGS_AT]:
                    yield key, record
            return
        highest = bound(revision)
        for key, record in self._newest(start, end):
            found: Buffer | None = record
            if bytes(record[:12]) > highest:
                found = version_at(record, highest, self.version)
            if found is not None and not found[FLAGS_AT]:
                yield key, found

    def first(self, start: bytes, end: bytes | None, limit: int) -> tuple[Sequence[Buffer], bytes | None]:
        """KeyValue bytes of the keys there now, the first `limit` in key order (0: all), and from where there may
        be more (None: there are none)."""
        if not self._overlay.keys(start, end) and len(start) <= SHORT_MAX:
            with contextlib.suppress(LongKeys):
                return self._store.first(start, end, limit)
        found: list[Buffer] = []
        for key, record in self.scan(start, end):
            found.append(record[KV_AT:])
            if len(found) == limit:
                return found, key + b"\0"
        return found, None

    def count(self, start: bytes, end: bytes | None, revision: int | None = None) -> int:
        """How many keys are there at a revision (None: now), start <= key < end."""
        return self._counts_at(revision).count(start, end, self._keys_at(revision))

    def learn(self, start: bytes, end: bytes | None, revision: int | None, keys_max: int) -> bytes | None:
        """A step towards a quick count(): where to go on, None when there is no more to look at. The keys of such
        a range may be in the millions, and every page of a listing tells the whole count."""

        def look(first: bytes, last: bytes | None) -> Iterator[tuple[bytes, bool]]:
            highest = None if revision is None else bound(revision)
            for key, record in self._newest(first, last):
                found: Buffer | None = record
                if highest is not None and bytes(record[:12]) > highest:
                    found = version_at(record, highest, self.version)
                yield key, found is not None and not found[FLAGS_AT]

        return self._counts_at(revision).learn(start, end, look, keys_max)

    def _keys_at(self, revision: int | None) -> KeysIn:
        return lambda start, end: (key for key, _ in self.scan(start, end, revision))

    def _counts_at(self, revision: int | None) -> KeyCounts:
        """Of a past revision they are today's without what came after it, where that is little, and begin with
        nothing known else. They are kept, as the pages of a listing all name the revision of the first."""
        if self._counts is None:
            self._counts = KeyCounts()
        if revision is None or revision == self.read_revision:
            return self._counts
        counts = self._counts_then.get(revision)
        if counts is None:
            if self.read_revision - revision > UNDONE_MAX:
                counts = KeyCounts()
            else:
                counts = self._counts.copy()
                self._undo(counts, revision)
            self._counts_then[revision] = counts
            if len(self._counts_then) > PAST_COUNTS_MAX:
                self._counts_then.popitem(last=False)
        self._counts_then.move_to_end(revision)
        return counts

    def _undo(self, counts: KeyCounts, revision: int) -> None:
        """Takes out of today's counts what came after a revision."""
        was_there: dict[bytes, bool] = {}
        is_there: dict[bytes, bool] = {}
        for record in self.history(revision + 1):
            kv = KeyValue.FromString(record[KV_AT:])
            is_put = not record[FLAGS_AT]
            was_there.setdefault(kv.key, kv.version > 1 or not is_put)  # no tombstone lies on another
            is_there[kv.key] = is_put
        for key, was in was_there.items():
            if was and not is_there[key]:
                counts.added(key)
            elif is_there[key] and not was:
                counts.removed(key)

    def latest_in(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, Latest]]:
        """(key, newest version) of each key there now, in key order."""
        for key, record in self.scan(start, end):
            yield key, decoded(bytes(record))

    def version(self, position: bytes) -> bytes | None:
        """The record at a position, None where there is none any more."""
        if int.from_bytes(position[:8], "big") > self.committed_revision:
            return self._overlay.version(position)
        return self._store.version(position)

    def history(self, revision: int) -> Iterator[bytes]:
        """Every record from a revision on, in order. What compaction has superseded may be among them."""
        position = _pack(revision, 0)
        if revision <= self.committed_revision:
            for own, rest in self._store.history(position):
                yield b"".join((own, rest))
        yield from self._overlay.history(position)

    def before(self, record: bytes) -> bytes | None:
        """KeyValue bytes of the version that `record` replaced; None for a creation, and where a read at the
        revision before would find it compacted (etcd's prev_kv)."""
        position = record[PREVIOUS_AT:ANCHOR_AT]
        if position == NO_REVISION or int.from_bytes(record[:8], "big") <= self.compact_revision:
            return None
        found = self.version(position)
        return None if found is None or found[FLAGS_AT] else found[KV_AT:]

    def _newest(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, Buffer]]:
        """(key, latest record) in order, tombstones included: the overlay laid over the store."""
        over = self._overlay.keys(start, end)
        stored = self._store.keys(start, end)
        if not over:
            yield from stored
            return
        upper = iter(over.items())
        above = next(upper, None)
        for key, record in stored:
            while above is not None and above[0] < key:
                yield above
                above = next(upper, None)
            if above is not None and above[0] == key:
                yield above
                above = next(upper, None)
            else:
                yield key, record
        if above is not None:
            yield above
            yield from upper


def decoded(record: bytes) -> Latest:
    if record[FLAGS_AT]:
        return Latest(record, 0, 0, 0, b"")
    kv = KeyValue.FromString(record[KV_AT:])
    create, key_size = kv.create_revision, len(kv.key)
    numbers = (key_size.bit_length() + 6) // 7 + (create.bit_length() + 6) // 7  # their varints' bytes
    return Latest(
        record, create, kv.version, kv.lease, record[KV_AT : KV_AT + len(_TAGS) + key_size + numbers]
    )
