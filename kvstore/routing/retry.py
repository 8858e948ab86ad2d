"""Whether a request that met a fault may go to another instance. Pure: no clock, no I/O; `now` is passed in.

Two things must hold: that sending it again cannot do anything twice (may_repeat), and that there is budget left.
The budget is there for the instances: when many requests fail, repeating each of them multiplies the load on those
that still answer. As in Finagle and Envoy it is a share of what was asked lately, and a little more so that a quiet
service has one at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

REPEATABLE = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"))
WINDOW_S = 10


class Fault(StrEnum):
    NOT_CONNECTED = "not connected"  # nothing was sent
    BROKEN_OFF = "broken off"  # something may have been sent, and the answer had not begun
    TOO_SLOW = "too slow"  # it took the request and was silent


def may_repeat(fault: Fault, method: str, *, is_body_at_hand: bool) -> bool:
    """is_body_at_hand: there is none, it is held, or nothing of it was passed on yet."""
    if not is_body_at_hand or fault is Fault.TOO_SLOW:
        return False
    return fault is Fault.NOT_CONNECTED or method in REPEATABLE


@dataclass(slots=True)
class Budget:
    """In any WINDOW_S seconds at most share * requests + per_s * WINDOW_S repetitions, counted by whole seconds."""

    share: float = 0.2
    per_s: float = 10.0
    spent_count: int = 0  # ever
    refused_count: int = 0  # ever
    _second: int = 0
    _request_total: int = 0
    _repeat_total: int = 0
    _requests: list[int] = field(default_factory=lambda: [0] * WINDOW_S)
    _repeats: list[int] = field(default_factory=lambda: [0] * WINDOW_S)

    def request(self, now: float) -> None:
        """One came in."""
        if int(now) != self._second:
            self._turn(int(now))
        self._requests[self._second % WINDOW_S] += 1
        self._request_total += 1

    def take(self, now: float) -> bool:
        """Whether one may be repeated; then it is paid for."""
        if int(now) != self._second:
            self._turn(int(now))
        if self._repeat_total + 1 > self.share * self._request_total + self.per_s * WINDOW_S:
            self.refused_count += 1
            return False
        self._repeats[self._second % WINDOW_S] += 1
        self._repeat_total += 1
        self.spent_count += 1
        return True

    def _turn(self, second: int) -> None:
        """What is older than the window is forgotten. A clock that goes back stays in the second it was in."""
        if second < self._second:
            return
        for old in range(max(self._second + 1, second - WINDOW_S + 1), second + 1):
            self._request_total -= self._requests[old % WINDOW_S]
            self._repeat_total -= self._repeats[old % WINDOW_S]
            self._requests[old % WINDOW_S] = self._repeats[old % WINDOW_S] = 0
        self._second = second
