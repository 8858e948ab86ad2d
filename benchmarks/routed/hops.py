"""One way from ready to routed as moments, and the hops between them. Pure.

    signal        the server said READY=1                    its own clock, just before it sends
    heard         kvctl announce took it for ready           its line "ready after"
    acknowledged  the store answered the announcement        its line "announced"
    event         the router's view changed                  its line "1 ready: +one"
    configured    the proxy was told, and agreed             the driver's line; where it has none, the event
    answered      the first answer through the proxy         the client's clock

The programs' lines carry the time of what they tell to the microsecond (kvstore/readiness/console.py), so that nothing
is added to them to be measured. acknowledged is no part of the way to the first answer: it is the announcer's own
affair, beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kvstore.readiness.console import parse_line

MARKS = ("heard", "acknowledged", "event", "configured", "answered")
WAY = ("heard", "event", "configured", "answered")
NAMES = {
    "heard": "READY=1 → heard by kvctl announce",
    "acknowledged": "READY=1 → announcement acknowledged",
    "event": "READY=1 → event at the router",
    "configured": "READY=1 → proxy configured",
    "answered": "READY=1 → first answer",
}
STEPS = {
    "heard": "signal → heard",
    "event": "heard → event at the router",
    "configured": "event → proxy configured",
    "answered": "configured → first answer",
}


class MissingMark(Exception):
    """A program did not say what it should have said in this round."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Moments of one round, in nanoseconds of one clock."""

    signal: int
    heard: int
    acknowledged: int
    event: int
    configured: int
    answered: int

    def since_signal_ms(self) -> dict[str, float]:
        """An answer proves that the proxy was configured, whenever the router got to say so."""
        configured = min(self.configured, self.answered)
        moments = {
            "heard": self.heard,
            "acknowledged": self.acknowledged,
            "event": self.event,
            "configured": configured,
            "answered": self.answered,
        }
        return {name: (at - self.signal) / 1e6 for name, at in moments.items()}


def moment(lines: Iterable[str], pattern: str, offset_ns: int) -> int:
    """When the first line that has the pattern was written, on the monotonic clock; offset_ns: what the wall clock
    is ahead of it. Raises MissingMark."""
    for line in lines:
        parsed = parse_line(line)
        if parsed is not None and re.search(pattern, parsed[1]):
            return round(parsed[0] * 1e9) - offset_ns
    raise MissingMark(f"no line with {pattern!r}")


def steps(medians: Mapping[str, float], way: Sequence[str] = WAY) -> dict[str, float]:
    """Milliseconds of each hop, from the time since the signal at its end. Never negative: medians of neighbours
    may cross by a little."""
    taken: dict[str, float] = {}
    reached = 0.0
    for name in way:
        taken[name] = max(0.0, medians[name] - reached)
        reached = max(reached, medians[name])
    return taken
