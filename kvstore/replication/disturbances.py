"""When a leader and when connections were lost: what a write that got no answer in time may have met with. Pure.

As in etcd a guess, and told as one: each is a RequestTimeout, whose outcome nobody knows.
"""

from __future__ import annotations

from collections.abc import Collection

from kvstore import errors

_NEVER = float("-inf")


class Disturbances:
    def __init__(self) -> None:
        self._leader_changed_at = _NEVER
        self._broken_at: dict[int, float] = {}

    def leader_changed(self, now: float) -> None:
        self._leader_changed_at = now

    def connection_broke(self, node_id: int, now: float) -> None:
        self._broken_at[node_id] = now

    def timeout(
        self, since: float, *, self_id: int, leader_id: int, voters: Collection[int]
    ) -> errors.RequestTimeout:
        """Why a write that was asked for at `since` may have had no answer."""
        if self._leader_changed_at >= since:
            return errors.LeaderLost()
        if leader_id and leader_id != self_id:
            cut_off = self._broke(leader_id, since)
        else:
            kept = sum(1 for node_id in voters if not self._broke(node_id, since))
            cut_off = leader_id == self_id and kept <= len(voters) // 2
        return errors.ConnectionLost() if cut_off else errors.RequestTimeout()

    def _broke(self, node_id: int, since: float) -> bool:
        return self._broken_at.get(node_id, _NEVER) >= since
