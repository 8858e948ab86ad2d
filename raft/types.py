"""The nouns of the protocol. Everything a node keeps or says is made of these.

Notation in stories and assertions: `n2@4` is node 2 in term 4, `10@4` the entry at index 10 of term 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

Term = int
Index = int
NodeID = int

NOBODY: NodeID = 0
"""No vote given, no leader known. Node ids are positive."""


class EntryKind(IntEnum):
    NORMAL = 0
    CONFIG = 1


class Role(IntEnum):
    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


@dataclass(slots=True)
class Entry:
    """One place in the log. data is opaque and encoded once, by who proposed it; b"" is a new leader's no-op."""

    index: Index
    term: Term
    data: bytes
    kind: EntryKind = EntryKind.NORMAL

    def __str__(self) -> str:
        return f"{self.index}@{self.term}"


@dataclass(slots=True, frozen=True, order=True)
class EntryID:
    """What identifies an entry: two logs with the same EntryID are equal up to it (log matching)."""

    term: Term
    index: Index

    def __str__(self) -> str:
        return f"{self.index}@{self.term}"


@dataclass(slots=True, frozen=True)
class HardState:
    """What a node must not forget: written in one record, so that no crash keeps a term without its vote."""

    term: Term = 0
    vote: NodeID = NOBODY
    commit: Index = 0


@dataclass(slots=True, frozen=True)
class ConfState:
    """A configuration. While voters_outgoing is not empty it is joint: both majorities must agree (thesis 4.3)."""

    voters: tuple[NodeID, ...]
    voters_outgoing: tuple[NodeID, ...] = ()
    learners: tuple[NodeID, ...] = ()
    learners_next: tuple[NodeID, ...] = ()
    auto_leave: bool = False


@dataclass(slots=True, frozen=True)
class SnapshotMeta:
    """Where a log begins: everything up to index, whose entry had this term, is in the state machine."""

    index: Index
    term: Term
    conf_state: ConfState

    def __str__(self) -> str:
        return f"{self.index}@{self.term}"
