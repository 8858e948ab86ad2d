"""Removing superseded versions, a slice at a time, behind the logical compaction point.

Applying a compaction only moves keyspace.compact_revision, which is what readers see. The removal walks the
committed history up to the target and, for each record there, drops the version it replaced (superseded at or
below the target), and drops a tombstone below the target together with its key. A tombstone exactly at the
target stays, so that a watch from there still sees the delete (etcd 18089, 19179). The revision counter has
nothing to do with any of this (etcd 17780).

Progress is stored in the same transaction as the removals it stands for. Every removal may be repeated
without harm, so a walk that starts over begins at the whole revision it had reached. It has time: Pace spreads
it thin, so that writes beside it feel less of it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from kvstore.state.overlay import Generation
from kvstore.state.records import (
    ANCHOR_AT,
    FLAGS_AT,
    NO_REVISION,
    PREVIOUS_AT,
    REVISION,
    Buffer,
    bound,
    key_of,
)

SLICE_RECORDS = 200  # a quarter of a millisecond on the loop, and half of one in the storage process
SLICE_EVERY_S = 0.005
SLICES_AT_ONCE = 4  # by a loop that is late
DONE_WITHIN_S = 10.0
DROPS_PER_GENERATION = 20_000
"""More would make one transaction of the writer long, and a write waits for none."""


class CommittedHistory(Protocol):
    def history(self, position: bytes) -> Iterator[tuple[bytes, Buffer]]: ...


class Compaction:
    def __init__(self, *, target: int, progress: int) -> None:
        """target: the compaction revision; progress: the revision up to which the removal is stored."""
        self.target = target
        self._position = REVISION.pack(progress, 0)  # where the walk goes on, inclusive
        self.progress = progress
        self.removed = 0

    @property
    def done(self) -> bool:
        return self.progress >= self.target

    def aim(self, target: int) -> None:
        """A later compaction. Goes back to the start of the revision it is at: a tombstone exactly at the
        target before this one is below the new one."""
        assert target > self.target, f"compaction to {target} after one to {self.target}"
        self.target = target
        self._position = REVISION.pack(self.progress, 0)

    def ready(self, committed_revision: int, into: Generation) -> bool:
        """Whether a step would do anything now: what it walks is in LMDB, and the generation has room."""
        reachable = min(self.target, committed_revision)
        return not self.done and self._position <= bound(reachable) and len(into.drops) < DROPS_PER_GENERATION

    def step(
        self, store: CommittedHistory, committed_revision: int, into: Generation, records: int | None = None
    ) -> None:
        """Puts the removals of one slice into a generation: of so many records, SLICE_RECORDS where not told."""
        if not self.ready(committed_revision, into):
            return
        most = SLICE_RECORDS if records is None else records
        reachable = min(self.target, committed_revision)
        highest = bound(reachable)
        for walked, (own, rest) in enumerate(store.history(self._position)):
            if own > highest:
                break
            if walked == most:
                self._position = own
                self.progress = max(self.progress, int.from_bytes(own[:8], "big") - 1)
                return
            self._remove(own, rest, into)
        self._position = REVISION.pack(reachable + 1, 0)
        self.progress = reachable

    def _remove(self, own: bytes, rest: Buffer, into: Generation) -> None:
        """rest: the record without its own revision, as history stores it."""
        previous = bytes(rest[PREVIOUS_AT - 12 : ANCHOR_AT - 12])
        if previous != NO_REVISION:
            self.removed += 1
            into.drops.append(previous)
        if rest[FLAGS_AT - 12] and int.from_bytes(own[:8], "big") < self.target:
            into.drops.append(own)
            into.forgets.append((key_of(b"".join((own, rest))), own))


class Pace:
    """How much of a removal is due. As fast as it goes, every member's loop has a slice in each of its turns and its
    storage process one large transaction after the other, all members at once. So slices keep their distance: 40,000
    records a second, or as many as end it within DONE_WITHIN_S where there are more. A loop that is late has a larger
    slice the next time, so that load does not hold the removal back for ever."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def due(self, now: float, left: int) -> int:
        """How many records a slice may look at now, 0 for none yet. now: monotonic seconds; left: revisions to go."""
        elapsed = now - self._last
        if elapsed < 0.9 * SLICE_EVERY_S:  # timers are exact to a millisecond
            return 0
        self._last = now
        haste = max(1.0, left * SLICE_EVERY_S / (SLICE_RECORDS * DONE_WITHIN_S))
        return int(SLICE_RECORDS * min(haste * elapsed / SLICE_EVERY_S, SLICES_AT_ONCE))
