"""What a node did, as data: one event for each transition. Logs, stories and golden scripts read these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raft.types import Index, NodeID, Role, Term


@dataclass(slots=True, frozen=True)
class RoleChanged:
    node: NodeID
    term: Term
    old: Role
    new: Role
    leader: NodeID

    def __str__(self) -> str:
        return f"n{self.node}@{self.term} {self.old.name.lower()} => {self.new.name.lower()} leader={self.leader}"


@dataclass(slots=True, frozen=True)
class Voted:
    node: NodeID
    term: Term
    candidate: NodeID
    granted: bool
    pre: bool

    def __str__(self) -> str:
        verb = "grants" if self.granted else "refuses"
        return f"n{self.node}@{self.term} {verb} n{self.candidate} its {'pre-' if self.pre else ''}vote"


@dataclass(slots=True, frozen=True)
class Committed:
    node: NodeID
    term: Term
    index: Index

    def __str__(self) -> str:
        return f"n{self.node}@{self.term} commits {self.index}"


@dataclass(slots=True, frozen=True)
class Restored:
    node: NodeID
    term: Term
    index: Index

    def __str__(self) -> str:
        return f"n{self.node}@{self.term} restores a snapshot at {self.index}"


@dataclass(slots=True, frozen=True)
class SteppedDown:
    """A leader gave up because it had not heard from a quorum for an election timeout."""

    node: NodeID
    term: Term

    def __str__(self) -> str:
        return f"n{self.node}@{self.term} has lost its quorum"


Event = RoleChanged | Voted | Committed | Restored | SteppedDown
Trace = Callable[[Event], None]
