"""Configurations: what the core asks of one. Changes (joint consensus, thesis 4.3) are not built yet; the types,
the quorum arithmetic and the entry kind for them are here so that nothing has to be replaced for them.
"""

from __future__ import annotations

from raft.quorum import members_of, voters_of
from raft.types import ConfState, NodeID


def initial(voters: tuple[NodeID, ...]) -> ConfState:
    """The configuration a cluster is born with. Raises ValueError for an empty or repeating one."""
    if not voters:
        raise ValueError("a configuration needs a voter")
    if len(set(voters)) != len(voters) or min(voters) <= 0:
        raise ValueError(f"voters must be distinct and positive: {voters}")
    return ConfState(voters=tuple(sorted(voters)))


def can_campaign(conf: ConfState, node: NodeID) -> bool:
    """Whether node has a vote in either half; learners and the removed do not campaign."""
    return node in voters_of(conf)


def peers(conf: ConfState, node: NodeID) -> tuple[NodeID, ...]:
    """Everybody else the leader replicates to, ascending."""
    return tuple(each for each in members_of(conf) if each != node)
