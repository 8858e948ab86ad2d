"""How long a client that refuses is left alone. Pure: `now` is passed in, in seconds.

What was refused is never sent again: it is only a new version that is, and no sooner than after a pause that doubles
with every refusal in a row. A set that changes many times a second would otherwise be refused as often.
"""

from __future__ import annotations

from dataclasses import dataclass

PAUSE_FIRST_S, PAUSE_LONGEST_S = 1.0, 30.0


@dataclass(slots=True)
class Pace:
    """until: when the next push may go; 0 when it may at once."""

    until: float = 0.0
    _pause_s: float = 0.0

    def refused(self, now: float) -> float:
        """Returns the pause."""
        self._pause_s = min(max(self._pause_s * 2, PAUSE_FIRST_S), PAUSE_LONGEST_S)
        self.until = now + self._pause_s
        return self._pause_s

    def accepted(self) -> None:
        self._pause_s = self.until = 0.0

    def allows(self, now: float) -> bool:
        return now >= self.until
