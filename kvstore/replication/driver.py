"""The node loop: carries out what raft/ decides. One turn of the event loop is one batch of everything.

    requests, peers' messages, the disk's completions ─► _turn():
        1. the turn's writes become one entry, proposed here or sent to the leader; its reads one round
        2. take a Ready; hand its entries to the write-ahead log's thread
        3. send what may go at once (raft/DESIGN.md: the leader's appends run beside its own write)
        4. apply what is committed, then answer the writes and the reads that waited for it
    and when the log says a Ready is durable, the messages that had to wait for that go out.

The order "persist, then send what depends on it" is in Ready's two message lists; this file only obeys it.
Runs on one thread, the loop's. Knows no asyncio: `call_soon` and `now` are handed in, so the simulator can.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from kvstore import errors
from kvstore.commands import MalformedBatch, decode_header
from kvstore.pb.internal_pb2 import ConfigContext, MemberRecord
from kvstore.replication.disturbances import Disturbances
from kvstore.replication.outbox import Done, Outbox, Outcome, Pending
from kvstore.replication.reads import ReadDone, ReadRounds
from raft import (
    Change,
    CommitNotice,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    InstallSnapshot,
    Message,
    ProposalDropped,
    RawNode,
    Role,
    SnapshotMeta,
    membership,
)
from raft.quorum import members_of

FORWARD = 1  # one-way between members: a batch for the leader to propose
APPLY_BYTES_PER_TURN = 2 << 20  # so that a long catch-up cannot hold up heartbeats
BACKLOG_BYTES_MAX = 512 << 20  # applied here and not yet in LMDB: above it, applying waits


class Log(Protocol):
    """The write-ahead log's writer: submit() returns at once; the driver's persisted() is called back with
    the highest number made durable, in order."""

    def submit(
        self,
        number: int,
        hard_state: HardState | None,
        snapshot: SnapshotMeta | None,
        entries: Sequence[Entry],
        sync: bool,
    ) -> None: ...

    def note(self, number: int, hard_state: HardState) -> None: ...

    def release(self, index: int) -> None:
        """Entries up to index are no longer needed after a restart."""


class Transport(Protocol):
    def send(self, messages: list[Message]) -> None: ...

    def notify(self, to_id: int, kind: int, payload: bytes) -> bool:
        """False where it certainly did not go out."""


class Machine(Protocol):
    """The replicated state machine, as far as the driver needs it (kvstore/state/machine.py)."""

    @property
    def applied_index(self) -> int: ...

    @property
    def durable_index(self) -> int: ...

    @property
    def backlog_bytes(self) -> int: ...

    def apply(self, index: int, term: int, data: bytes, own: bool | None = None) -> list[Outcome] | None: ...

    def apply_config(
        self, index: int, term: int, conf: bytes, *, members: Collection[int], added: Sequence[MemberRecord]
    ) -> None: ...

    def last_batch(self, origin: int) -> tuple[int, int]:
        """(incarnation, sequence) of the last batch applied from a member."""

    def turn(self) -> bool: ...


@dataclass(slots=True)
class _ConfigWaiter:
    """Who asked for the change of membership at index, until that or, where it is joint, what leaves it is
    applied (index 0)."""

    index: int
    term: int
    deadline: float
    done: Done


@dataclass(frozen=True)
class DriverOptions:
    request_timeout_s: float = 7.0
    election_timeout_s: float = 1.0
    trim_commands: int = 2_000  # --snapshot-count; what it adds to the tail is in every member's memory
    tail_commands: int = 5_000  # kept in the log for slow followers
    tail_bytes_max: int = 64 << 20


class Driver:
    def __init__(
        self,
        node: RawNode,
        machine: Machine,
        log: Log,
        transport: Transport,
        *,
        member_id: int,
        incarnation: int,
        options: DriverOptions,
        now: Callable[[], float],
        call_soon: Callable[[Callable[[], None]], object],
        send_snapshot: Callable[[InstallSnapshot], None],
        install_snapshot: Callable[[SnapshotMeta], None],
        first_read_context: int,
        report: Callable[[Exception], None],
    ) -> None:
        """install_snapshot replaces the machine's state and returns when that is durable; send_snapshot
        starts sending one in the background and later calls report_snapshot. report(problem) hears of a
        waiter that failed; an error in the driver itself is its caller's, and must stop the member."""
        self.node = node
        self.machine = machine
        self.member_id = member_id
        self.incarnation = incarnation
        self._log = log
        self._transport = transport
        self._options = options
        self._now = now
        self._call_soon = call_soon
        self._send_snapshot = send_snapshot
        self._install_snapshot = install_snapshot
        self._report = report
        self.outbox = Outbox(origin=member_id, incarnation=incarnation, timeout_s=options.request_timeout_s)
        self._reads = ReadRounds(
            options.request_timeout_s, max(options.election_timeout_s / 2, 0.05), first_read_context
        )
        self._disturbances = Disturbances()
        self._scheduled = False
        self._stopped = False
        self._after_persist: dict[int, list[Message]] = {}
        self._persisted_to = 0
        self._notices: list[Message] = []
        self._unapplied: collections.deque[Entry] = collections.deque()
        self._forwarded: list[bytes] = []
        self._marks: collections.deque[tuple[int, int, int]] = collections.deque()
        self._commands_applied = 0
        self._bytes_applied = 0
        self._progress_at = 0.0
        self._leader_id = 0
        self._term = node.term
        self.leader_changes = 0
        self.failed_proposals = 0
        self._config_waiters: list[_ConfigWaiter] = []
        self.on_config: list[Callable[[ConfState, Sequence[MemberRecord], bool], None]] = []
        """Called with (configuration, members it brings, whether it is applied): first when it is in force here,
        which is when it is in the log, then when it is applied."""
        self.on_role: list[Callable[[Role, int], None]] = []
        self.on_turn: list[Callable[[], None]] = []

    # What services ask for

    def propose(self, kind: int, payload: bytes, done: Done) -> None:
        """Replicates one command. done(outcome) is called once, on the loop, when it was applied here, or
        with an error whose `definite` says whether it may still take effect."""
        if self._stopped:
            done(errors.Stopped())
            return
        try:
            self.outbox.add(kind, payload, done)
        except errors.TooManyRequests as refusal:
            done(refusal)
            return
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def change_members(self, changes: Sequence[Change], context: bytes, done: Done) -> None:
        """On the leader: proposes one change of membership. done(outcome) once, when it is applied here, and
        left again where it is joint; or with why it is not."""
        node = self.node
        if self._stopped:
            done(errors.Stopped())
            return
        if not node.is_leader:
            done(errors.NotLeader())
            return
        if node.raft.log.conf_index > self.machine.applied_index:
            done(errors.ChangeUnderWay())
            return
        try:
            last = node.propose_config(changes, context)
        except ProposalDropped:
            done(errors.ChangeUnderWay() if node.is_leader else errors.NotLeader())
            return
        deadline = self._now() + self._options.request_timeout_s
        self._config_waiters.append(_ConfigWaiter(last.index, last.term, deadline, done))
        self._schedule()

    def read(self, done: ReadDone) -> None:
        """Calls done(None) once local state holds everything acknowledged before this call."""
        if self._stopped:
            done(errors.Stopped())
            return
        self._reads.add(done, self._now())
        self._schedule()

    @property
    def leader_id(self) -> int:
        return self.node.leader_id

    @property
    def is_leader(self) -> bool:
        return self.node.is_leader

    @property
    def term(self) -> int:
        return self.node.term

    @property
    def submitted_to(self) -> int:
        """Number of the last Ready that was given to the log; persisted_to follows it."""
        return next(reversed(self._after_persist), self._persisted_to)

    @property
    def persisted_to(self) -> int:
        return self._persisted_to

    @property
    def read_retries(self) -> int:
        return self._reads.retries

    @property
    def read_timeouts(self) -> int:
        return self._reads.timeouts

    @property
    def unapplied(self) -> int:
        return len(self._unapplied)

    # What the world tells

    def tick(self) -> None:
        """One heartbeat interval has passed."""
        if self._stopped:
            return
        self.node.tick()
        now = self._now()
        for pending in self.outbox.overdue(now):
            self._finish(pending, self._timeout(pending) if pending.sent else errors.NoLeader())
        for done in self._reads.overdue(now):
            done(errors.RequestTimeout() if self.node.leader_id else errors.NoLeader())
        for waiter in [each for each in self._config_waiters if each.deadline <= now]:
            self._config_waiters.remove(waiter)
            waiter.done(errors.OutcomeUnknown())
        self._resend_stale(now)
        self._trim()
        self._schedule()

    def _timeout(self, pending: Pending) -> errors.RequestTimeout:
        return self._disturbances.timeout(
            pending.deadline - self._options.request_timeout_s,
            self_id=self.member_id,
            leader_id=self.node.leader_id,
            voters=self.node.conf.voters,
        )

    def received(self, messages: Sequence[Message]) -> None:
        """Raft messages from peers, as they came from one read of one connection."""
        if self._stopped:
            return
        step = self.node.step
        for message in messages:
            step(message)
        if self.node.is_leader:
            self._schedule()  # one turn for what all followers and clients say in this one of the loop's
        else:
            self._turn()  # what a follower hears comes from one connection: nothing to wait for

    def forwarded(self, batch: bytes) -> None:
        """Another member's batch for the leader. Dropped where this member does not lead: its origin sends
        it again when it learns of the leader."""
        try:
            decode_header(batch)
        except MalformedBatch:
            return
        if self.node.is_leader and not self._stopped:
            self._forwarded.append(batch)
            self._schedule()

    def persisted(self, number: int) -> None:
        """The log made everything up to Ready `number` durable."""
        if self._stopped:
            return
        self._persisted_to = number
        messages: list[Message] = []
        while self._after_persist:
            first = next(iter(self._after_persist))
            if first > number:
                break
            self.node.persisted(first)
            messages += self._after_persist.pop(first)
        if messages:
            self._transport.send(messages)
        self._turn()

    def report_snapshot(self, node_id: int, ok: bool) -> None:
        if not self._stopped:
            self.node.report_snapshot(node_id, ok)
            self._schedule()

    def report_unreachable(self, node_id: int) -> None:
        """The connection to a peer broke: what was sent to it may be lost. Lost batches go again when the
        leader changes, or when none of them came back for an election timeout."""
        if self._stopped:
            return
        self._disturbances.connection_broke(node_id, self._now())
        self.node.report_unreachable(node_id)
        self._schedule()

    def report_gone(self, node_id: int) -> None:
        """A peer's process has ended: it hung up and its port refuses connections. If it led, the others need
        not wait for an election timeout to pass."""
        if self._stopped:
            return
        self.node.report_gone(node_id)
        self._schedule()

    def wake(self) -> None:
        """State has something to do in a turn: a compaction to go on with, watchers to catch up."""
        self._schedule()

    def transfer_leadership(self, to: int) -> None:
        self.node.transfer_leadership(to)
        self._schedule()

    def stop(self) -> None:
        """Answers every waiter and takes no more. A batch that was sent may still take effect."""
        if self._stopped:
            return
        self._stopped = True
        for pending in self.outbox.close():
            self._finish(pending, errors.OutcomeUnknown() if pending.sent else errors.Stopped())
        for waiter in self._config_waiters:
            waiter.done(errors.OutcomeUnknown())
        for done in self._reads.close():
            done(errors.Stopped())

    # One turn

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        if self.outbox.is_filling or self._forwarded:
            self._propose_batches()
        if self._reads.is_joined:
            self._start_reads()
        node = self.node
        while node.has_ready():
            self._carry_out()
        if self._unapplied:
            self._apply()
        if self.machine.turn():
            self._schedule()
        for hook in self.on_turn:
            hook()
        if self._notices:
            self._call_soon(self._send_notices)  # behind the connections' own flushes

    def _send_notices(self) -> None:
        notices, self._notices = self._notices, []
        if notices and not self._stopped:
            self._transport.send(notices)

    def _propose_batches(self) -> None:
        now = self._now()
        sealed = self.outbox.seal(now)
        if self._forwarded:
            forwarded, self._forwarded = self._forwarded, []
            self._propose(forwarded)
        for pending in sealed:
            self._dispatch(pending, now)

    def _dispatch(self, pending: Pending, now: float) -> None:
        """Gives a batch to the leader, this member or another; without one it stays in the outbox."""
        leader = self.node.leader_id
        if leader == self.member_id:
            if self._propose([pending.data]):
                pending.sent, pending.sent_at = True, now
        elif leader:
            if self._transport.notify(leader, FORWARD, pending.data):
                pending.sent, pending.sent_at = True, now

    def _propose(self, batches: list[bytes]) -> bool:
        try:
            self.node.propose(batches)
        except ProposalDropped:
            return False
        return True

    def _start_reads(self) -> None:
        if not self.node.leader_id:
            return
        context = self._reads.start(self._now())
        if context is not None:
            self.node.read_index(context)

    def _carry_out(self) -> None:
        """One Ready, in the order raft/DESIGN.md asks for."""
        ready = self.node.ready()
        if ready.soft_state is not None or self.node.term != self._term:
            self._leadership_changed()
        if ready.snapshot is not None:
            self._install(ready.snapshot)
        for entry in ready.entries:
            if entry.kind == EntryKind.CONFIG:
                self._tell_config(entry, applied=False)
        if ready.messages:  # before the log's thread is woken: it is the followers' disks that are waited for
            self._send(ready.messages)
        dependent = ready.messages_after_persist
        if ready.must_sync or (dependent and self._after_persist):
            self._after_persist[ready.number] = dependent
            self._log.submit(ready.number, ready.hard_state, ready.snapshot, ready.entries, ready.must_sync)
        elif self._after_persist:
            # Nothing waits for it, and the node counts it as persisted with what is written next.
            if ready.hard_state is not None:
                self._log.note(ready.number, ready.hard_state)
        else:
            # Nothing is being written and nothing has to be: a commit index alone is learned again.
            self.node.persisted(ready.number)
            if dependent:
                self._transport.send(dependent)
        if ready.committed:
            self._unapplied.extend(ready.committed)
        for state in ready.read_states:
            self._reads.answered(state.context, state.index)
        for context in ready.reads_failed:
            if self._reads.failed(context):
                self._schedule()
        if ready.read_states and not self._unapplied:
            self._answer_reads()

    def _send(self, messages: list[Message]) -> None:
        """Notices of commits alone wait for the answers to clients, which wait for nothing but this process; whatever
        else is sent takes them along."""
        if all(type(message) is CommitNotice for message in messages):
            self._notices += messages
            return
        if self._notices:
            messages, self._notices = self._notices + messages, []
        snapshots = [m for m in messages if type(m) is InstallSnapshot]
        if snapshots:
            messages = [m for m in messages if type(m) is not InstallSnapshot]
            for message in snapshots:
                self._send_snapshot(message)
        self._transport.send(messages)

    def _install(self, meta: SnapshotMeta) -> None:
        """State first, durably, then the log's mark: after a crash between, recovery takes state's index."""
        self._unapplied.clear()
        self._marks.clear()
        self._install_snapshot(meta)
        self.node.applied_to(self.machine.applied_index)
        # What this member proposed may be in it. Whether it is, and with what outcome, a snapshot does not say:
        # sent again it could take effect a second time.
        incarnation, sequence = self.machine.last_batch(self.member_id)
        if incarnation == self.incarnation:
            for pending in self.outbox.settled_to(sequence):
                self._finish(pending, errors.OutcomeUnknown())
        for waiter in [each for each in self._config_waiters if each.index <= self.machine.applied_index]:
            self._config_waiters.remove(waiter)
            waiter.done(errors.OutcomeUnknown())

    def _apply(self) -> None:
        """Applies a bounded share of what is committed, then answers those who waited for it."""
        unapplied, machine, budget = self._unapplied, self.machine, APPLY_BYTES_PER_TURN
        last = 0
        while unapplied and budget > 0 and machine.backlog_bytes < BACKLOG_BYTES_MAX:
            entry = unapplied.popleft()
            budget -= len(entry.data) + 64
            last = entry.index
            self._apply_one(entry)
        if last:
            self.node.applied_to(last)
            self._mark(last)
        self._answer_reads()
        if unapplied:
            self._schedule()

    def _apply_one(self, entry: Entry) -> None:
        data = entry.data
        if entry.kind == EntryKind.CONFIG:
            self._apply_config(entry)
            return
        if not data:
            self.machine.apply(entry.index, entry.term, b"")
            return
        header = decode_header(data)
        own = header.origin == self.member_id and header.incarnation == self.incarnation
        outcomes = self.machine.apply(entry.index, entry.term, data, own)
        self._commands_applied += header.command_count
        self._bytes_applied += len(data)
        if not own or outcomes is None:
            return
        self._progress_at = self._now()
        pending, overtaken = self.outbox.applied(header.sequence)
        if pending is not None:
            for done, outcome in zip(pending.waiters, outcomes, strict=True):
                try:
                    done(outcome)
                except Exception as problem:  # a client's connection must not stop the others' entries
                    self._report(problem)
        for each in overtaken:
            self._dispatch(each, self._now())

    def _apply_config(self, entry: Entry) -> None:
        conf, context = membership.decode(entry.data)
        self.machine.apply_config(
            entry.index,
            entry.term,
            membership.encode(conf),
            members=members_of(conf),
            added=ConfigContext.FromString(context).added,
        )
        self._tell_config(entry, applied=True)
        for waiter in list(self._config_waiters):
            if waiter.index > entry.index:
                continue
            if waiter.index and (waiter.index, waiter.term) != (entry.index, entry.term):
                outcome: Outcome = errors.LeaderLost()  # another leader's entry stands where it was
            elif conf.voters_outgoing:
                waiter.index = 0
                continue
            else:
                outcome = (0, b"")
            self._config_waiters.remove(waiter)
            waiter.done(outcome)

    def _tell_config(self, entry: Entry, *, applied: bool) -> None:
        conf, context = membership.decode(entry.data)
        added = ConfigContext.FromString(context).added
        for hook in self.on_config:
            hook(conf, added, applied)

    def _answer_reads(self) -> None:
        for done in self._reads.ready(self.machine.applied_index):
            try:
                done(None)
            except Exception as problem:
                self._report(problem)

    def _finish(self, pending: Pending, error: errors.StoreError) -> None:
        self.failed_proposals += len(pending.waiters)
        for done in pending.waiters:
            try:
                done(error)
            except Exception as problem:
                self._report(problem)

    # Leadership, lost batches

    def _leadership_changed(self) -> None:
        node = self.node
        changed = (node.leader_id, node.term) != (self._leader_id, self._term)
        if node.leader_id and node.leader_id != self._leader_id:
            self.leader_changes += 1
            self._disturbances.leader_changed(self._now())
        self._leader_id, self._term = node.leader_id, node.term
        if changed and node.leader_id:
            self._resend(self._now())
        for hook in self.on_role:
            hook(node.status().role, node.leader_id)

    def _resend_stale(self, now: float) -> None:
        """Batches that got no further for an election timeout may have been lost with a connection or a
        dropped proposal: send all of them again, in order. State drops what it has applied already."""
        patience = self._options.election_timeout_s
        for pending in self.outbox.pending():
            if not pending.sent:
                self._dispatch(pending, now)
            elif now - max(pending.sent_at, self._progress_at) > patience:
                self._resend(now)
                return

    def _resend(self, now: float) -> None:
        for pending in self.outbox.pending():
            self._dispatch(pending, now)

    # Trimming the log

    def _mark(self, index: int) -> None:
        """Remembers how many commands and bytes lay behind an index, every thousand commands or MiB."""
        previous = self._marks[-1] if self._marks else (0, 0, 0)
        if self._commands_applied - previous[1] >= 1000 or self._bytes_applied - previous[2] >= 1 << 20:
            self._marks.append((index, self._commands_applied, self._bytes_applied))

    def _trim(self) -> None:
        """Drops the log's prefix that state holds durably, and keeps a tail for followers a little behind."""
        options, marks = self._options, self._marks
        if not marks:
            return
        over = self._commands_applied - marks[0][1] > options.trim_commands + options.tail_commands
        if not over and self._bytes_applied - marks[0][2] <= 2 * options.tail_bytes_max:
            return
        target = 0
        while marks and (
            self._commands_applied - marks[0][1] > options.tail_commands
            or self._bytes_applied - marks[0][2] > options.tail_bytes_max
        ):
            if marks[0][0] > self.machine.durable_index:
                break
            target = marks.popleft()[0]
        if target >= self.node.first_index:
            self.node.compact(target)
            self._log.release(target)
