"""How far away the other members are: a question that costs nothing, now and then, and the time until its answer.

It goes the way of raft's messages and waits behind them, so it shows what a heartbeat meets: the network and how
busy both ends are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from kvstore.meters import PeerMeter

ROUND_TRIP = 41  # request between members: nothing -> nothing
INTERVAL_S = 3.0
PATIENCE_S = 5.0


class Peers(Protocol):
    @property
    def peer_ids(self) -> Sequence[int]: ...

    def meter(self, node_id: int) -> PeerMeter: ...

    def request(
        self,
        to_id: int,
        kind: int,
        payload: bytes,
        timeout_s: float,
        done: Callable[[bytes | None, Exception | None], None],
    ) -> None: ...


class RoundTrips:
    def __init__(self, peers: Peers, *, clock: Callable[[], float]) -> None:
        """clock: monotonic seconds, finer than the loop's milliseconds."""
        self._peers = peers
        self._clock = clock
        self._due = 0.0

    def tick(self, now: float) -> None:
        if now < self._due:
            return
        self._due = now + INTERVAL_S
        for node_id in self._peers.peer_ids:
            self._ask(node_id)

    def _ask(self, node_id: int) -> None:
        meter, asked = self._peers.meter(node_id), self._clock()

        def answered(payload: bytes | None, problem: Exception | None) -> None:
            if problem is None:
                meter.round_trip.observe(self._clock() - asked)

        self._peers.request(node_id, ROUND_TRIP, b"", PATIENCE_S, answered)
