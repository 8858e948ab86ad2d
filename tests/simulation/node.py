"""One simulated member around a real RawNode: a disk that loses what it was not asked to keep, and a state
machine that remembers what it applied. It carries out Readys by the contract in raft/DESIGN.md, and checks on
the way that nothing is said which the disk does not hold yet.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

from kvstore.replication.recovery import meet
from kvstore.replication.wal import Recovered, WalMetadata
from raft import (
    AppendResponse,
    Config,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    RawNode,
    Ready,
    SnapshotMeta,
    VoteResponse,
    membership,
)
from raft.invariants import InvariantViolated
from tests.simulation.reach import hit

Applied = tuple[int, int, ConfState]
"""State after an entry: its index, its term, and the configuration by then."""


@dataclass
class Disk:
    """What survives a crash, and what is still being written."""

    hard_state: HardState = field(default_factory=HardState)
    base: SnapshotMeta | None = None
    entries: list[Entry] = field(default_factory=list)
    writing: deque[Ready] = field(default_factory=deque)

    @property
    def base_index(self) -> int:
        return self.base.index if self.base is not None else 0

    @property
    def base_term(self) -> int:
        return self.base.term if self.base is not None else 0

    def term_at(self, index: int) -> int | None:
        if index == self.base_index:
            return self.base_term
        at = index - self.base_index - 1
        return self.entries[at].term if 0 <= at < len(self.entries) else None

    def write(self, ready: Ready, entry_count: int | None = None, *, whole: bool = True) -> None:
        """Makes a Ready durable; a torn one keeps its first entries and not its hard state."""
        if ready.hard_state is not None and whole:
            self.hard_state = ready.hard_state
        if ready.snapshot is not None:
            self.begin_at(ready.snapshot)
        for entry in ready.entries[:entry_count]:
            keep = entry.index - self.base_index - 1
            if keep < 0:
                # It had replaced one that is gone with the log's beginning: as in kvstore/replication/wal_format.py
                # the log begins right behind it.
                self.begin_at(SnapshotMeta(entry.index, entry.term, membership.NOWHERE))
                continue
            assert keep <= len(self.entries), f"entry {entry} leaves a gap after {len(self.entries)}"
            del self.entries[keep:]
            self.entries.append(entry)

    def begin_at(self, meta: SnapshotMeta) -> None:
        self.base, self.entries = meta, []

    def compact(self, index: int) -> None:
        term = self.term_at(index)
        if index <= self.base_index or term is None:
            return
        del self.entries[: index - self.base_index]
        self.base = SnapshotMeta(index, term, membership.NOWHERE)  # whose configuration state knows

    def crash(self, random: Random) -> None:
        """Some prefix of the writes under way reached the disk, the last of them perhaps in part."""
        survive = random.randint(0, len(self.writing))
        for _ in range(survive):
            self.write(self.writing.popleft())
        if self.writing and random.random() < 0.5:
            torn = self.writing[0]
            if torn.snapshot is None:
                hit("crash that tears a write")
                self.write(torn, random.randint(0, len(torn.entries)), whole=False)
        self.writing.clear()


class SimNode:
    def __init__(self, node_id: int, conf: ConfState, random: Random) -> None:
        self.id = node_id
        self.random = random
        self.disk = Disk()
        self.applied: list[Applied] = [(0, 0, conf)]  # as far as state has come
        self.durable = 0  # how far of that survives a crash
        self.raw: RawNode | None = None
        self.paused_until = 0.0
        self.ticks = 0
        self.heard: dict[int, int] = {}  # tick at which a peer's message last arrived
        self.led_since = 0
        self.conf_since = 0  # when it last appended a configuration as leader

    def start(self) -> None:
        recovered = Recovered(
            WalMetadata(1, self.id, 1, 0),
            1,
            self.disk.hard_state,
            membership.NOWHERE,
            None,
            base_index=self.disk.base_index,
            base_term=self.disk.base_term,
            entries=list(self.disk.entries),
        )
        index, term, conf = self.state_at(self.durable)
        start, gave_way = meet(recovered, applied=index, term=term, conf=conf)
        if gave_way:
            hit("restart with state ahead of the log")
            self.disk.begin_at(start.base)
        self.raw = RawNode(
            Config(id=self.id, max_append_bytes=400, max_inflight_appends=8),
            hard_state=start.hard_state,
            snapshot=start.base,
            entries=start.entries,
            applied=start.applied,
            random=self.random,
        )
        self.heard, self.ticks, self.conf_since = {}, 0, 0

    def crash(self) -> None:
        self.disk.crash(self.random)
        self.raw = None
        self.applied = [at for at in self.applied if at[0] <= self.durable]

    def state_at(self, index: int) -> Applied:
        return next(at for at in reversed(self.applied) if at[0] <= index)

    def apply(self, entry: Entry) -> None:
        last = self.applied[-1][0]
        if entry.index != last + 1:
            raise InvariantViolated(f"n{self.id} applies {entry} after {last}")
        conf = self.applied[-1][2]
        if entry.kind == EntryKind.CONFIG:
            conf, _ = membership.decode(entry.data)
        self.applied.append((entry.index, entry.term, conf))

    def install(self, meta: SnapshotMeta) -> None:
        """State is replaced and durable before the log hears of it, as the member does it."""
        self.applied = [(meta.index, meta.term, meta.conf_state)]
        self.durable = meta.index

    def check_counted_durable(self) -> None:
        """What the core counts as written is written, and by the entry that stands there now."""
        assert self.raw is not None
        log, disk = self.raw.raft.log, self.disk
        if log.durable > log.base and log.durable > disk.base_index:
            if disk.term_at(log.durable) != log.term(log.durable):
                raise InvariantViolated(
                    f"n{self.id}@{self.raw.term} counts {log.durable}@{log.term(log.durable)} as durable, "
                    f"on disk is {disk.term_at(log.durable)}"
                )

    def check_durable(self, message: Message) -> None:
        """Vote and term are on disk before any message that depends on them, and so are acknowledged entries."""
        disk, name = self.disk, f"n{self.id}@{message.term}"
        if isinstance(message, PreVoteRequest) or (isinstance(message, PreVoteResponse) and message.granted):
            return
        if disk.hard_state.term < message.term:
            raise InvariantViolated(
                f"{name} sends {type(message).__name__} with term {disk.hard_state.term} on disk"
            )
        if isinstance(message, VoteResponse) and message.granted:
            if (disk.hard_state.term, disk.hard_state.vote) != (message.term, message.to):
                raise InvariantViolated(f"{name} grants n{message.to} a vote that is not on disk")
        if isinstance(message, AppendResponse) and not message.reject and message.index:
            if message.index > disk.base_index + len(disk.entries):
                raise InvariantViolated(f"{name} acknowledges {message.index}, which is not on disk")
