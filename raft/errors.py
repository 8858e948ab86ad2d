"""What a caller of the core is told."""

from __future__ import annotations

from raft.types import NodeID


class ProposalDropped(Exception):
    """Nothing was appended, so proposing again elsewhere is safe."""

    def __init__(self, leader_id: NodeID, reason: str) -> None:
        super().__init__(f"{reason} (leader: {leader_id or 'none'})")
        self.leader_id = leader_id
        self.reason = reason
