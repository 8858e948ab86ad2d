"""Configurations and how one follows another (thesis 4).

A CONFIG entry carries the whole configuration it brings, and a context that is the driver's own. A node uses the
newest configuration in its log from the moment the entry is appended, committed or not (thesis 4.1), and goes
back when the entry is truncated; raft/log.py keeps that row. Two configurations that follow one another always
have overlapping majorities:

    one voter more or less            C_old ─────────────► C_new
    several voters at once            C_old ─► C_old,new ─► C_new      (joint; left as soon as it is committed)
    learners only                     C_old ─────────────► C_new      (the voters are the same)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from raft.quorum import members_of
from raft.types import ConfState, NodeID

NOWHERE = ConfState(())
"""The configuration of a node that has not heard of its cluster yet: it votes for nobody and waits."""

_HEAD = struct.Struct(">BHHHH")
_AUTO_LEAVE = 1


class ChangeKind(IntEnum):
    ADD_VOTER = 0
    ADD_LEARNER = 1
    REMOVE = 2


@dataclass(slots=True, frozen=True)
class Change:
    """ADD_VOTER promotes a learner, ADD_LEARNER demotes a voter."""

    kind: ChangeKind
    node: NodeID


class InvalidChange(ValueError):
    """No configuration can come of these changes."""


class MalformedConfig(ValueError):
    """The bytes of a CONFIG entry are not a configuration."""


def initial(voters: tuple[NodeID, ...]) -> ConfState:
    """The configuration a cluster is born with. Raises ValueError for an empty or repeating one."""
    if not voters:
        raise ValueError("a configuration needs a voter")
    if len(set(voters)) != len(voters) or min(voters) <= 0:
        raise ValueError(f"voters must be distinct and positive: {voters}")
    return ConfState(voters=tuple(sorted(voters)))


def changed(conf: ConfState, changes: Sequence[Change]) -> ConfState:
    """What follows conf: final where at most one vote comes or goes, else joint. Raises InvalidChange."""
    if conf.voters_outgoing:
        raise InvalidChange("a joint configuration has to be left first")
    nodes = [change.node for change in changes]
    if not nodes or len(set(nodes)) != len(nodes) or min(nodes) <= 0:
        raise InvalidChange(f"changes must name distinct, positive nodes: {nodes}")
    voters, learners = set(conf.voters), set(conf.learners)
    for change in changes:
        voters.discard(change.node)
        learners.discard(change.node)
        if change.kind == ChangeKind.ADD_VOTER:
            voters.add(change.node)
        elif change.kind == ChangeKind.ADD_LEARNER:
            learners.add(change.node)
    if not voters:
        raise InvalidChange("nobody would be left to vote")
    old = set(conf.voters)
    if len(voters ^ old) <= 1:
        return ConfState(voters=_row(voters), learners=_row(learners))
    return ConfState(
        voters=_row(voters),
        voters_outgoing=conf.voters,
        learners=_row(learners - old),
        learners_next=_row(learners & old),  # they vote in the old half until it is left
        auto_leave=True,
    )


def left(conf: ConfState) -> ConfState:
    """What follows a joint configuration."""
    return ConfState(voters=conf.voters, learners=_row({*conf.learners, *conf.learners_next}))


def overlap(old: ConfState, new: ConfState) -> bool:
    """Whether every majority of one meets every majority of the other, as far as the rules above go."""
    if not old.voters:
        return True  # a node that joins has heard of none before
    if old.voters_outgoing:
        return new == left(old)
    if new.voters_outgoing:
        return new.voters_outgoing == old.voters
    return len(set(old.voters) ^ set(new.voters)) <= 1


@lru_cache(maxsize=64)
def peers(conf: ConfState, node: NodeID) -> tuple[NodeID, ...]:
    """Everybody else the leader replicates to, ascending."""
    return tuple(each for each in members_of(conf) if each != node)


def encode(conf: ConfState, context: bytes = b"") -> bytes:
    """A CONFIG entry's data."""
    rows = (conf.voters, conf.voters_outgoing, conf.learners, conf.learners_next)
    head = _HEAD.pack(_AUTO_LEAVE if conf.auto_leave else 0, *map(len, rows))
    ids = [node for row in rows for node in row]
    return head + struct.pack(f">{len(ids)}Q", *ids) + context


def decode(data: bytes) -> tuple[ConfState, bytes]:
    """A CONFIG entry's configuration and context. Raises MalformedConfig."""
    try:
        flags, *counts = _HEAD.unpack_from(data)
        ids = struct.unpack_from(f">{sum(counts)}Q", data, _HEAD.size)
    except struct.error as problem:
        raise MalformedConfig(str(problem)) from None
    rows: list[tuple[NodeID, ...]] = []
    at = 0
    for count in counts:
        row = ids[at : at + count]
        if list(row) != sorted(set(row)) or (row and row[0] <= 0):
            raise MalformedConfig(f"not a row of ascending, positive nodes: {row}")
        rows.append(row)
        at += count
    conf = ConfState(rows[0], rows[1], rows[2], rows[3], bool(flags & _AUTO_LEAVE))
    return conf, data[_HEAD.size + 8 * len(ids) :]


def _row(nodes: set[NodeID]) -> tuple[NodeID, ...]:
    return tuple(sorted(nodes))
