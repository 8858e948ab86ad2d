"""The state of one node and the term gate; what each role does stands in follower, candidate and leader.

Every message passes step() first: a higher term makes its receiver a follower, a lower one is answered only as
far as it helps its sender to learn better. Messages come from outside and may be anything: what does not fit is
dropped. Assertions are about this node's own state, and stay on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from raft import candidate, follower, leader, membership, quorum
from raft.log import RaftLog
from raft.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexResponse,
    VoteRequest,
    VoteResponse,
)
from raft.progress import Progress
from raft.reads import LeaderReads, ReadState
from raft.trace import Event, RoleChanged, Trace, Voted
from raft.types import NOBODY, ConfState, Entry, HardState, Index, NodeID, Role, SnapshotMeta, Term


@dataclass(frozen=True)
class Config:
    """Times are in ticks, whose length is the driver's to choose. Bounds are in bytes and messages a follower."""

    id: NodeID
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    check_quorum: bool = True
    max_append_bytes: int = 1 << 20
    max_inflight_appends: int = 256
    max_inflight_bytes: int = 64 << 20
    max_uncommitted_bytes: int = 256 << 20
    max_committed_bytes_per_ready: int = 8 << 20

    def __post_init__(self) -> None:
        if self.id <= 0:
            raise ValueError(f"a node id is positive, not {self.id}")
        if not 0 < self.heartbeat_ticks < self.election_ticks:
            raise ValueError(f"heartbeat {self.heartbeat_ticks} must be below election {self.election_ticks}")


class Raft:
    """One node's whole state. Mutated only by step(), tick() and the calls of node.RawNode."""

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
        self.config = config
        self.id = config.id
        self.random = random
        self.trace: Trace | None = None
        commit = max(hard_state.commit, snapshot.index)
        self.log = RaftLog(
            base=snapshot.index,
            base_term=snapshot.term,
            entries=entries,
            committed=commit,
            conf=snapshot.conf_state,
            conf_index=max(snapshot.index, applied),
        )
        self.term: Term = max(hard_state.term, self.log.last_term)
        self.vote: NodeID = hard_state.vote if self.term == hard_state.term else NOBODY
        self.role = Role.FOLLOWER
        self.leader_id: NodeID = NOBODY
        self.durable_term: Term = hard_state.term  # the newest term the driver said is on disk
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.election_timeout = 0
        self.votes: dict[NodeID, bool] = {}
        self.progress: dict[NodeID, Progress] = {}
        self._followers: list[tuple[NodeID, Progress]] = []
        self._followers_of: tuple[ConfState | None, dict[NodeID, Progress] | None] = (None, None)
        self.reads = LeaderReads()
        self.uncommitted_bytes = 0
        self.transfer_to: NodeID = NOBODY
        self.transfer_elapsed = 0
        self.forwarded_reads: set[int] = set()  # contexts this follower has asked the leader about
        # What the next Ready will hold
        self.messages: list[Message] = []
        self.messages_after_persist: list[Message] = []
        self.read_states: list[ReadState] = []
        self.reads_failed: list[int] = []
        self.restored: SnapshotMeta | None = None
        self.reset_election_timeout()

    @property
    def conf(self) -> ConfState:
        """The configuration in force: the newest in the log."""
        return self.log.conf

    def followers(self) -> list[tuple[NodeID, Progress]]:
        """A leader's: everybody else in the configuration in force, ascending, with what is known of them. Kept
        until one of both is replaced: hashing a configuration for each look was a tenth of a lone put."""
        conf, progress = self.log.conf, self.progress
        if self._followers_of[0] is not conf or self._followers_of[1] is not progress:
            self._followers_of = (conf, progress)
            self._followers = [(node, progress[node]) for node in membership.peers(conf, self.id)]
        return self._followers

    def hard_state(self) -> HardState:
        return HardState(self.term, self.vote, self.log.committed)

    # Sending

    def send(self, message: Message) -> None:
        """For messages that rest on nothing but the term: they wait only until that is on disk."""
        if self.durable_term == self.term:
            self.messages.append(message)
        else:
            self.messages_after_persist.append(message)

    def send_after_persist(self, message: Message) -> None:
        """For messages that promise what this node has written: votes and accepted appends."""
        self.messages_after_persist.append(message)

    def emit(self, event: Event) -> None:
        if self.trace is not None:
            self.trace(event)

    # Changing role

    def _change(self, role: Role, leader_id: NodeID) -> None:
        old, self.role = self.role, role
        moved = leader_id != self.leader_id
        self.leader_id = leader_id
        if moved and self.forwarded_reads:
            self.reads_failed += sorted(self.forwarded_reads)
            self.forwarded_reads.clear()
        if self.trace is not None and (old != role or moved):
            self.emit(RoleChanged(self.id, self.term, old, role, leader_id))

    def _reset(self, term: Term) -> None:
        """Leaves whatever role this was. The vote is kept within a term (redpanda's lost votes)."""
        if self.role == Role.LEADER:
            leader.resign(self)
        if term != self.term:
            assert term > self.term, f"n{self.id}: term would fall from {self.term} to {term}"
            self.term, self.vote = term, NOBODY
        self.election_elapsed = self.heartbeat_elapsed = 0
        self.votes = {}
        self.progress = {}
        self.transfer_to = NOBODY
        self.uncommitted_bytes = 0
        self.reset_election_timeout()

    def become_follower(self, term: Term, leader_id: NodeID) -> None:
        self._reset(term)
        self._change(Role.FOLLOWER, leader_id)

    def become_pre_candidate(self) -> None:
        """Asks first; neither term nor vote changes, so a node that cannot win disturbs nobody (thesis 9.6)."""
        assert self.role != Role.LEADER, f"n{self.id}: a leader does not campaign"
        self.votes = {}
        self.election_elapsed = 0
        self.reset_election_timeout()
        self._change(Role.PRE_CANDIDATE, NOBODY)

    def become_candidate(self) -> None:
        assert self.role != Role.LEADER, f"n{self.id}: a leader does not campaign"
        self._reset(self.term + 1)
        self.vote = self.id
        self._change(Role.CANDIDATE, NOBODY)

    def become_leader(self) -> None:
        assert self.role == Role.CANDIDATE, f"n{self.id}: {self.role.name} cannot become leader"
        self._reset(self.term)
        self.reads = LeaderReads()
        self._change(Role.LEADER, self.id)
        leader.take_office(self)

    def reset_election_timeout(self) -> None:
        ticks = self.config.election_ticks
        self.election_timeout = ticks + self.random.randrange(ticks)

    # Time

    def tick(self) -> None:
        if self.role == Role.LEADER:
            leader.tick(self)
            return
        self.election_elapsed += 1
        if self.election_elapsed < self.election_timeout:
            return
        if self._may_stand():
            self.election_elapsed = 0
            self.campaign()
        elif self.leader_id:
            # It only stops to follow: else it would go on protecting a leader that is gone.
            self.become_follower(self.term, NOBODY)

    def campaign(self, *, force: bool = False) -> None:
        """Stands for election; force: at the leader's own request, so without asking first."""
        if self.role == Role.LEADER or not self._may_stand():
            return
        if self.config.pre_vote and not force:
            candidate.ask_first(self)
        else:
            candidate.stand(self, force=force)

    def leader_gone(self, node: NodeID) -> None:
        """The driver sees that the leader's process has ended: no need to wait until it is missed. A hint and no
        more: where it is wrong, those who still hear from the leader refuse their pre-votes, and its next
        heartbeat is obeyed. The others stand one after the other, a tick apart, so that they split no vote."""
        if self.role != Role.FOLLOWER or node == NOBODY or node != self.leader_id:
            return
        self.become_follower(self.term, NOBODY)
        others = [voter for voter in quorum.voters_of(self.conf) if voter != node]
        if self.id not in others:
            return
        turn = others.index(self.id)
        if turn == 0:
            self.campaign()
        else:
            self.election_timeout = turn + 1  # the tick under way may be nearly over

    def _may_stand(self) -> bool:
        """A voter may; so may one whose removal is in its log and not known to be committed: its log may be
        longer than that of all who stay, and then nobody else can win (thesis 4.2.2)."""
        log = self.log
        if self.id in quorum.voters_of(log.conf):
            return True
        return log.conf_index > log.committed and self.id in quorum.voters_of(log.conf_at(log.committed))

    # Messages

    def step(self, message: Message) -> None:
        if message.sender == self.id or message.to != self.id or message.sender <= 0 or message.term < 0:
            return
        if message.term > self.term:
            if not self._enter_higher_term(message):
                return
        elif message.term < self.term:
            self._answer_lower_term(message)
            return
        if isinstance(message, VoteRequest):
            self._answer_vote(message)
        elif isinstance(message, PreVoteRequest):
            self._answer_pre_vote(message)
        elif self.role == Role.LEADER:
            leader.step(self, message)
        elif self.role == Role.FOLLOWER:
            follower.step(self, message)
        else:
            candidate.step(self, message)

    def _enter_higher_term(self, message: Message) -> bool:
        """False where the message is to be ignored: somebody who lost touch must not depose a leader that
        this node hears from (thesis 4.2.3), unless that leader sent the candidate itself."""
        if isinstance(message, VoteRequest | PreVoteRequest):
            force = isinstance(message, VoteRequest) and message.force
            if not force and self._leader_is_alive():
                return False
        if isinstance(message, PreVoteRequest):
            return True
        if isinstance(message, PreVoteResponse) and message.granted:
            return True
        from_leader = isinstance(message, AppendEntries | Heartbeat | InstallSnapshot)
        self.become_follower(message.term, message.sender if from_leader else NOBODY)
        return True

    def _leader_is_alive(self) -> bool:
        if not self.config.check_quorum or self.leader_id == NOBODY:
            return False
        return self.election_elapsed < self.config.election_ticks

    def _answer_lower_term(self, message: Message) -> None:
        """An old leader, or a candidate whose pre-vote cannot win, learns of the term from the answer; without
        it a node that came back with a higher term would be ignored for ever (etcd 8525, raft-rs 42)."""
        if isinstance(message, AppendEntries | Heartbeat | InstallSnapshot):
            if self.config.check_quorum or self.config.pre_vote:
                self.send(AppendResponse(self.id, message.sender, self.term, 0))
        elif isinstance(message, PreVoteRequest):
            self.send(PreVoteResponse(self.id, message.sender, self.term, False))

    def _answer_vote(self, request: VoteRequest) -> None:
        """Learners answer too: the candidate may know of a promotion that they have not applied yet."""
        free = self.vote == request.sender or (self.vote == NOBODY and self.leader_id == NOBODY)
        granted = free and self.log.is_up_to_date(request.last_index, request.last_term)
        if granted:
            self.vote = request.sender
            self.election_elapsed = 0
        self.send_after_persist(VoteResponse(self.id, request.sender, self.term, granted))
        if self.trace is not None:
            self.emit(Voted(self.id, self.term, request.sender, granted, False))

    def _answer_pre_vote(self, request: PreVoteRequest) -> None:
        """A grant carries the term asked for, which is not this node's own (else the candidate drops it)."""
        free = (
            request.term > self.term
            or self.vote == request.sender
            or (self.vote == NOBODY and self.leader_id == NOBODY)
        )
        granted = free and self.log.is_up_to_date(request.last_index, request.last_term)
        term = request.term if granted else self.term
        self.send(PreVoteResponse(self.id, request.sender, term, granted))
        if self.trace is not None:
            self.emit(Voted(self.id, self.term, request.sender, granted, True))

    # Reads

    def read_index(self, context: int) -> None:
        if self.role == Role.LEADER:
            self.reads.joining.append((self.id, context))
        elif self.role == Role.FOLLOWER and self.leader_id:
            follower.forward_read(self, context)
        else:
            self.reads_failed.append(context)

    def answer_read(self, node: NodeID, context: int, index: int, *, ok: bool) -> None:
        if node != self.id:
            self.send(ReadIndexResponse(self.id, node, self.term, context, index, ok))
        elif ok:
            self.read_states.append(ReadState(context, index))
        else:
            self.reads_failed.append(context)
