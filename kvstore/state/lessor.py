"""Leases: which exist and what hangs on them (replicated), and on the leader when they end (not replicated).

Pure: `now` in seconds is passed in. The replicated half changes only through grant(), revoke(), attach() and
detach(), which apply.py calls; apply has no clock, so a lease granted while this member leads starts its time
at the next schedule() or tick(). Invariants:
  1. While demoted no lease has a deadline; promote() gives each what its mark says was left (lease_marks.py),
     and where there is none its whole TTL, because a new leader cannot know what the old one had promised.
  2. Every lease with a deadline has exactly one heap entry that counts, `queued`, at or before what it is due
     for. A renewal moves the deadline and leaves the heap alone; the entry finds out when it comes up.
  3. A lease whose deadline has passed is never renewed: it waits for its revocation (or the next leader).
  4. No renewal is promised while a mark of the lease is in the log or on its way there.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import cast

from kvstore import errors
from kvstore.state.lease_marks import LeaseMarks

EXPIRED = -1
"""keepalive()'s answer for a lease that has run out and is not revoked yet: ask again later."""
MARKED = -2
"""And for one whose mark must be taken back first (unmark())."""
EXPIRE_AGAIN_S = 3.0
"""A lease handed out for revocation and still there after this long is handed out again."""


@dataclass(slots=True)
class Lease:
    id: int
    ttl_ms: int
    keys: set[bytes] = field(default_factory=set)
    session: int = 0  # of an announced instance: the stream that holds it
    grace_ms: int = 0  # that stream has broken, and this is all the lease has had since
    remaining_ms: int = 0  # replicated: its mark; 0: none
    grant_index: int = 0
    marked_ms: int = 0  # by this leader: its mark, in the log or on its way there
    clearing: int = 0  # takings back that are under way
    renewed: bool = False  # somebody renews it, as far as is known
    mark_at: float | None = None  # when its entry among the marks comes up
    deadline: float | None = None  # seconds; None while this member does not lead, or before schedule()
    queued: float | None = None  # when its entry in the heap comes up

    @property
    def span_s(self) -> float:
        """How long it lives when nothing is heard."""
        return (self.grace_ms or self.ttl_ms) / 1000


class Lessor:
    def __init__(self) -> None:
        self._leases: dict[int, Lease] = {}
        self._heap: list[tuple[float, int]] = []
        self._unscheduled: list[int] = []
        self._leading = False
        self._marks = LeaseMarks(self._leases.get)

    # Replicated

    def grant(self, lease_id: int, ttl_ms: int) -> Lease:
        """Raises LeaseExists, and LeaseNotFound for id 0 as etcd does."""
        if not lease_id:
            raise errors.LeaseNotFound
        if lease_id in self._leases:
            raise errors.LeaseExists
        lease = self._leases[lease_id] = Lease(lease_id, ttl_ms)
        if self._leading:
            self._unscheduled.append(lease_id)
        return lease

    def revoke(self, lease_id: int) -> Lease:
        """Removes it and returns what it was; its keys are the caller's to delete. Raises LeaseNotFound."""
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            raise errors.LeaseNotFound
        return lease

    def hold(self, lease_id: int, session: int) -> Lease:
        """A stream announces the instance on this lease: from now on it is that stream's, for its whole TTL."""
        lease = self._leases[lease_id]
        lease.session, lease.grace_ms = session, 0
        self._begin_anew(lease)
        return lease

    def let_go(self, lease_id: int, grace_ms: int) -> Lease:
        """That stream has broken: the lease has its grace left, or the rest of its TTL where that is less."""
        lease = self._leases[lease_id]
        lease.grace_ms = min(grace_ms, lease.ttl_ms)
        self._begin_anew(lease)
        return lease

    def _begin_anew(self, lease: Lease) -> None:
        if self._leading:
            self._unscheduled.append(lease.id)

    def attach(self, lease_id: int, key: bytes) -> None:
        self._leases[lease_id].keys.add(key)

    def detach(self, lease_id: int, key: bytes) -> None:
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.keys.discard(key)

    def exists(self, lease_id: int) -> bool:
        return lease_id in self._leases

    def get(self, lease_id: int) -> Lease | None:
        return self._leases.get(lease_id)

    def keys(self, lease_id: int) -> list[bytes]:
        """In key order; empty where there is no such lease."""
        lease = self._leases.get(lease_id)
        return [] if lease is None else sorted(lease.keys)

    def leases(self) -> list[int]:
        return sorted(self._leases)

    # The leader's clock

    @property
    def leading(self) -> bool:
        return self._leading

    def promote(self, now: float) -> None:
        """This member leads: every lease has from now what was left of it, as far as that is known."""
        self._leading = True
        self._unscheduled = []
        self._heap = []
        self._marks.clear()
        for lease in self._leases.values():
            left_s = min(lease.span_s, lease.remaining_ms / 1000) if lease.remaining_ms else lease.span_s
            lease.deadline = lease.queued = now + left_s
            lease.marked_ms, lease.renewed = lease.remaining_ms, not lease.remaining_ms
            lease.clearing, lease.mark_at = 0, None
            self._marks.follow(lease)
            self._heap.append((lease.queued, lease.id))
        heapq.heapify(self._heap)

    def demote(self) -> None:
        """It no longer does: nothing expires here."""
        self._leading = False
        self._heap = []
        self._unscheduled = []
        self._marks.clear()
        for lease in self._leases.values():
            lease.deadline = lease.queued = lease.mark_at = None

    @property
    def has_unscheduled(self) -> bool:
        return bool(self._unscheduled)

    def schedule(self, now: float) -> None:
        """Starts the time of leases granted, announced or let go since the last call."""
        for lease_id in self._unscheduled:
            lease = self._leases.get(lease_id)
            if lease is None:
                continue
            due = now + lease.span_s
            if lease.grace_ms and lease.deadline is not None:
                due = min(due, lease.deadline)
            lease.deadline = due
            if lease.queued is None or due < lease.queued:
                lease.queued = due
                heapq.heappush(self._heap, (due, lease_id))
            self._marks.follow(lease)
        self._unscheduled = []

    def tick(self, now: float) -> list[int]:
        """Ids due for revocation, the longest overdue first; each again only EXPIRE_AGAIN_S later."""
        if not self._leading:
            return []
        self.schedule(now)
        due: list[int] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            came_up, lease_id = heapq.heappop(heap)
            lease = self._leases.get(lease_id)
            if lease is None or lease.deadline is None or came_up != lease.queued:
                continue
            if lease.deadline <= now:
                due.append(lease_id)
                lease.queued = now + EXPIRE_AGAIN_S
            else:
                lease.queued = lease.deadline
            heapq.heappush(heap, (lease.queued, lease_id))
        return due

    def next_deadline(self) -> float | None:
        """When tick() may next have something, at the earliest. None: nothing is scheduled."""
        return self._heap[0][0] if self._heap else None

    def is_expired(self, lease_id: int, now: float) -> bool:
        lease = self._leases.get(lease_id)
        return lease is not None and lease.deadline is not None and lease.deadline <= now

    def keepalive(self, lease_id: int, now: float) -> int | None:
        """Renews it: the whole TTL in ms; None where it is gone; EXPIRED where it must not be revived; MARKED
        where its mark has to be taken back first. Raises NotLeader where this member keeps no time."""
        if not self._leading:
            raise errors.NotLeader
        self.schedule(now)
        lease = self._leases.get(lease_id)
        if lease is None or lease.deadline is None:
            return None
        if lease.deadline <= now:
            return EXPIRED
        if lease.marked_ms:
            return MARKED
        lease.deadline, lease.renewed = now + lease.span_s, True
        return lease.ttl_ms

    def marks(self, now: float) -> list[tuple[Lease, int]]:
        """(lease, milliseconds left) of those whose mark is to be proposed now."""
        if not self._leading:
            return []
        self.schedule(now)
        return cast(list[tuple[Lease, int]], self._marks.take(now))

    def unmark(self, lease: Lease) -> None:
        """Its mark is being taken back: until unmarked() it gets no other."""
        lease.clearing += 1

    def unmarked(self, lease: Lease, *, done: bool) -> None:
        """done: the log has no mark of it any more. Of a lease that is none of this leader's time any more,
        nothing."""
        if not lease.clearing or self._leases.get(lease.id) is not lease:
            return
        lease.clearing -= 1
        if done:
            lease.marked_ms = 0
        if not lease.clearing:
            self._marks.follow(lease)

    def remaining_ms(self, lease_id: int, now: float) -> int | None:
        """Milliseconds left, 0 when overdue; None where it is gone; the whole TTL where no time is kept."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return None
        if lease.deadline is None:
            return lease.ttl_ms
        return max(0, round((lease.deadline - now) * 1000))
