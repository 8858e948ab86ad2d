"""A node of the real core as a tuple, and back: cheap to keep, to compare and to hash.

encode() is taken of a node at rest, whose Readys have all been carried out; what follows from other fields then
is left out. Every node id in it goes through a permutation, for the search's symmetry reduction. KNOWN names
every field of the core's objects: a new one has to be thought about here, and a test says so.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

from raft import Config, ConfState, Entry, EntryID, EntryKind, HardState, Message, RawNode, Role, SnapshotMeta
from raft import messages as m
from raft.membership import decode as decode_config
from raft.membership import encode as encode_config
from raft.node import SoftState, _Writing
from raft.progress import Progress, ProgressState
from raft.reads import ReadRound

Permutation = tuple[int, ...]
"""New id at each old one; 0, nobody, stays."""

Encoded = tuple[Any, ...]

ELECTION_TICKS = 1 << 20
"""Longer than any search: time passes only where the search says so."""

KNOWN = {
    "RawNode": {"raft", "_number", "_writing", "_hard_state", "_soft_state"},
    "Raft": set(
        "config id random trace log term vote role leader_id durable_term election_elapsed heartbeat_elapsed "
        "election_timeout votes progress reads uncommitted_bytes transfer_to transfer_elapsed forwarded_reads "
        "messages messages_after_persist read_states reads_failed restored "
        "_followers _followers_of".split()  # these two repeat progress and the log's configuration
    ),
    "RaftLog": set("_entries applied base base_term committed configs durable handed taken".split()),
    "Progress": set(
        "_window commit_sent inflight_bytes match needs_nudge next pending_snapshot probe_sent recent_active "
        "state".split()
    ),
    "LeaderReads": {"joining", "_rounds", "_last_number"},
}

MESSAGES: tuple[type[Any], ...] = (
    m.PreVoteRequest,
    m.PreVoteResponse,
    m.VoteRequest,
    m.VoteResponse,
    m.AppendEntries,
    m.AppendResponse,
    m.Heartbeat,
    m.HeartbeatResponse,
    m.CommitNotice,
    m.InstallSnapshot,
    m.ReadIndexRequest,
    m.ReadIndexResponse,
    m.TimeoutNow,
)
_NUMBER = {cls: number for number, cls in enumerate(MESSAGES)}
_APPEND, _SNAPSHOT = _NUMBER[m.AppendEntries], _NUMBER[m.InstallSnapshot]


class Still(Random):
    """Draws nothing: the search decides when a timeout passes."""

    def randrange(self, *args: Any, **kwargs: Any) -> int:
        return 0


STILL = Still(0)


@dataclass(slots=True)
class Write:
    """A Ready on its way to the disk."""

    hard_state: HardState | None
    entries: list[Entry]
    snapshot: SnapshotMeta | None
    messages: list[Message]


@dataclass(slots=True)
class Disk:
    hard_state: HardState
    base: SnapshotMeta
    entries: list[Entry]

    def write(self, write: Write) -> None:
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.snapshot is not None:
            self.base, self.entries = write.snapshot, []
        for entry in write.entries:
            if entry.index > self.base.index:
                del self.entries[entry.index - self.base.index - 1 :]
                self.entries.append(entry)

    def term_at(self, index: int) -> int | None:
        """The term at index; that of the base for anything below it, whose entry its state holds."""
        if index <= self.base.index:
            return self.base.term
        at = index - self.base.index - 1
        return self.entries[at].term if at < len(self.entries) else None


@dataclass(slots=True)
class Member:
    """A node with its disk."""

    raw: RawNode
    disk: Disk
    writing: deque[Write] = field(default_factory=deque)


# Parts


def permuted_conf(conf: ConfState, p: Permutation) -> ConfState:
    def row(nodes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(p[node] for node in nodes))

    outgoing, learners = row(conf.voters_outgoing), row(conf.learners)
    return ConfState(row(conf.voters), outgoing, learners, row(conf.learners_next), conf.auto_leave)


@cache
def _permuted_config(data: bytes, p: Permutation) -> bytes:
    conf, context = decode_config(data)
    return encode_config(permuted_conf(conf, p), context)


def _entry(entry: Entry, p: Permutation) -> Encoded:
    data = _permuted_config(entry.data, p) if entry.kind == EntryKind.CONFIG else entry.data
    return (entry.index, entry.term, data, int(entry.kind))


@cache
def _to_entry(encoded: Encoded) -> Entry:
    index, term, data, kind = encoded
    return Entry(index, term, data, EntryKind(kind))


def _meta(meta: SnapshotMeta | None, p: Permutation) -> Encoded | None:
    return (meta.index, meta.term, permuted_conf(meta.conf_state, p)) if meta is not None else None


def _to_meta(encoded: Encoded | None) -> SnapshotMeta | None:
    return SnapshotMeta(*encoded) if encoded is not None else None


def encode_message(message: Message, p: Permutation) -> Encoded:
    number = _NUMBER[type(message)]
    head = (number, p[message.sender], p[message.to], message.term)
    if isinstance(message, m.AppendEntries):
        entries = tuple(_entry(entry, p) for entry in message.entries)
        return (*head, message.prev_index, message.prev_term, entries, message.commit)
    if isinstance(message, m.InstallSnapshot):
        return (*head, _meta(message.meta, p))
    names = [name for name in type(message).__slots__ if name not in ("sender", "to", "term")]
    return (*head, *(getattr(message, name) for name in names))


def decode_message(encoded: Encoded) -> Message:
    number, *fields = encoded
    if number == _APPEND:
        fields[5] = [_to_entry(entry) for entry in fields[5]]
    elif number == _SNAPSHOT:
        fields[3] = _to_meta(fields[3])
    message: Message = MESSAGES[number](*fields)
    return message


def _hard(state: HardState | None, p: Permutation) -> Encoded | None:
    return (state.term, p[state.vote], state.commit) if state is not None else None


def _to_hard(encoded: Encoded | None) -> HardState | None:
    return HardState(*encoded) if encoded is not None else None


def _progress(node: int, it: Progress) -> Encoded:
    window = tuple(it._window)
    return (
        node,
        it.match,
        it.next,
        int(it.state),
        it.probe_sent,
        it.recent_active,
        it.pending_snapshot,
        it.commit_sent,
        it.needs_nudge,
        window,
    )


def _to_progress(encoded: Encoded) -> Progress:
    _, match, next_, state, probe_sent, recent, pending, commit_sent, nudge, window = encoded
    it = Progress(next_)
    it.match, it.state, it.probe_sent, it.recent_active = match, ProgressState(state), probe_sent, recent
    it.pending_snapshot, it.commit_sent, it.needs_nudge = pending, commit_sent, nudge
    it._window = deque(window)
    it.inflight_bytes = sum(size for _, size in window)
    return it


def _reads(raft: Any, p: Permutation) -> Encoded:
    def requests(pairs: list[tuple[int, int]]) -> Encoded:
        return tuple((p[node], context) for node, context in pairs)

    reads = raft.reads
    rounds = tuple(
        (each.number, each.index, requests(each.requests), tuple(sorted(p[n] for n in each.acknowledged)))
        for each in reads._rounds
    )
    return (requests(reads.joining), rounds, reads._last_number)


# The whole


def encode(member: Member, p: Permutation) -> Encoded:
    """Of a node at rest: everything committed is applied, everything to say is said."""
    raw, disk = member.raw, member.disk
    raft, log = raw.raft, raw.raft.log
    return (
        p[raft.id],
        raft.term,
        p[raft.vote],
        int(raft.role),
        p[raft.leader_id],
        raft.durable_term,
        raft.election_elapsed >= raft.config.election_ticks,
        tuple(sorted((p[node], granted) for node, granted in raft.votes.items())),
        tuple(sorted(_progress(p[node], each) for node, each in raft.progress.items())),
        _reads(raft, p),
        p[raft.transfer_to],
        tuple(sorted(raft.forwarded_reads)),
        log.base,
        log.base_term,
        tuple(_entry(entry, p) for entry in log._entries),
        log.committed,
        log.durable,
        tuple((index, permuted_conf(conf, p)) for index, conf in log.configs),
        _hard(disk.hard_state, p),
        _meta(disk.base, p),
        tuple(_entry(entry, p) for entry in disk.entries),
        tuple(
            (
                _hard(write.hard_state, p),
                tuple(_entry(entry, p) for entry in write.entries),
                _meta(write.snapshot, p),
                tuple(encode_message(message, p) for message in write.messages),
            )
            for write in member.writing
        ),
    )


def new_member(config: Config, conf: ConfState) -> Member:
    return restarted(config, Disk(HardState(), SnapshotMeta(0, 0, conf), []))


def restarted(config: Config, disk: Disk) -> Member:
    """What comes up from a disk; the state machine begins at the log's base."""
    last = disk.base.index + len(disk.entries)
    state = disk.hard_state
    raw = RawNode(
        config,
        hard_state=HardState(state.term, state.vote, max(disk.base.index, min(state.commit, last))),
        snapshot=disk.base,
        entries=disk.entries,
        applied=disk.base.index,
        random=STILL,
    )
    return Member(raw, disk)


def decode(encoded: Encoded, config: Config) -> Member:
    """The node that encode() saw, as a new object."""
    (
        _,
        term,
        vote,
        role,
        leader_id,
        durable_term,
        expired,
        votes,
        progress,
        reads,
        transfer_to,
        forwarded,
        base,
        base_term,
        entries,
        committed,
        durable,
        configs,
        disk_state,
        disk_base,
        disk_entries,
        writing,
    ) = encoded
    log_entries = [_to_entry(entry) for entry in entries]
    meta = SnapshotMeta(base, base_term, configs[0][1])
    raw = RawNode(
        config, hard_state=HardState(), snapshot=meta, entries=log_entries, applied=base, random=STILL
    )
    raft, log = raw.raft, raw.raft.log
    raft.term, raft.vote, raft.role, raft.leader_id = term, vote, Role(role), leader_id
    raft.durable_term = durable_term
    raft.election_elapsed = config.election_ticks if expired else 0
    raft.votes = dict(votes)
    raft.progress = {each[0]: _to_progress(each) for each in progress}
    joining, rounds, raft.reads._last_number = reads
    raft.reads.joining = list(joining)
    raft.reads._rounds = [
        ReadRound(number, index, list(requests), set(who)) for number, index, requests, who in rounds
    ]
    raft.transfer_to = transfer_to
    raft.forwarded_reads = set(forwarded)
    log.committed = log.applied = log.taken = committed
    log.durable, log.handed = durable, log.last_index
    log.configs = list(configs)
    disk_meta, hard_state = _to_meta(disk_base), _to_hard(disk_state)
    assert disk_meta is not None and hard_state is not None
    member = Member(raw, Disk(hard_state, disk_meta, [_to_entry(entry) for entry in disk_entries]))
    raw._hard_state = raft.hard_state()
    raw._soft_state = SoftState(raft.leader_id, raft.role)
    for number, (state, written, snapshot, messages) in enumerate(writing, 1):
        write = Write(
            _to_hard(state),
            [_to_entry(entry) for entry in written],
            _to_meta(snapshot),
            [decode_message(message) for message in messages],
        )
        member.writing.append(write)
        last = EntryID(write.entries[-1].term, write.entries[-1].index) if write.entries else None
        raw._writing.append(_Writing(number, last, write.hard_state))
        raw._number = number
    return member
