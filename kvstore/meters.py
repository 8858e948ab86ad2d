"""Numbers counted where things happen and read when somebody asks: plain attributes, no lock and no library.

Each is written by one thread and may be read by another, which sees it a moment early or late. What reads them is
kvstore/metrics; nothing here knows a metric's name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


def doubling(first: float, count: int) -> tuple[float, ...]:
    """count bucket bounds, each twice the one before. Rounded, because a bound is also a label."""
    return tuple(round(first * 2**step, 10) for step in range(count))


class Histogram:
    """How many values fell at or below each bound, one more bucket for those above the last, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """count: how many things this value stands for, where only some of them are looked at."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    @property
    def count(self) -> int:
        return sum(self.counts)


DISK_SECONDS = doubling(0.001, 14)  # etcd's, 1 ms to 8.2 s
REQUEST_SECONDS = doubling(0.0001, 20)  # etcd's, 0.1 ms to 52 s
ROUND_TRIP_SECONDS = doubling(0.0001, 16)
SEND_SECONDS = doubling(0.001, 13)


class PeerMeter:
    """What went to one other member and came from it."""

    __slots__ = ("received_bytes", "received_failures", "round_trip", "sent_bytes", "sent_failures")

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.received_bytes = 0
        self.sent_failures = 0
        self.received_failures = 0
        self.round_trip = Histogram(ROUND_TRIP_SECONDS)


class HealthMeter:
    """How probes were answered: /health, and each check of the others."""

    def __init__(self) -> None:
        self.successes = 0
        self.failures = 0
        self.checks: dict[tuple[str, str], list[int]] = {}
        """(probe, check) -> how it went last, how often it passed, how often it failed"""

    def told(self, healthy: bool) -> None:
        if healthy:
            self.successes += 1
        else:
            self.failures += 1

    def checked(self, probe: str, check: str, passed: bool) -> None:
        last = self.checks.setdefault((probe, check), [0, 0, 0])
        last[0] = int(passed)
        last[1 if passed else 2] += 1


class WatchMeter:
    """How long it takes to hand watchers what they asked for, in seconds."""

    def __init__(self) -> None:
        self.events = Histogram(SEND_SECONDS)
        self.per_event = Histogram(SEND_SECONDS)
        self.control = Histogram(SEND_SECONDS)
        self.progress = Histogram(SEND_SECONDS)
