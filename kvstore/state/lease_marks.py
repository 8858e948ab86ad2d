"""What is left of leases, told to the log now and then, so that a new leader need not begin them anew. Pure.

A mark is "so much was left when this was proposed"; whoever leads next gives the lease that, and not its whole TTL. A
renewal gives the whole TTL again, and is worth nothing if the next leader only knows the mark: so the renewal of a
lease that is marked, or about to be, is answered only when the mark is taken back in the log. To keep renewals free
of that a lease that is being renewed is not marked before half its time is over; clients renew at a third.

Of a lease that nobody renews there are STEP_SHARE marks of its TTL each, STEP_MIN_S apart at least: a change of
leader gives it no more than that on top. Announced instances are not marked: their TTLs are short, and their streams
take them over.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol

STEP_SHARE = 0.1
STEP_MIN_S = 2.0
RENEWED_SHARE = 0.5
MARKS_MAX = 1_000
"""In one entry; what is due beyond it is due a tick later."""


class Marked(Protocol):
    """A lease, as far as it is marked (lessor.py)."""

    id: int
    ttl_ms: int
    session: int
    deadline: float | None
    renewed: bool
    marked_ms: int
    clearing: int
    mark_at: float | None


class LeaseMarks:
    def __init__(self, get: Callable[[int], Marked | None]) -> None:
        self._get = get
        self._heap: list[tuple[float, int]] = []  # when a lease is to be looked at; one entry of each counts

    def clear(self) -> None:
        self._heap = []

    def follow(self, lease: Marked) -> None:
        """From now on, or from a new deadline on. An entry that is early finds out when it comes up."""
        due = _due(lease)
        if due is not None and (lease.mark_at is None or due < lease.mark_at):
            lease.mark_at = due
            heapq.heappush(self._heap, (due, lease.id))

    def take(self, now: float) -> list[tuple[Marked, int]]:
        """(lease, milliseconds left) of each that is to be marked now, and counts as marked from here on."""
        taken: list[tuple[Marked, int]] = []
        heap = self._heap
        while heap and heap[0][0] <= now and len(taken) < MARKS_MAX:
            came_up, lease_id = heapq.heappop(heap)
            lease = self._get(lease_id)
            if lease is None or lease.mark_at != came_up:
                continue
            lease.mark_at = None
            due = _due(lease)
            if due is None or lease.deadline is None or lease.deadline <= now:
                continue
            if due <= now and not lease.clearing:
                lease.marked_ms = max(1, round((lease.deadline - now) * 1000))
                taken.append((lease, lease.marked_ms))
            if not lease.clearing:
                self.follow(lease)
        return taken


def _due(lease: Marked) -> float | None:
    """When the next mark is; None: there is none any more."""
    if lease.deadline is None or lease.session:
        return None
    if lease.renewed and not lease.marked_ms:
        left_s = lease.ttl_ms / 1000 * RENEWED_SHARE
    else:
        step_s = max(lease.ttl_ms / 1000 * STEP_SHARE, STEP_MIN_S)
        left_s = (lease.marked_ms or lease.ttl_ms) / 1000 - step_s
    return lease.deadline - left_s if left_s > 0 else None
