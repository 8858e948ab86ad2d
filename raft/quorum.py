"""Majorities, of one configuration and of two at once (joint consensus, thesis 4.3). Pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from raft.types import ConfState, Index, NodeID


def _committed(voters: Collection[NodeID], match: Callable[[NodeID], Index]) -> Index | None:
    """The highest index a majority of voters has reached; None where there are no voters to ask."""
    if not voters:
        return None
    reached = sorted(map(match, voters), reverse=True)
    return reached[len(reached) // 2]


def committed_index(conf: ConfState, match: Callable[[NodeID], Index]) -> Index:
    """The highest index that a majority of each half of conf has reached."""
    if not conf.voters_outgoing:
        return _committed(conf.voters, match) or 0
    halves = [_committed(conf.voters, match), _committed(conf.voters_outgoing, match)]
    return min((index for index in halves if index is not None), default=0)


def _won(voters: Collection[NodeID], votes: Mapping[NodeID, bool]) -> bool | None:
    """True: a majority granted. False: so many refused that none can. None: still open."""
    granted = sum(1 for node in voters if votes.get(node) is True)
    refused = sum(1 for node in voters if votes.get(node) is False)
    needed = len(voters) // 2 + 1
    if not voters or granted >= needed:
        return True
    return False if len(voters) - refused < needed else None


def vote_result(conf: ConfState, votes: Mapping[NodeID, bool]) -> bool | None:
    """As _won, over both halves: won only where both are, lost where either is."""
    results = (_won(conf.voters, votes), _won(conf.voters_outgoing, votes))
    if False in results:
        return False
    return None if None in results else True


def has_quorum(conf: ConfState, nodes: Collection[NodeID]) -> bool:
    """Whether these nodes hold a majority of each half."""
    return vote_result(conf, dict.fromkeys(nodes, True)) is True


def voters_of(conf: ConfState) -> tuple[NodeID, ...]:
    """Everybody with a vote in either half, ascending."""
    return tuple(sorted({*conf.voters, *conf.voters_outgoing}))


def members_of(conf: ConfState) -> tuple[NodeID, ...]:
    """Everybody the leader replicates to, itself included, ascending."""
    return tuple(sorted({*conf.voters, *conf.voters_outgoing, *conf.learners, *conf.learners_next}))
