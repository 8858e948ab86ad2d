"""The bounds of each search."""

from __future__ import annotations

from dataclasses import dataclass

from raft import Change, ChangeKind
from tests.exhaustive.snapshot import Permutation

NODES = (1, 2, 3)
IDENTITY: Permutation = (0, 1, 2, 3)


def _change(*pairs: tuple[ChangeKind, int]) -> tuple[Change, ...]:
    return tuple(Change(kind, node) for kind, node in pairs)


@dataclass(frozen=True)
class Scope:
    """The bounds of one search. From drops on they are budgets for a whole path."""

    name: str
    voters: tuple[int, ...] = NODES
    elected: bool = False  # it begins where n1 has won term 1, and everybody knows
    terms: int = 3
    entries: int = 3  # nothing is proposed beyond
    append_bytes: int = 1 << 20
    slow_disks: bool = False  # the end of each write is a step of its own
    pre_vote: bool = False
    check_quorum: bool = False
    changes: tuple[tuple[Change, ...], ...] = ()
    drops: int = 0
    duplicates: int = 0
    crashes: int = 0
    heartbeats: int = 0
    reads: int = 0
    changes_max: int = 0
    compactions: int = 0

    @property
    def symmetric(self) -> bool:
        """Whether nodes may be renamed: they are alike, and no change names one."""
        return self.voters == NODES and not self.changes


SCOPES = {
    scope.name: scope
    for scope in (
        Scope("disks", slow_disks=True, terms=2, crashes=1),
        Scope("commits", elected=True, append_bytes=0, terms=4, entries=2),
        Scope(
            "members",
            voters=(1, 2),
            elected=True,
            entries=2,
            heartbeats=1,
            changes_max=1,
            changes=(
                _change((ChangeKind.ADD_VOTER, 3)),
                _change((ChangeKind.REMOVE, 1)),
                _change((ChangeKind.ADD_VOTER, 3), (ChangeKind.REMOVE, 1)),
            ),
        ),
        Scope("snapshots", elected=True, crashes=1, heartbeats=1, compactions=1),
        Scope("reads", elected=True, entries=2, heartbeats=1, reads=1),
        Scope("leases", elected=True, pre_vote=True, check_quorum=True, entries=2, heartbeats=1, reads=1),
        Scope("core", duplicates=1, crashes=1, heartbeats=1),
    )
}
"""Smallest first, so that the larger have what these leave of the states to see."""
