"""RawNode: a node as its driver sees it. tick, step, propose; then ready, persisted, applied_to.

The loop contract (DESIGN.md has the reasons):
  1. While has_ready(): take ready().
  2. Install ready.snapshot, if any, and hand hard_state and entries to the disk, in this order.
  3. Send ready.messages at once. Send ready.messages_after_persist when the disk is done with this Ready.
  4. Apply ready.committed in order and say so with applied_to().
  5. When the disk is done with everything in Ready k and before it, call persisted(k). More Readys may be taken
     meanwhile; entries are handed out once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from raft import candidate, leader
from raft.errors import ProposalDropped
from raft.membership import Change
from raft.messages import Message
from raft.progress import ProgressState
from raft.raft import Config, Raft
from raft.reads import ReadState
from raft.types import ConfState, Entry, EntryID, HardState, Index, NodeID, Role, SnapshotMeta, Term


@dataclass(slots=True, frozen=True)
class SoftState:
    """What may be forgotten: who leads, and what this node is."""

    leader_id: NodeID
    role: Role


@dataclass(slots=True)
class Ready:
    """What is to be done, in the order of the fields' use (see the module's contract)."""

    number: int
    hard_state: HardState | None = None
    entries: list[Entry] = field(default_factory=list)
    snapshot: SnapshotMeta | None = None
    messages: list[Message] = field(default_factory=list)
    messages_after_persist: list[Message] = field(default_factory=list)
    must_sync: bool = False
    committed: list[Entry] = field(default_factory=list)
    read_states: list[ReadState] = field(default_factory=list)
    reads_failed: list[int] = field(default_factory=list)
    soft_state: SoftState | None = None


@dataclass(slots=True, frozen=True)
class ProgressStatus:
    match: Index
    next: Index
    state: ProgressState
    recent_active: bool


@dataclass(slots=True, frozen=True)
class Status:
    id: NodeID
    role: Role
    term: Term
    vote: NodeID
    leader_id: NodeID
    commit: Index
    applied: Index
    first_index: Index
    last_index: Index
    progress: dict[NodeID, ProgressStatus]


@dataclass(slots=True)
class _Writing:
    number: int
    last: EntryID | None
    hard_state: HardState | None


class RawNode:
    def __init__(
        self,
        config: Config,
        *,
        hard_state: HardState,
        snapshot: SnapshotMeta,
        entries: Sequence[Entry],
        applied: Index,
        random: Random,
    ) -> None:
        """snapshot is where the log begins (index 0 and term 0 in a new cluster); entries follow it. applied,
        at least snapshot.index, is how far the state machine is durably, and snapshot.conf_state is the
        configuration as of there."""
        commit = max(hard_state.commit, applied)
        self.raft = Raft(
            config,
            hard_state=HardState(hard_state.term, hard_state.vote, commit),
            snapshot=snapshot,
            entries=entries,
            applied=applied,
            random=random,
        )
        log = self.raft.log
        assert snapshot.index <= applied <= log.last_index, f"applied {applied} is not in {log.base}.."
        log.taken = log.applied = applied
        self._number = 0
        self._writing: deque[_Writing] = deque()
        self._hard_state = hard_state  # what the disk has; where state is ahead of it, a Ready says so
        self._soft_state = SoftState(self.raft.leader_id, self.raft.role)

    # Input

    def tick(self) -> None:
        self.raft.tick()

    def step(self, message: Message) -> None:
        """Takes any message from a peer; what does not fit is dropped."""
        self.raft.step(message)

    def campaign(self) -> None:
        self.raft.campaign()

    def propose(self, data: Sequence[bytes]) -> EntryID:
        """Appends entries on the leader; returns the last one's id. Raises ProposalDropped."""
        raft = self.raft
        self._demand_leadership()
        size = sum(map(len, data))
        if raft.uncommitted_bytes and raft.uncommitted_bytes + size > raft.config.max_uncommitted_bytes:
            raise ProposalDropped(raft.leader_id, "too much is uncommitted")
        return leader.append(raft, data)

    def propose_config(self, changes: Sequence[Change], context: bytes = b"") -> EntryID:
        """Appends the configuration that follows by these changes; context travels with it and is not looked
        at. Where it is joint, it is left by itself once it is committed. One change at a time. Raises
        ProposalDropped, or membership.InvalidChange."""
        self._demand_leadership()
        return leader.change_config(self.raft, changes, context)

    def _demand_leadership(self) -> None:
        raft = self.raft
        if raft.role != Role.LEADER:
            raise ProposalDropped(raft.leader_id, "not the leader")
        if raft.transfer_to:
            raise ProposalDropped(raft.leader_id, "leadership is being handed over")

    def read_index(self, context: int) -> None:
        """Asks for a linearizable read; context is unique per attempt. Ready.read_states has the answer."""
        self.raft.read_index(context)

    def transfer_leadership(self, to: NodeID) -> None:
        if self.raft.role == Role.LEADER:
            leader.transfer(self.raft, to)

    def report_unreachable(self, node_id: NodeID) -> None:
        """Messages to a follower may be lost: stop sending ahead of its answers."""
        progress = self.raft.progress.get(node_id)
        if progress is not None and progress.state == ProgressState.REPLICATE and node_id != self.raft.id:
            progress.become_probe()

    def report_gone(self, node_id: NodeID) -> None:
        """The node's process has ended, as far as can be seen from here: it hung up and nobody answers there."""
        self.raft.leader_gone(node_id)

    def report_snapshot(self, node_id: NodeID, ok: bool) -> None:
        """The sending of a snapshot ended. A follower that has it answers for itself; one that may not have
        it is probed again after its next heartbeat."""
        progress = self.raft.progress.get(node_id)
        if progress is None or progress.state != ProgressState.SNAPSHOT:
            return
        if not ok:
            progress.pending_snapshot = 0
        progress.become_probe()
        progress.probe_sent = True

    # Output

    def has_ready(self) -> bool:
        raft = self.raft
        if raft.role == Role.LEADER:
            leader.flush(raft)
        log = raft.log
        return bool(
            raft.messages
            or raft.messages_after_persist
            or log.handed < log.last_index
            or log.taken < log.committed
            or raft.read_states
            or raft.reads_failed
            or raft.restored is not None
            or self._hard_state_moved()
            or self._soft_state.leader_id != raft.leader_id
            or self._soft_state.role != raft.role
        )

    def _hard_state_moved(self) -> bool:
        """Asked several times a put: field by field it costs a fifth of making one to compare with."""
        raft, known = self.raft, self._hard_state
        return raft.log.committed != known.commit or raft.term != known.term or raft.vote != known.vote

    def ready(self) -> Ready:
        """Takes what has_ready() found to be done."""
        raft, log = self.raft, self.raft.log
        self._number += 1
        ready = Ready(self._number)
        if self._hard_state_moved():
            hard_state = raft.hard_state()
            old, self._hard_state = self._hard_state, hard_state
            ready.hard_state = hard_state
            ready.must_sync = (hard_state.term, hard_state.vote) != (old.term, old.vote)
        ready.snapshot, raft.restored = raft.restored, None
        ready.entries = log.next_unwritten()
        ready.must_sync = ready.must_sync or bool(ready.entries) or ready.snapshot is not None
        ready.messages, raft.messages = raft.messages, []
        ready.messages_after_persist, raft.messages_after_persist = raft.messages_after_persist, []
        ready.committed = log.next_committed(bytes_max=raft.config.max_committed_bytes_per_ready)
        if ready.committed and raft.role == Role.LEADER:
            freed = sum(len(entry.data) for entry in ready.committed)
            raft.uncommitted_bytes = max(0, raft.uncommitted_bytes - freed)
        ready.read_states, raft.read_states = raft.read_states, []
        ready.reads_failed, raft.reads_failed = raft.reads_failed, []
        known = self._soft_state
        if known.leader_id != raft.leader_id or known.role != raft.role:
            self._soft_state = ready.soft_state = SoftState(raft.leader_id, raft.role)
        last = ready.entries[-1] if ready.entries else None
        last_id = EntryID(last.term, last.index) if last is not None else None
        self._writing.append(_Writing(ready.number, last_id, ready.hard_state))
        return ready

    def persisted(self, number: int) -> None:
        """Everything in Ready `number`, and in those before it, is on disk."""
        raft = self.raft
        while self._writing and self._writing[0].number <= number:
            writing = self._writing.popleft()
            if writing.last is not None:
                raft.log.written(writing.last)
            state = writing.hard_state
            if state is not None:
                raft.durable_term = max(raft.durable_term, state.term)
                if state.term == raft.term and state.vote == raft.id:
                    candidate.self_vote_is_durable(raft)
        if raft.role == Role.LEADER:
            leader.self_written(raft)

    def applied_to(self, index: Index) -> None:
        self.raft.log.applied_to(index)

    def compact(self, index: Index) -> None:
        """Drops the log up to and including index, at most what is applied."""
        self.raft.log.compact(index)

    # Looking

    @property
    def leader_id(self) -> NodeID:
        return self.raft.leader_id

    @property
    def is_leader(self) -> bool:
        return self.raft.role == Role.LEADER

    @property
    def term(self) -> Term:
        return self.raft.term

    @property
    def conf(self) -> ConfState:
        """The configuration in force, committed or not."""
        return self.raft.conf

    @property
    def commit(self) -> Index:
        return self.raft.log.committed

    @property
    def first_index(self) -> Index:
        return self.raft.log.first_index

    @property
    def last_index(self) -> Index:
        return self.raft.log.last_index

    def status(self) -> Status:
        raft, log = self.raft, self.raft.log
        return Status(
            id=raft.id,
            role=raft.role,
            term=raft.term,
            vote=raft.vote,
            leader_id=raft.leader_id,
            commit=log.committed,
            applied=log.applied,
            first_index=log.first_index,
            last_index=log.last_index,
            progress={
                node: ProgressStatus(p.match, p.next, p.state, p.recent_active)
                for node, p in sorted(raft.progress.items())
            },
        )
