"""Token buckets: what a well-behaved peer may do in bursts, and what ends a flood."""

from __future__ import annotations


class Bucket:
    __slots__ = ("_burst", "_rate", "_since", "_tokens")

    def __init__(self, *, per_s: float, burst: float, now: float) -> None:
        self._rate = per_s
        self._burst = burst
        self._tokens = burst
        self._since = now

    def take(self, now: float, cost: float = 1) -> bool:
        """One event at `now` (seconds), or one as dear as `cost`. False where it is one too many."""
        self._tokens = min(self._burst, self._tokens + (now - self._since) * self._rate)
        self._since = now
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True
