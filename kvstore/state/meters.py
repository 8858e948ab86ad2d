"""What the state machine has done, in numbers. They outlive a snapshot that replaces the state.

How long applying takes is measured once an entry and not once a command: an entry's commands share its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter, time

from kvstore import log
from kvstore.commands import Kind
from kvstore.meters import DISK_SECONDS, REQUEST_SECONDS, Histogram, doubling

LEASE_TTL_SECONDS = doubling(1, 24)
LONG_SECONDS = doubling(0.01, 17)
HASH_SECONDS = doubling(0.01, 15)
COMPACTION_PAUSE_MS = doubling(1, 13)
COMPACTION_TOTAL_MS = doubling(100, 14)
SINGLE_READS_PER_SAMPLE = 16


class StateMeter:
    clock = staticmethod(perf_counter)

    def __init__(self) -> None:
        self.puts = 0
        self.put_bytes = 0
        self.deletes = 0
        self.ranges = 0
        self.txns = 0
        self.leases_granted = 0
        self.leases_revoked = 0
        self.lease_ttl_s = Histogram(LEASE_TTL_SECONDS)
        self.slow_applies = 0
        self.slow_apply_s = float("inf")  # --experimental-warning-apply-duration
        self.failed: list[int] = []  # kinds of this entry's commands that were refused
        self.authorized: list[int] = []  # kinds of those that came in a user's name
        self.apply_seconds: dict[tuple[int, bool], Histogram] = {}
        self.range_seconds = Histogram(REQUEST_SECONDS), Histogram(REQUEST_SECONDS)  # refused, and answered
        self.commit_seconds = Histogram(DISK_SECONDS)
        self.snapshot_seconds = Histogram(LONG_SECONDS)
        self.hash_seconds = Histogram(HASH_SECONDS)  # of the key space at a revision
        self.database_hash_seconds = Histogram(HASH_SECONDS)
        self.install_seconds = Histogram(doubling(0.1, 10))
        self.compacted_keys = 0
        self.compaction_last_s = 0.0  # wall clock, when the last one was done
        self.compaction_slice_ms = Histogram(COMPACTION_PAUSE_MS)
        self.compaction_total_ms = Histogram(COMPACTION_TOTAL_MS)
        self._compaction_began = 0.0

    def applied(self, kinds: Sequence[int], seconds: float) -> None:
        """One entry of these commands took so long."""
        if self.authorized:
            kinds = [kind for kind in kinds if kind != Kind.AUTHORIZED] + self.authorized
            self.authorized = []
        if not kinds:
            return
        each, failed = seconds / len(kinds), self.failed
        if kinds.count(kinds[0]) == len(kinds) and not failed:
            self._observe(kinds[0], True, each, len(kinds))
        else:
            for kind in sorted(set(kinds)):
                refused = failed.count(kind)
                self._observe(kind, True, each, kinds.count(kind) - refused)
                self._observe(kind, False, each, refused)
            failed.clear()
        if seconds > self.slow_apply_s:
            self.slow_applies += 1
            told = ", ".join(f"{kinds.count(kind)} x {Kind(kind).name}" for kind in sorted(set(kinds)))
            self._warn(seconds, "", told)

    def refused(self, kind: int) -> None:
        """A command of the entry that is being applied."""
        self.failed.append(self.authorized[-1] if kind == Kind.AUTHORIZED and self.authorized else kind)

    def _observe(self, kind: int, ok: bool, seconds: float, count: int) -> None:
        if count:
            histogram = self.apply_seconds.get((kind, ok))
            if histogram is None:
                histogram = self.apply_seconds[kind, ok] = Histogram(REQUEST_SECONDS)
            histogram.observe(seconds, count)

    def _warn(self, seconds: float, prefix: str, request: str) -> None:
        log.warn(
            "apply request took too long",
            took=f"{seconds * 1000:.3f}ms",
            expected_duration=f"{self.slow_apply_s * 1000:g}ms",
            prefix=prefix,
            request=request,
        )

    def times_read(self, single: bool) -> bool:
        """Counts a read; whether to take its time: of every scan, and of one in sixteen reads of a single key."""
        self.ranges += 1
        return not (single and self.ranges % SINGLE_READS_PER_SAMPLE)

    def read(self, seconds: float, ok: bool, key: bytes, range_end: bytes) -> None:
        """A read that times_read() chose."""
        self.range_seconds[ok].observe(seconds, 1 if range_end else SINGLE_READS_PER_SAMPLE)
        if seconds > self.slow_apply_s:
            self._warn(seconds, "read-only range ", f"key:{key!r} range_end:{range_end!r}")

    def compacting(self, seconds: float, keys: int, done: bool) -> None:
        """One slice of removals took so long; done: it was the last."""
        self.compacted_keys += keys
        self.compaction_slice_ms.observe(seconds * 1000)
        now = self.clock()
        if not self._compaction_began:
            self._compaction_began = now - seconds
        if done:
            self.compaction_total_ms.observe((now - self._compaction_began) * 1000)
            self.compaction_last_s = time()
            self._compaction_began = 0.0
