"""What a node did, as data: one event for each transition. Logs, stories and golden scripts read these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raft.types import ConfState, Index, NodeID, Role, Term


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


@dataclass(slots=True, frozen=True)
class ConfigChanged:
    """A leader appended a configuration, which is in force from then on."""

    node: NodeID
    term: Term
    index: Index
    conf: ConfState

    def __str__(self) -> str:
        conf = self.conf
        joint = f" & {list(conf.voters_outgoing)}" if conf.voters_outgoing else ""
        learners = [*conf.learners, *conf.learners_next]
        return f"n{self.node}@{self.term} config {self.index}: {list(conf.voters)}{joint} learners {learners}"


Event = RoleChanged | Voted | Committed | Restored | SteppedDown | ConfigChanged
Trace = Callable[[Event], None]
