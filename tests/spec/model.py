"""What the specification knows of one node: abstract state, and the disk behind it.

An entry is (term, data, configuration it brings or None); a log is what follows its base. Majorities are counted
here by sets and overlap by trying every set of nodes, so that nothing is taken over from raft/quorum.py or
raft/membership.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from raft.messages import Message
from raft.types import ConfState, SnapshotMeta

FOLLOWER, PRE_CANDIDATE, CANDIDATE, LEADER = range(4)
ROLES = ("follower", "pre-candidate", "candidate", "leader")


class SpecViolation(AssertionError):
    """A node did what the specification does not allow."""


def demand(condition: object, text: str | Callable[[], str]) -> None:
    """text: a function where it is asked for so often that making it would be felt."""
    if not condition:
        raise SpecViolation(f"spec: {text if isinstance(text, str) else text()}")


class Config(NamedTuple):
    """voters, and while the configuration is joint the outgoing ones; learners have no vote (thesis 4.2, 4.3)."""

    voters: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()

    def has_quorum(self, nodes: Collection[int]) -> bool:
        """Whether nodes hold a majority of the voters, and of the outgoing ones where there are any."""
        return all(
            2 * len(half.intersection(nodes)) > len(half) for half in (self.voters, self.outgoing) if half
        ) and bool(self.voters)

    def left(self) -> Config:
        """What follows a joint configuration."""
        return Config(self.voters, learners=self.learners | self.learners_next)


@lru_cache(maxsize=4096)
def overlap(old: Config, new: Config) -> bool:
    """Whether no quorum of old is disjoint from every quorum of new: tried with every set of nodes."""
    nodes = sorted(old.voters | old.outgoing | new.voters | new.outgoing)
    for size in range(len(nodes) + 1):
        for chosen in combinations(nodes, size):
            rest = [node for node in nodes if node not in chosen]
            if old.has_quorum(chosen) and new.has_quorum(rest):
                return False
    return True


class Entry(NamedTuple):
    term: int
    data: bytes
    config: Config | None = None


class Seen(NamedTuple):
    """What is observed of a node. commit ≤ last, and the log is the entries base+1..last."""

    term: int
    vote: int
    role: int
    leader: int
    commit: int
    base: int
    last: int
    last_term: int


@dataclass(slots=True)
class Log:
    """configs: (index, configuration), the first as of base or before, the last in force."""

    configs: list[tuple[int, Config]]
    base: int = 0
    base_term: int = 0
    entries: list[Entry] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.base + len(self.entries)

    @property
    def last_term(self) -> int:
        return self.entries[-1].term if self.entries else self.base_term

    @property
    def config(self) -> Config:
        return self.configs[-1][1]

    def term_at(self, index: int) -> int | None:
        at = index - self.base - 1
        if 0 <= at < len(self.entries):
            return self.entries[at].term
        return self.base_term if index == self.base else None

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.config is not None:
            self.configs.append((self.last, entry.config))

    def truncate(self, last: int) -> None:
        del self.entries[last - self.base :]
        while len(self.configs) > 1 and self.configs[-1][0] > last:
            self.configs.pop()

    def compact(self, index: int) -> None:
        term = self.term_at(index)
        assert term is not None
        del self.entries[: index - self.base]
        self.base, self.base_term = index, term
        while len(self.configs) > 1 and self.configs[1][0] <= index:
            del self.configs[0]

    def copy(self) -> Log:
        return Log(list(self.configs), self.base, self.base_term, list(self.entries))


@dataclass(slots=True, frozen=True)
class Snapshot:
    index: int
    term: int
    config: Config


def config_of(conf: ConfState) -> Config:
    rows = (conf.voters, conf.voters_outgoing, conf.learners, conf.learners_next)
    return Config(*map(frozenset, rows))


def snapshot_of(meta: SnapshotMeta) -> Snapshot:
    return Snapshot(meta.index, meta.term, config_of(meta.conf_state))


@dataclass(slots=True)
class Taken:
    """A Ready as the specification sees it: what goes to the disk, and what is said when it is there."""

    number: int
    hard_state: tuple[int, int] | None  # term, vote
    snapshot: Snapshot | None
    entries: Sequence[tuple[int, Entry]]
    messages: Sequence[Message]
    messages_after_persist: Sequence[Message]
    committed: Sequence[tuple[int, int]]  # index, term
    reads: Sequence[tuple[int, int]]  # context, index

    @property
    def first(self) -> int:
        return self.entries[0][0] if self.entries else 0


@dataclass(slots=True)
class Disk:
    """What survives a crash. Never compacted: what a node once held durably is remembered."""

    log: Log
    term: int = 0
    vote: int = 0

    def write(self, taken: Taken, entry_count: int | None = None) -> None:
        """entry_count: a torn write keeps so many entries, and no hard state."""
        if taken.hard_state is not None and entry_count is None:
            self.term, self.vote = taken.hard_state
        if taken.snapshot is not None:
            meta = taken.snapshot
            self.log = Log([(meta.index, meta.config)], meta.index, meta.term)
        for index, entry in taken.entries[:entry_count]:
            if index <= self.log.base:
                continue
            if index > self.log.last + 1:
                raise SpecViolation(f"{index}@{entry.term} is written after {self.log.last}: a gap")
            self.log.truncate(index - 1)
            self.log.append(entry)

    def copy(self) -> Disk:
        return Disk(self.log.copy(), self.term, self.vote)


@dataclass(slots=True)
class Node:
    """One node's abstract state. votes, match and rounds are what really reached it, not what it says it counted."""

    id: int
    log: Log
    disk: Disk
    origin: Config  # before any entry
    agreed: Seen | None = None  # what was last observed of it, and found legal
    term: int = 0
    vote: int = 0
    role: int = FOLLOWER
    leader: int = 0
    commit: int = 0
    given: int = 0  # how far committed entries were handed out to be applied
    handed: tuple[int, int] = (0, 0)  # last entry that was handed to the disk: index, term
    handed_state: tuple[int, int] = (0, 0)  # term, vote
    writing: deque[Taken] = field(default_factory=deque)
    votes: set[int] = field(default_factory=set)
    pre_votes: set[int] = field(default_factory=set)
    match: dict[int, int] = field(default_factory=dict)
    told_to_campaign: int = -1  # the term in which a leader said so
    asked: dict[int, int] = field(
        default_factory=dict
    )  # a read's context -> what was committed when it began
    arrived: dict[tuple[int, int], int] = field(
        default_factory=dict
    )  # (asker, context) -> when, at the leader
    rounds: dict[int, int] = field(default_factory=dict)  # heartbeat round -> when it began
    answers: dict[int, set[int]] = field(default_factory=dict)  # round -> who answered

    def seen(self) -> Seen:
        log = self.log
        return Seen(
            self.term, self.vote, self.role, self.leader, self.commit, log.base, log.last, log.last_term
        )

    def own_vote_is_durable(self) -> bool:
        return self.disk.term == self.term and self.disk.vote == self.id

    def observe_term(self, term: int, leader: int) -> None:
        """A newer term makes a follower of anybody, who has not voted in it (thesis 3.3)."""
        self.term, self.vote = term, 0
        self.follow(leader)

    def follow(self, leader: int) -> None:
        self.role, self.leader = FOLLOWER, leader

    def stand(self) -> None:
        self.term, self.vote, self.role, self.leader = self.term + 1, self.id, CANDIDATE, 0
        self.votes = set()

    def lead(self) -> None:
        self.role, self.leader = LEADER, self.id
        self.match, self.arrived, self.rounds, self.answers = {}, {}, {}, {}

    def __str__(self) -> str:
        return f"n{self.id}@{self.term}"
