"""What all client connections have carried: calls by method and client version, how they ended, bytes, slow ones.

Counted by connection.py as it goes, one attribute at a time, because it runs for every call. Times are taken of
every sixteenth unary call, or of each with `exact`. Whether another was slow is one comparison with a moment that
at() moves, with everything received and with every tick: no call asks the system for the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvstore import log
from kvstore.meters import REQUEST_SECONDS, Histogram

if TYPE_CHECKING:
    from kvstore.wire.streams import Stream

CODES = 17
LOOKED_AT = -1.0  # when no call is opened: before every moment of a clock
_BEFORE_ALL = LOOKED_AT / 2
SAMPLED = 15  # a mask: one call in sixteen
HANDLING_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
VERSIONS_MAX = 32
UNKNOWN_VERSION = "unknown"
SLOW_LINES_PER_S = 10


class CallCounts:
    """Of one method, from clients of one API version."""

    __slots__ = ("codes", "handling", "ok", "path", "received", "requests", "sent", "started", "version")

    def __init__(self, path: str, version: str) -> None:
        self.path = path
        self.version = version
        self.started = 0
        self.ok = 0  # unary calls answered; everything else ends in codes
        self.codes = [0] * CODES
        self.received = 0  # messages of streams
        self.sent = 0
        self.handling = Histogram(HANDLING_SECONDS)
        self.requests = Histogram(REQUEST_SECONDS), Histogram(REQUEST_SECONDS)  # failed, and not


class Traffic:
    def __init__(
        self,
        *,
        clock: Callable[[], float] | None = None,
        exact: bool = False,
        slow_after_s: float = float("inf"),
    ) -> None:
        """clock: monotonic seconds, the ones that connections are told; without it nothing is timed. slow_after_s:
        a unary call that took longer is told in the log."""
        self.clock = clock
        self.exact = exact
        self.slow_after_s = slow_after_s
        self.slow_before = _BEFORE_ALL
        self.time_mask = -1 if clock is None else 0 if exact else SAMPLED  # timed where `started & mask` is 0
        self.queued_bytes = 0  # replies that no window or socket has taken, of all connections
        self.received_bytes = 0
        self.sent_bytes = 0
        self._counts: dict[tuple[str, str], CallCounts] = {}
        self._versions: set[str] = set()
        self._told_since = 0.0
        self._told = 0

    def counts(self, path: str, version: str) -> CallCounts:
        """version is the client's word: only so many different ones are kept apart."""
        version = version or UNKNOWN_VERSION
        if version not in self._versions:
            if len(self._versions) >= VERSIONS_MAX:
                version = UNKNOWN_VERSION
            self._versions.add(version)
        found = self._counts.get((path, version))
        if found is None:
            found = self._counts[path, version] = CallCounts(path, version)
        return found

    def all(self) -> list[CallCounts]:
        return list(self._counts.values())

    def at(self, now: float) -> None:
        """So late it is: of the calls from before `slow_before` one that ends now was slow, or is looked at."""
        self.slow_before = max(now - self.slow_after_s, _BEFORE_ALL)

    def look_at(self, stream: Stream) -> None:
        """This call's time is taken."""
        if self.clock is not None:
            stream.opened_at, stream.timed_from = LOOKED_AT, self.clock()

    def looked_at(self, stream: Stream, status: int, response_bytes: int) -> None:
        """A unary call has ended whose time was taken, or that was opened before slow_before."""
        if stream.opened_at != LOOKED_AT:
            self._slow(
                stream, self.slow_before + self.slow_after_s - stream.opened_at, status, response_bytes
            )
            return
        assert self.clock is not None, "nothing is timed without a clock"
        seconds, counts = self.clock() - stream.timed_from, stream.head.counts
        counts.requests[not status].observe(seconds, 1 if self.exact else SAMPLED + 1)
        if self.exact:
            counts.handling.observe(seconds)
        if seconds > self.slow_after_s:
            self._slow(stream, seconds, status, response_bytes)

    def _slow(self, stream: Stream, seconds: float, status: int, response_bytes: int) -> None:
        """One line, and at most so many a second: what is slow is slow for many."""
        if self.slow_before - self._told_since >= 1:
            if self._told > SLOW_LINES_PER_S:
                log.warn("more requests took too long", count=self._told - SLOW_LINES_PER_S)
            self._told_since, self._told = self.slow_before, 0
        self._told += 1
        if self._told > SLOW_LINES_PER_S:
            return
        fields = {
            "time spent": f"{seconds * 1000:.0f}ms",
            "expected duration": f"{self.slow_after_s * 1000:g}ms",
            "remote": stream.connection.remote,
            "response type": stream.head.counts.path,
            "status": status,
            "request size": stream.open_bytes,
            "response size": response_bytes,
        }
        log.warn("request stats", **fields)
