"""Time and chance: one queue of events, one seeded PRNG, nothing else moves.

An event belongs to nobody (the network, a client) or to one life of a member, which ends with its crash: what a
life had scheduled is never run after it, and waits while its member is paused.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random


class Life:
    """One start of a member to its end: what may run on its behalf, and by which clock."""

    def __init__(
        self, world: World, name: str, *, clock_rate: float = 1.0, clock_offset: float = 0.0
    ) -> None:
        """clock_rate: its seconds to a second of the world's; clock_offset: what its clock shows at 0."""
        self.world = world
        self.name = name
        self._clock_rate = clock_rate
        self._clock_offset = clock_offset
        self.ended = False
        self.paused_until = 0.0

    def now(self) -> float:
        """By the member's own clock."""
        return self._clock_offset + self.world.now * self._clock_rate

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        """later(), by the member's own clock."""
        self.later(delay / self._clock_rate, call)

    def later(self, delay: float, call: Callable[[], None]) -> None:
        """Runs call unless the life has ended by then; not before a pause has."""
        self.world.at(delay, lambda: self._run(call))

    def _run(self, call: Callable[[], None]) -> None:
        if self.ended:
            return
        waiting = self.paused_until - self.world.now
        if waiting > 0:
            self.world.at(waiting, lambda: self._run(call))
        else:
            call()


class World:
    def __init__(self, seed: int, story: Callable[[str], None] | None = None) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.events = 0
        self._story = story
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0
        self._order = 0

    @property
    def telling(self) -> bool:
        return self._story is not None

    def tell(self, text: str) -> None:
        if self._story is not None:
            self._story(f"{self.now:9.4f}  {text}")

    def order(self) -> int:
        """The next number of the run's one order of everything that is recorded."""
        self._order += 1
        return self._order

    def at(self, delay: float, call: Callable[[], None]) -> None:
        self._scheduled += 1
        heapq.heappush(self._queue, (self.now + max(0.0, delay), self._scheduled, call))

    def run_until(self, time: float) -> None:
        queue = self._queue
        while queue and queue[0][0] <= time:
            self.now, _, call = heapq.heappop(queue)
            self.events += 1
            call()
        self.now = time
