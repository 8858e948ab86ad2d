"""Leases in time: the leader expires them and renews them; other members ask the leader.

State holds what is replicated (which leases exist, their TTL, their keys); the lessor beside it holds the
leader's clock. This drives both: ticks the lessor while this member leads, proposes what is due in entries that
carry the term, one after the other so that others' writes come in between, and answers renewals after the leader has
shown that it still leads. What is left of leases goes into the log now and then, for the next leader
(kvstore/state/lease_marks.py).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from kvstore import errors
from kvstore.commands import EXPIRED_GRANTS_LEVEL, NEEDS_LEVEL, Kind
from kvstore.pb.internal_pb2 import LeaseCheckpoint, LeaseExpire
from kvstore.replication.driver import Driver
from kvstore.replication.outbox import Done, Outcome
from kvstore.state.lessor import EXPIRE_AGAIN_S, EXPIRED, MARKED, Lease
from kvstore.state.machine import StateMachine
from raft import Role

RENEW = 2  # request between members: lease id -> remaining milliseconds
REMAINING = 3
_ID = struct.Struct(">q")
_ANSWER = struct.Struct(">bq")  # 1: milliseconds; 0: no such lease; -1: not the leader
EXPIRED_RETRY_S = 0.05
INSTANCES_AT_ONCE = 1_000
"""Instances that are gone end before anything else, as many in an entry: requests are sent to them."""
EXPIRE_AT_ONCE, EXPIRE_SHARE, EXPIRE_PAUSE_S = 25, 400, 0.003
"""Of other leases that are due an entry has so many, or that share of them, and others have that time before the
next. With 10,000 that end together a lone client's slowest put took 40 to 67 ms when entries had a thousand, 18 to 34
with a hundred, 9 to 16 with this; in that order they take 0.3, 0.5 and 1.8 s, etcd's ten."""
SOON_S = 0.1
"""A deadline nearer than this has a timer of its own and does not wait for the next tick."""

Renewed = Callable[[int | None, errors.StoreError | None], None]


class Requests(Protocol):
    """Asking another member (kvstore/replication/peers.py)."""

    def request(
        self,
        to_id: int,
        kind: int,
        payload: bytes,
        timeout_s: float,
        done: Callable[[bytes | None, Exception | None], None],
    ) -> None: ...


class LeaseKeeper:
    def __init__(
        self,
        driver: Driver,
        machine: StateMachine,
        requests: Requests,
        *,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        timeout_s: float,
    ) -> None:
        self._driver = driver
        self._machine = machine
        self._requests = requests
        self._now = now
        self._call_later = call_later
        self._timeout_s = timeout_s
        driver.on_role.append(self._role_changed)
        driver.on_turn.append(self._begin_time)
        self._timer_at: float | None = None
        self.renewed = 0
        self.expired = 0
        self._leading = False
        self._term = 0  # in which it began to lead
        # The lease's id → its session when it ran out: of instances, and of all others (0).
        self._gone: OrderedDict[int, int] = OrderedDict()
        self._due: OrderedDict[int, int] = OrderedDict()
        self._expiring_until = 0.0  # an entry with some of them is under way, at most until then

    def _role_changed(self, role: Role, leader_id: int) -> None:
        if self._leading and role != Role.LEADER:
            self._machine.lessor.demote()
        self._leading = role == Role.LEADER
        self._begin_time()

    @property
    def _keeps_time(self) -> bool:
        """Whether the lessor's clock is the cluster's: this member leads, and in the term it was promoted in."""
        return self._leading and self._driver.is_leader and self._driver.term == self._term

    def _begin_term(self) -> None:
        """A new leader gives every lease what the log says was left of it, or its whole TTL: it cannot know what
        the old one had promised. All the log: the end of it may take back the mark of a lease that was renewed."""
        term = self._driver.term
        if self._machine.applied_term == term:
            self._machine.lessor.promote(self._now())
            self._term = term
            self._gone.clear()
            self._due.clear()
            self._expiring_until = 0.0

    def _begin_time(self) -> None:
        """After every turn: the time of what it has granted or let go runs from here, not from the next tick."""
        if self._leading and self._term != self._driver.term and self._driver.is_leader:
            self._begin_term()
        lessor = self._machine.lessor
        if lessor.has_unscheduled and self._keeps_time:
            lessor.schedule(self._now())
            self._wake_in_time()

    def _wake_in_time(self) -> None:
        due, now = self._machine.lessor.next_deadline(), self._now()
        if due is None or due > now + SOON_S or (self._timer_at is not None and self._timer_at <= due):
            return
        self._timer_at = due

        def ring() -> None:
            self._timer_at = None
            self.tick()

        self._call_later(max(0.0, due - now), ring)

    def tick(self) -> None:
        """Proposes the expiry of every lease that is due. State drops it if the term is over: the
        term is the one whose clock this is, not one that a message has brought since and whose turn is to come."""
        if not self._keeps_time:
            return
        lessor = self._machine.lessor
        for lease_id in lessor.tick(self._now()):
            lease = lessor.get(lease_id)
            session = lease.session if lease is not None else 0
            (self._gone if session else self._due)[lease_id] = session
        self._expire_next()
        self._mark()
        self._wake_in_time()

    def _expire_next(self) -> None:
        """The next entry, once the one before is applied, or has not been for so long that its leases are due anew.
        What was granted again meanwhile is not due."""
        now = self._now()
        if now < self._expiring_until:
            return
        expire = LeaseExpire(leader=self._driver.member_id, term=self._term)
        if not self._take(self._gone, INSTANCES_AT_ONCE, expire):
            self._take(self._due, max(EXPIRE_AT_ONCE, len(self._due) // EXPIRE_SHARE), expire)
        count = len(expire.IDs)
        if not count:
            return
        self._expiring_until = now + EXPIRE_AGAIN_S
        if not any(expire.sessions):
            del expire.sessions[:]
        if self._machine.below_level(EXPIRED_GRANTS_LEVEL):
            del expire.grant_indexes[:]
        self._driver.propose(Kind.LEASE_EXPIRE, expire.SerializeToString(), self._expired(count))

    def _take(self, due: OrderedDict[int, int], count: int, expire: LeaseExpire) -> bool:
        """Those that have run out still; they are not due any more. False where there are none."""
        now, lessor = self._now(), self._machine.lessor
        while due and len(expire.IDs) < count:
            lease_id, session = due.popitem(last=False)
            lease = lessor.get(lease_id)
            if lease is not None and lessor.is_expired(lease_id, now):
                expire.IDs.append(lease_id)
                expire.sessions.append(session)
                expire.grant_indexes.append(lease.grant_index)
        return bool(expire.IDs)

    def _mark(self) -> None:
        """Not while a member would stop at it: a lease that is not marked begins anew under the next leader."""
        if self._machine.below_level(NEEDS_LEVEL[Kind.LEASE_CHECKPOINT]):
            return
        due = self._machine.lessor.marks(self._now())
        if due:
            self._propose_marks(due, lambda outcome: None)

    def _propose_marks(self, marks: Sequence[tuple[Lease, int]], done: Done) -> None:
        checkpoint = LeaseCheckpoint(
            term=self._term,
            IDs=[lease.id for lease, _ in marks],
            remaining_ms=[left_ms for _, left_ms in marks],
            grant_indexes=[lease.grant_index for lease, _ in marks],
        )
        self._driver.propose(Kind.LEASE_CHECKPOINT, checkpoint.SerializeToString(), done)

    def _expired(self, count: int) -> Done:
        """An expiry that failed is proposed again by a later tick."""

        def done(outcome: Outcome) -> None:
            self._expiring_until = 0.0
            if isinstance(outcome, tuple):
                self.expired += count
            if self._gone:
                self._go_on_expiring()
            elif self._due:
                self._call_later(EXPIRE_PAUSE_S, self._go_on_expiring)

        return done

    def _go_on_expiring(self) -> None:
        if self._keeps_time:
            self._expire_next()

    def renew(self, lease_id: int, done: Renewed) -> None:
        """done(milliseconds of the whole TTL, None); done(None, None) where the lease is gone."""
        self._ask(RENEW, lease_id, done)

    def remaining(self, lease_id: int, done: Renewed) -> None:
        """done(milliseconds left, None); done(None, None) where there is no such lease."""
        self._ask(REMAINING, lease_id, done)

    def serve(self, kind: int, payload: bytes, reply: Callable[[bytes], None]) -> None:
        """Another member's question to the leader."""
        if len(payload) != _ID.size:
            reply(_ANSWER.pack(-1, 0))
            return

        def done(milliseconds: int | None, problem: errors.StoreError | None) -> None:
            if problem is not None:
                reply(_ANSWER.pack(-1, 0))
            else:
                reply(_ANSWER.pack(0 if milliseconds is None else 1, milliseconds or 0))

        if self._driver.is_leader:
            self._answer(kind, _ID.unpack(payload)[0], self._now() + self._timeout_s, done)
        else:
            reply(_ANSWER.pack(-1, 0))

    def _ask(self, kind: int, lease_id: int, done: Renewed, deadline: float | None = None) -> None:
        """Here where this member leads, else over there; again until the deadline while leaders change."""
        now = self._now()
        if deadline is None:
            deadline = now + self._timeout_s
        elif now >= deadline:
            known = self._driver.leader_id
            done(None, errors.RequestTimeout() if known else errors.NoLeader())
            return
        settled = deadline

        def again() -> None:
            self._ask(kind, lease_id, done, settled)

        leader = self._driver.leader_id
        if self._driver.is_leader:
            self._answer(kind, lease_id, deadline, done)
        elif not leader:
            self._call_later(EXPIRED_RETRY_S, again)
        else:

            def answered(answer: bytes | None, problem: Exception | None) -> None:
                if problem is not None or answer is None or len(answer) != _ANSWER.size:
                    self._call_later(EXPIRED_RETRY_S, again)
                    return
                code, milliseconds = _ANSWER.unpack(answer)
                if code < 0:
                    self._call_later(EXPIRED_RETRY_S, again)
                else:
                    # The lease may be gone here a moment later than there: wait until state agrees.
                    done(milliseconds if code else None, None)

            self._requests.request(leader, kind, _ID.pack(lease_id), self._timeout_s / 2, answered)

    def _answer(self, kind: int, lease_id: int, deadline: float, done: Renewed) -> None:
        """On the leader: after a read index, from the lessor. An expired lease is never revived: a renewal
        waits until its revocation is applied."""

        def confirmed(problem: errors.StoreError | None) -> None:
            if problem is not None:
                done(None, problem)
                return
            if not self._keeps_time:
                self._call_later(EXPIRED_RETRY_S, lambda: self._ask(kind, lease_id, done, deadline))
                return
            lessor, now = self._machine.lessor, self._now()
            if kind == REMAINING:
                done(lessor.remaining_ms(lease_id, now), None)
                return
            left = lessor.keepalive(lease_id, now)
            if left == MARKED:
                self._unmark(lease_id, deadline, done)
            elif left == EXPIRED:
                self._call_later(EXPIRED_RETRY_S, lambda: self._ask(kind, lease_id, done, deadline))
            else:
                self.renewed += left is not None
                done(left, None)

        self._driver.read(confirmed)

    def _unmark(self, lease_id: int, deadline: float, done: Renewed) -> None:
        """Takes the lease's mark back, and renews it when that is applied: what was committed in this term after
        the question shows, as a read index does, that this member still led. Also where a member that is too old for
        marks has come since: that one stops, as at anything it does not know, and no renewal is promised in vain."""
        lessor, term = self._machine.lessor, self._term
        lease = lessor.get(lease_id)
        assert lease is not None, "a lease that is marked is there"
        lessor.unmark(lease)

        def taken_back(outcome: Outcome) -> None:
            left: int | None = EXPIRED
            if (
                self._keeps_time and self._term == term
            ):  # else it is another leader's time, or another one of ours
                applied = isinstance(outcome, tuple)
                lessor.unmarked(lease, done=applied)
                left = lessor.keepalive(lease_id, self._now()) if applied else EXPIRED
            if left in (EXPIRED, MARKED):
                self._call_later(EXPIRED_RETRY_S, lambda: self._ask(RENEW, lease_id, done, deadline))
            else:
                self.renewed += left is not None
                done(left, None)

        self._propose_marks([(lease, 0)], taken_back)
