"""When to compact by itself: --auto-compaction-mode and --auto-compaction-retention. Pure: `now` in seconds.

revision   every five minutes, down to the newest `retention` revisions
periodic   to what the revision was `retention` ago, as often as the retention, at most every hour
"""

from __future__ import annotations

from collections import deque

REVISION_INTERVAL_S = 300.0
SAMPLES = 10


class AutoCompaction:
    def __init__(self, mode: str, retention: float, *, now: float) -> None:
        """mode is off, periodic (retention in seconds) or revision (retention in revisions)."""
        self._mode = mode
        self._retention = retention
        self._interval_s = REVISION_INTERVAL_S if mode == "revision" else min(retention, 3600.0)
        self._due = now + self._interval_s
        self._samples: deque[tuple[float, int]] = deque()

    def tick(self, now: float, revision: int) -> int | None:
        """The revision to compact to now, or None."""
        if self._mode == "off":
            return None
        if self._mode == "periodic":
            self._sample(now, revision)
        if now < self._due:
            return None
        self._due = now + self._interval_s
        if self._mode == "revision":
            target = revision - int(self._retention)
        else:
            old = [sample for at, sample in self._samples if at <= now - self._retention]
            target = old[-1] if old else 0
        return target if target > 0 else None

    def _sample(self, now: float, revision: int) -> None:
        """Keeps a tenth of the retention between samples, and one older than it."""
        samples = self._samples
        if not samples or now - samples[-1][0] >= self._interval_s / SAMPLES:
            samples.append((now, revision))
        while len(samples) > 1 and samples[1][0] <= now - self._retention:
            samples.popleft()
