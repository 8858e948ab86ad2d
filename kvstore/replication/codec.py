"""Raft's messages as bytes, by hand: one struct a message, entry data spliced in as it is.

    message := kind u8 | term u64 | fields of that kind                                   (big-endian)
    AppendEntries ends with: (term u64 | entry kind u8 | length u32 | data) * count

Sender and receiver are not in the bytes: the connection's handshake named both, so a member cannot speak for
another. Entries follow prev_index without a gap, so their index is not in the bytes either. The layout belongs
to a protocol number that the handshake compares; any change of it is a new number.

Decoding trusts nothing: every length is checked against the bytes that are there before anything is built from
it, and what does not fit raises PeerProtocolError, upon which the connection is dropped.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

from raft.messages import (
    AppendEntries,
    AppendResponse,
    CommitNotice,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.types import ConfState, Entry, EntryKind, SnapshotMeta

PROTOCOL = 1
U64_MAX = (1 << 64) - 1

# Numbers are on the wire: never reuse one.
PRE_VOTE_REQUEST = 1
PRE_VOTE_RESPONSE = 2
VOTE_REQUEST = 3
VOTE_RESPONSE = 4
APPEND_ENTRIES = 5
APPEND_RESPONSE = 6
HEARTBEAT = 7
HEARTBEAT_RESPONSE = 8
COMMIT_NOTICE = 9
INSTALL_SNAPSHOT = 10
READ_INDEX_REQUEST = 11
READ_INDEX_RESPONSE = 12
TIMEOUT_NOW = 13

_CANDIDACY = struct.Struct(">BQQQB")  # last_index, last_term, force
_GRANT = struct.Struct(">BQB")
_APPEND = struct.Struct(">BQQQQI")  # prev_index, prev_term, commit, count
_ENTRY = struct.Struct(">QBI")
_APPENDED = struct.Struct(">BQQBQQ")  # index, reject, hint_index, hint_term
_TWO = struct.Struct(">BQQQ")
_ONE = struct.Struct(">BQQ")
_READ = struct.Struct(">BQQQB")  # context, index, ok
_BARE = struct.Struct(">BQ")
_SNAPSHOT = struct.Struct(">BQQQI")  # meta's index and term, length of the conf state
_KINDS = {int(kind): kind for kind in EntryKind}


class PeerProtocolError(Exception):
    """A peer sent what no peer sends. The connection it came on is dropped."""


def encode_conf_state(conf: ConfState) -> bytes:
    """JSON: small, rare, and readable in a log one has to look at by eye."""
    fields = {
        "voters": list(conf.voters),
        "voters_outgoing": list(conf.voters_outgoing),
        "learners": list(conf.learners),
        "learners_next": list(conf.learners_next),
        "auto_leave": conf.auto_leave,
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_conf_state(data: bytes) -> ConfState:
    """Raises ValueError."""
    try:
        fields = json.loads(data)
    except RecursionError:
        raise ValueError("a conf state that nests") from None
    if not isinstance(fields, dict) or type(fields.get("auto_leave")) is not bool:
        raise ValueError("not a conf state")
    groups: list[tuple[int, ...]] = []
    for name in ("voters", "voters_outgoing", "learners", "learners_next"):
        ids = fields.get(name)
        if not isinstance(ids, list) or not all(type(each) is int and 0 < each <= U64_MAX for each in ids):
            raise ValueError(f"not a conf state: {name}")
        groups.append(tuple(ids))
    voters, outgoing, learners, learners_next = groups
    return ConfState(voters, outgoing, learners, learners_next, fields["auto_leave"])


def encode_message(message: Message, parts: list[bytes]) -> int:
    """Adds the message's bytes to parts, entry data by reference, and returns how many they are."""
    kind = type(message)
    if kind is AppendEntries:
        assert isinstance(message, AppendEntries)
        return _encode_append(message, parts)
    data = _ENCODERS[kind](message)
    parts.append(data)
    return len(data)


def _encode_append(message: AppendEntries, parts: list[bytes]) -> int:
    entries = message.entries
    head = _APPEND.pack(
        APPEND_ENTRIES, message.term, message.prev_index, message.prev_term, message.commit, len(entries)
    )
    parts.append(head)
    size, pack, add = _APPEND.size + _ENTRY.size * len(entries), _ENTRY.pack, parts.append
    for entry in entries:
        data = entry.data
        size += len(data)
        add(pack(entry.term, entry.kind, len(data)))
        add(data)
    return size


def _encode_snapshot(m: InstallSnapshot) -> bytes:
    conf = encode_conf_state(m.meta.conf_state)
    return _SNAPSHOT.pack(INSTALL_SNAPSHOT, m.term, m.meta.index, m.meta.term, len(conf)) + conf


_ENCODERS: dict[type, Callable[..., bytes]] = {
    PreVoteRequest: lambda m: _CANDIDACY.pack(PRE_VOTE_REQUEST, m.term, m.last_index, m.last_term, 0),
    PreVoteResponse: lambda m: _GRANT.pack(PRE_VOTE_RESPONSE, m.term, m.granted),
    VoteRequest: lambda m: _CANDIDACY.pack(VOTE_REQUEST, m.term, m.last_index, m.last_term, m.force),
    VoteResponse: lambda m: _GRANT.pack(VOTE_RESPONSE, m.term, m.granted),
    AppendResponse: lambda m: _APPENDED.pack(
        APPEND_RESPONSE, m.term, m.index, m.reject, m.hint_index, m.hint_term
    ),
    Heartbeat: lambda m: _TWO.pack(HEARTBEAT, m.term, m.commit, m.context),
    HeartbeatResponse: lambda m: _ONE.pack(HEARTBEAT_RESPONSE, m.term, m.context),
    CommitNotice: lambda m: _ONE.pack(COMMIT_NOTICE, m.term, m.commit),
    InstallSnapshot: _encode_snapshot,
    ReadIndexRequest: lambda m: _ONE.pack(READ_INDEX_REQUEST, m.term, m.context),
    ReadIndexResponse: lambda m: _READ.pack(READ_INDEX_RESPONSE, m.term, m.context, m.index, m.ok),
    TimeoutNow: lambda m: _BARE.pack(TIMEOUT_NOW, m.term),
}


def decode_message(data: bytes, start: int, end: int, *, sender: int, to: int) -> Message:
    """The one message in data[start:end], as said by sender to `to`. Raises PeerProtocolError."""
    if start >= end:
        raise PeerProtocolError("an empty message")
    decoder = _DECODERS.get(data[start])
    if decoder is None:
        raise PeerProtocolError(f"unknown message kind {data[start]}")
    return decoder(data, start, end, sender, to)


def _fields(form: struct.Struct, data: bytes, start: int, end: int) -> tuple[int, ...]:
    if end - start != form.size:
        raise PeerProtocolError(f"message kind {data[start]} in {end - start} bytes, not {form.size}")
    return form.unpack_from(data, start)[1:]


def _flag(value: int) -> bool:
    if value > 1:
        raise PeerProtocolError(f"a flag of value {value}")
    return value == 1


def _pre_vote_request(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    term, last_index, last_term, force = _fields(_CANDIDACY, data, start, end)
    if force:
        raise PeerProtocolError("a forced pre-vote")
    return PreVoteRequest(sender, to, term, last_index, last_term)


def _pre_vote_response(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    term, granted = _fields(_GRANT, data, start, end)
    return PreVoteResponse(sender, to, term, _flag(granted))


def _vote_request(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    term, last_index, last_term, force = _fields(_CANDIDACY, data, start, end)
    return VoteRequest(sender, to, term, last_index, last_term, _flag(force))


def _vote_response(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    term, granted = _fields(_GRANT, data, start, end)
    return VoteResponse(sender, to, term, _flag(granted))


def _append_entries(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    at = start + _APPEND.size
    if at > end:
        raise PeerProtocolError("AppendEntries is cut off")
    _, term, prev_index, prev_term, commit, count = _APPEND.unpack_from(data, start)
    if count * _ENTRY.size > end - at:
        raise PeerProtocolError(f"{count} entries in {end - at} bytes")
    if prev_index + count > U64_MAX:
        raise PeerProtocolError(f"{count} entries after index {prev_index}")
    entries: list[Entry] = []
    unpack, head, kinds, least_term = _ENTRY.unpack_from, _ENTRY.size, _KINDS, prev_term
    for index in range(prev_index + 1, prev_index + 1 + count):
        if at + head > end:
            raise PeerProtocolError("an entry's header is cut off")
        entry_term, kind, size = unpack(data, at)
        at += head
        if at + size > end:
            raise PeerProtocolError("an entry's data is cut off")
        if kind not in kinds:
            raise PeerProtocolError(f"unknown entry kind {kind}")
        if not least_term <= entry_term <= term:
            raise PeerProtocolError(f"entry {index}@{entry_term} after term {least_term}, sent in {term}")
        least_term = entry_term
        entries.append(Entry(index, entry_term, data[at : at + size], kinds[kind]))
        at += size
    if at != end:
        raise PeerProtocolError(f"{end - at} bytes follow the last entry")
    return AppendEntries(sender, to, term, prev_index, prev_term, entries, commit)


def _append_response(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    term, index, reject, hint_index, hint_term = _fields(_APPENDED, data, start, end)
    return AppendResponse(sender, to, term, index, _flag(reject), hint_index, hint_term)


def _heartbeat(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    term, commit, context = _fields(_TWO, data, start, end)
    return Heartbeat(sender, to, term, commit, context)


def _heartbeat_response(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    term, context = _fields(_ONE, data, start, end)
    return HeartbeatResponse(sender, to, term, context)


def _commit_notice(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    term, commit = _fields(_ONE, data, start, end)
    return CommitNotice(sender, to, term, commit)


def _install_snapshot(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    at = start + _SNAPSHOT.size
    if at > end:
        raise PeerProtocolError("InstallSnapshot is cut off")
    _, term, index, meta_term, size = _SNAPSHOT.unpack_from(data, start)
    if at + size != end:
        raise PeerProtocolError("InstallSnapshot's conf state does not fit")
    try:
        conf = decode_conf_state(data[at:end])
    except ValueError as error:
        raise PeerProtocolError(f"InstallSnapshot: {error}") from None
    return InstallSnapshot(sender, to, term, SnapshotMeta(index, meta_term, conf))


def _read_index_request(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    term, context = _fields(_ONE, data, start, end)
    return ReadIndexRequest(sender, to, term, context)


def _read_index_response(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    term, context, index, ok = _fields(_READ, data, start, end)
    return ReadIndexResponse(sender, to, term, context, index, _flag(ok))


def _timeout_now(data: bytes, start: int, end: int, sender: int, to: int) -> Message:
    (term,) = _fields(_BARE, data, start, end)
    return TimeoutNow(sender, to, term)


_DECODERS: dict[int, Callable[[bytes, int, int, int, int], Message]] = {
    PRE_VOTE_REQUEST: _pre_vote_request,
    PRE_VOTE_RESPONSE: _pre_vote_response,
    VOTE_REQUEST: _vote_request,
    VOTE_RESPONSE: _vote_response,
    APPEND_ENTRIES: _append_entries,
    APPEND_RESPONSE: _append_response,
    HEARTBEAT: _heartbeat,
    HEARTBEAT_RESPONSE: _heartbeat_response,
    COMMIT_NOTICE: _commit_notice,
    INSTALL_SNAPSHOT: _install_snapshot,
    READ_INDEX_REQUEST: _read_index_request,
    READ_INDEX_RESPONSE: _read_index_response,
    TIMEOUT_NOW: _timeout_now,
}
