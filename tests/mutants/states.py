"""Seeded bugs, each one that a real store has had: applying, compaction, watches, leases. Found by schedules of
whole members. Patched in by tests, absent from the package.

The number a docstring begins with is the row of the catalogue in docs/verification.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kvstore import errors
from kvstore.api.kv import KvService
from kvstore.api.lease import LeaseService
from kvstore.api.watch import WatchStream
from kvstore.pb.etcdserverpb_pb2 import LeaseTimeToLiveRequest, PutRequest, RangeRequest
from kvstore.pb.internal_pb2 import LeaseExpire
from kvstore.replication.lease_keeper import LeaseKeeper
from kvstore.rpc import UnaryCall
from kvstore.state import tables
from kvstore.state.apply import Applier
from kvstore.state.compaction import Compaction
from kvstore.state.lessor import Lease, Lessor
from kvstore.state.machine import StateMachine
from kvstore.state.mvcc import Keyspace
from kvstore.state.overlay import Latest, Overlay
from kvstore.state.records import FLAGS_AT
from kvstore.state.watch_hub import History, Watcher, WatchHub
from kvstore.state.watch_index import Group
from tests.mutants.patches import Patches

# Applying and reading


def range_of_local_state() -> Patches:
    """25: a linearizable range is answered from whatever this member has applied."""

    def answer(self: KvService, call: UnaryCall, data: bytes) -> None:
        self._answer_range(call, RangeRequest.FromString(data))

    return [(KvService, "range", answer)]


def batch_applied_again() -> Patches:
    """50: a batch that was sent again to a new leader is applied again."""
    original = StateMachine.apply

    def apply(self: StateMachine, index: int, term: int, data: bytes, own: bool | None = None) -> Any:
        self._batches.clear()
        return original(self, index, term, data, own)

    return [(StateMachine, "apply", apply)]


def batches_forgotten_at_restart() -> Patches:
    """36: a restart forgets which batches had been applied."""
    return [(tables, "load_batches", lambda reader: {})]


def revision_moved_by_nothing() -> Patches:
    """37: a command that changes nothing takes a revision."""

    def end(self: Keyspace) -> int:
        self.revision += 1
        self._sub = 0
        return self.revision

    return [(Keyspace, "end", end)]


def oldest_generation_read_first() -> Patches:
    """25: of a key written twice since the last commit, the older version is read."""

    def latest(self: Overlay, key: bytes) -> Latest | None:
        for generation in self.generations:
            if key in generation.latest:
                return generation.latest[key]
        return None

    return [(Overlay, "latest", latest)]


def keys_in_no_order() -> Patches:
    """56: a revoked lease's keys are deleted in an order that is each member's own."""
    return [(Lessor, "keys", lambda self, lease_id: _in_memory_order(self, lease_id))]


def _in_memory_order(lessor: Lessor, lease_id: int) -> list[bytes]:
    lease = lessor.get(lease_id)
    return [] if lease is None else sorted(lease.keys, key=id)


# Compaction


def tombstone_at_the_target_removed() -> Patches:
    """44: compaction to the revision of a delete takes the delete away from watchers that start there."""
    original = Compaction._remove

    def remove(self: Compaction, own: bytes, rest: Any, into: Any) -> None:
        original(self, own, rest, into)
        if rest[FLAGS_AT - 12] and int.from_bytes(own[:8], "big") == self.target:
            into.drops.append(own)

    return [(Compaction, "_remove", remove)]


def compaction_goes_too_far() -> Patches:
    """37: the removal does not stop at the compaction revision."""
    original = Compaction.step

    def step(self: Compaction, store: Any, committed_revision: int, into: Any) -> None:
        target = self.target
        self.target = committed_revision
        original(self, store, committed_revision, into)
        self.target = target

    return [(Compaction, "step", step)]


def compacted_history_read() -> Patches:
    """44: a watch that needs what compaction has removed goes on with what is left of it."""

    def refuse(self: WatchHub, watcher: Watcher, compact_revision: int) -> None:
        watcher.next_revision = compact_revision

    return [(WatchHub, "_refuse", refuse)]


# Watches


def watch_goes_back_after_a_snapshot() -> Patches:
    """43: once a snapshot is installed, a watch hears again what it has heard."""
    original = WatchHub.replaced

    def replaced(self: WatchHub, history: History, revision_before: int) -> None:
        original(self, history, revision_before)
        for watcher in self._behind:
            watcher.next_revision = max(1, watcher.next_revision - 3)

    return [(WatchHub, "replaced", replaced)]


def watch_jumps_over_a_snapshot() -> Patches:
    """46: a watch goes on after what a snapshot brought, and never hears of that."""

    def replaced(self: WatchHub, history: History, revision_before: int) -> None:
        self._history = history
        for watcher in list(self._live.watchers()):
            watcher.next_revision = max(watcher.next_revision, history.revision + 1)
        for group in self._touched:
            group.pending.clear()
        self._touched = {}

    return [(WatchHub, "replaced", replaced)]


def future_watch_hears_the_present() -> Patches:
    """43: a watch that starts in the future hears of what comes before."""

    def deliver(self: WatchHub, watcher: Watcher, events: list[tuple[int, bytes]], last: int) -> None:
        watcher.next_revision = last + 1
        watcher.sink.events(watcher, last, b"".join(each for _, each in events), len(events))

    def hand_over(self: WatchHub, group: Group) -> None:
        pending, group.pending = group.pending, []
        for watcher in list(group.watchers):
            if pending and watcher.alive and watcher.sink.ready(watcher):
                self._deliver(watcher, pending, pending[-1][0])

    return [(WatchHub, "_deliver", deliver), (WatchHub, "_hand_over", hand_over)]


def starved_watch_loses_events() -> Patches:
    """44: what a slow watcher has no room for is gone."""

    def hand_over(self: WatchHub, group: Group) -> None:
        pending, group.pending = group.pending, []
        for watcher in list(group.watchers):
            if not pending or not watcher.alive or watcher.next_revision > pending[-1][0]:
                continue
            if watcher.sink.ready(watcher):
                self._deliver(watcher, pending, pending[-1][0])
            else:
                watcher.next_revision = pending[-1][0] + 1

    return [(WatchHub, "_hand_over", hand_over)]


def progress_ahead_of_events() -> Patches:
    """45: progress is reported while events up to there are still on their way."""
    return [(WatchHub, "synced", lambda self, watcher: watcher.alive)]


def last_revision_handed_over_twice() -> Patches:
    """45: the last revision of a stretch of history is read again with the next."""
    original = WatchHub._slice

    def one_slice(self: WatchHub) -> None:
        lead = next(iter(self._behind))
        before = lead.next_revision
        original(self)
        if lead.alive and lead.behind and lead.next_revision > before + 1:
            lead.next_revision -= 1

    return [(WatchHub, "_slice", one_slice)]


def revision_torn_apart() -> Patches:
    """45: a stretch of history ends in the middle of a revision, and the rest of that is lost."""
    original = Keyspace.history

    def history(self: Keyspace, revision: int) -> Iterator[bytes]:
        for count, record in enumerate(original(self, revision)):
            if count == 5 and int.from_bytes(record[8:12], "big"):
                continue
            yield record

    return [(Keyspace, "history", history)]


def event_after_cancel() -> Patches:
    """57: a watch that was cancelled goes on telling."""
    return [(WatchStream, "_drop", lambda self, watch: None)]


# Leases


def stale_expiry_obeyed() -> Patches:
    """48: an expiry that a former leader proposed counts in its successor's term."""
    original = Applier._lease_expire

    def expire(self: Applier, payload: bytes) -> bytes:
        request = LeaseExpire.FromString(payload)
        request.term = self._term
        return original(self, request.SerializeToString())

    return [(Applier, "_lease_expire", expire)]


def expired_lease_revived() -> Patches:
    """48: a renewal revives a lease whose revocation is on its way."""

    def keepalive(self: Lessor, lease_id: int, now: float) -> int | None:
        if not self._leading:
            raise errors.NotLeader
        self.schedule(now)
        lease = self._leases.get(lease_id)
        if lease is None or lease.deadline is None:
            return None
        lease.deadline = now + lease.ttl_ms / 1000
        return lease.ttl_ms

    return [(Lessor, "keepalive", keepalive)]


def renewal_by_a_former_leader() -> Patches:
    """48: a leader renews without asking whether it still leads, from the moment it is elected. The asking left out
    alone is not found in 2,000 schedules since its clock begins later than that."""
    original = LeaseKeeper._answer

    def answer(self: LeaseKeeper, kind: int, lease_id: int, deadline: float, done: Any) -> None:
        asked = self._driver.read
        self._driver.read = lambda done: done(None)  # type: ignore[method-assign]
        try:
            original(self, kind, lease_id, deadline, done)
        finally:
            self._driver.read = asked  # type: ignore[method-assign]

    return [(LeaseKeeper, "_answer", answer), (LeaseKeeper, "_begin_term", _begin_at_once)]


def clock_begins_before_the_log_is_applied() -> Patches:
    """49: a new leader gives leases what was left of them before it knows of the last renewals (found in this one)."""
    return [(LeaseKeeper, "_begin_term", _begin_at_once)]


def _begin_at_once(self: LeaseKeeper) -> None:
    self._machine.lessor.promote(self._now())
    self._term = self._driver.term


def new_leader_shortens_leases() -> Patches:
    """49: a new leader gives leases less than what the old one may have promised."""
    return [(Lessor, "promote", _promoting(lambda lease: lease.ttl_ms / 2000))]


def new_leader_forgets_deadlines() -> Patches:
    """49: a lease lives for ever once the leader has changed."""
    return [(Lessor, "promote", _promoting(lambda lease: 1e9))]


def renewal_with_its_mark_in_the_log() -> Patches:
    """49: a lease whose mark the next leader will go by is renewed without taking the mark back."""
    original = Lessor.keepalive

    def keepalive(self: Lessor, lease_id: int, now: float) -> int | None:
        lease = self.get(lease_id)
        if lease is not None:
            lease.marked_ms = 0
        return original(self, lease_id, now)

    return [(Lessor, "keepalive", keepalive)]


def _promoting(seconds: Callable[[Lease], float]) -> Callable[[Lessor, float], None]:
    original = Lessor.promote

    def promote(self: Lessor, now: float) -> None:
        original(self, now)
        for lease in self._leases.values():
            lease.deadline = now + seconds(lease)
        self._heap = sorted((lease.deadline or 0.0, lease.id) for lease in self._leases.values())

    return promote


def missing_lease_dropped() -> Patches:
    """50: a put with a lease that is gone is done without one."""
    original = Applier._put

    def put(self: Applier, payload: bytes) -> bytes:
        request = PutRequest.FromString(payload)
        if request.lease and not self.lease_exists(request.lease):
            request.lease = 0
        return original(self, request.SerializeToString())

    return [(Applier, "_put", put)]


def key_stays_on_its_old_lease() -> Patches:
    """50: a put without a lease leaves the key on the one it had."""
    original = Applier._move

    def move(self: Applier, key: bytes, held: int, lease: int) -> None:
        current = self.keyspace.current(key)
        if lease or current is None or not current.version:
            original(self, key, held, lease)

    return [(Applier, "_move", move)]


def leases_forgotten_at_restart() -> Patches:
    """51: leases are not read again after a restart or a snapshot."""
    return [(tables, "load_leases", lambda reader: Lessor())]


def time_to_live_of_local_state() -> Patches:
    """25: the time to live of a lease is told from state that lags."""
    original = LeaseService.time_to_live

    def time_to_live(self: LeaseService, call: UnaryCall, data: bytes) -> None:
        driver = self._context.driver
        asked = driver.read
        if LeaseTimeToLiveRequest.FromString(data).ID:
            driver.read = lambda done: done(None)  # type: ignore[method-assign]
        try:
            original(self, call, data)
        finally:
            driver.read = asked  # type: ignore[method-assign]

    return [(LeaseService, "time_to_live", time_to_live)]
