"""Seeded bugs, each one that a real store has had: elections, terms and votes.
Patched in by tests, absent from the package.

The number a docstring begins with is the row of the catalogue in docs/verification.md.
"""

from __future__ import annotations

from typing import Any

from raft import (
    NOBODY,
    AppendEntries,
    HardState,
    Heartbeat,
    PreVoteResponse,
    Raft,
    RawNode,
    Role,
    VoteResponse,
    candidate,
    follower,
    leader,
    quorum,
)
from raft.log import RaftLog
from tests.mutants.patches import Patches


def vote_not_persisted() -> Patches:
    """1: the vote goes out before it is on disk."""

    def send(self: Raft, message: Any) -> None:
        target = self.messages if isinstance(message, VoteResponse) else self.messages_after_persist
        target.append(message)

    return [(Raft, "send_after_persist", send)]


def term_not_persisted() -> Patches:
    """2: a new term is not counted as something to write."""
    original = RawNode.ready

    def ready(self: RawNode) -> Any:
        taken = original(self)
        if taken.hard_state is not None and not taken.entries:
            taken.hard_state = None
        return taken

    return [(RawNode, "ready", ready)]


def vote_lost_on_step_down() -> Patches:
    """3: stepping down within a term forgets the vote."""
    original = Raft._reset

    def reset(self: Raft, term: int) -> None:
        original(self, term)
        self.vote = 0

    return [(Raft, "_reset", reset)]


def vote_without_log_check() -> Patches:
    """9: a vote for a candidate whose log is shorter (thesis 3.6.1)."""
    return [(RaftLog, "is_up_to_date", lambda self, last_index, last_term: True)]


def one_vote_is_enough() -> Patches:
    """9: a majority that is none."""

    def won(voters: Any, votes: Any) -> bool | None:
        granted = sum(1 for node in voters if votes.get(node) is True)
        return True if not voters or granted >= max(1, len(voters) // 2) else None

    return [(quorum, "_won", won)]


def no_check_quorum() -> Patches:
    """7: a leader that is cut off goes on leading."""
    return [(leader, "_hears_quorum", lambda raft: True)]


def stale_term_obeyed() -> Patches:
    """9: a message of an older term is taken for one of this term."""

    def answer(self: Raft, message: Any) -> None:
        if isinstance(message, AppendEntries | Heartbeat) and self.role == Role.FOLLOWER:
            follower.step(self, message)

    return [(Raft, "_answer_lower_term", answer)]


def self_vote_counted_before_persist() -> Patches:
    """1: a candidate counts its own vote before it is on disk."""
    original = candidate.stand

    def stand(raft: Raft, *, force: bool = False) -> None:
        original(raft, force=force)
        candidate.poll(raft, raft.id, granted=True)

    return [(candidate, "stand", stand)]


def vote_forgotten_at_restart() -> Patches:
    """1: a node that comes back has its term, and has forgotten whom it voted for."""
    original = RawNode.__init__

    def init(self: RawNode, config: Any, *, hard_state: HardState, **rest: Any) -> None:
        original(self, config, hard_state=HardState(hard_state.term, NOBODY, hard_state.commit), **rest)

    return [(RawNode, "__init__", init)]


def vote_given_twice() -> Patches:
    """3: whoever asks gets the vote, though another has it in this term."""

    def answer(self: Raft, request: Any) -> None:
        granted = self.log.is_up_to_date(request.last_index, request.last_term)
        if granted:
            self.vote = request.sender
            self.election_elapsed = 0
        self.send_after_persist(VoteResponse(self.id, request.sender, self.term, granted))

    return [(Raft, "_answer_vote", answer)]


def own_vote_not_recorded() -> Patches:
    """2: a candidate votes for itself and does not remember it."""

    def become_candidate(self: Raft) -> None:
        self._reset(self.term + 1)
        self._change(Role.CANDIDATE, NOBODY)
        self.votes[self.id] = True

    return [(Raft, "become_candidate", become_candidate)]


def candidate_keeps_its_term() -> Patches:
    """2: standing for election does not begin a new term."""

    def become_candidate(self: Raft) -> None:
        self._reset(max(self.term, 1))
        self.vote = self.id
        self._change(Role.CANDIDATE, NOBODY)

    return [(Raft, "become_candidate", become_candidate)]


def pre_vote_granted_in_own_term() -> Patches:
    """4: a pre-vote is granted in the voter's term instead of the one asked for."""

    def answer(self: Raft, request: Any) -> None:
        granted = self.log.is_up_to_date(request.last_index, request.last_term)
        self.send(PreVoteResponse(self.id, request.sender, self.term, granted))

    return [(Raft, "_answer_pre_vote", answer)]


def lower_term_not_answered() -> Patches:
    """5: a node that came back with a higher term is ignored for ever."""
    return [(Raft, "_answer_lower_term", lambda self, message: None)]


def who_cannot_stand_never_forgets_its_leader() -> Patches:
    """5: a learner or a removed node goes on protecting a leader that is gone."""

    def tick(self: Raft) -> None:
        if self.role == Role.LEADER:
            leader.tick(self)
            return
        self.election_elapsed += 1
        if self.election_elapsed >= self.election_timeout:
            self.election_elapsed = 0
            self.campaign()

    return [(Raft, "tick", tick)]


def leader_forgotten_never() -> Patches:
    """5: a pre-candidate still believes in its leader, and votes for nobody else."""

    def become_pre_candidate(self: Raft) -> None:
        self.votes = {}
        self.election_elapsed = 0
        self.role = Role.PRE_CANDIDATE

    def alive(self: Raft) -> bool:
        return self.leader_id != NOBODY

    return [(Raft, "become_pre_candidate", become_pre_candidate), (Raft, "_leader_is_alive", alive)]


def transfer_puts_off_the_check() -> Patches:
    """7: handing over begins the wait for a quorum anew, so a leader that is cut off goes on leading."""
    original = leader.transfer

    def transfer(raft: Raft, to: int) -> None:
        original(raft, to)
        raft.election_elapsed = 0

    return [(leader, "transfer", transfer)]


def learner_does_not_vote() -> Patches:
    """8: who believes to be a learner refuses its vote, though the candidate knows of its promotion."""
    original = Raft._answer_vote

    def answer(self: Raft, request: Any) -> None:
        if self.id in self.conf.voters:
            original(self, request)
        else:
            self.send_after_persist(VoteResponse(self.id, request.sender, self.term, False))

    return [(Raft, "_answer_vote", answer)]


def stale_votes_counted() -> Patches:
    """9: a vote of an older term counts in this one."""
    original = Raft.step

    def step(self: Raft, message: Any) -> None:
        if isinstance(message, VoteResponse) and self.role == Role.CANDIDATE and message.to == self.id:
            candidate.poll(self, message.sender, granted=message.granted)
        else:
            original(self, message)

    return [(Raft, "step", step)]


def pre_votes_elect() -> Patches:
    """9: who was promised votes takes them for given."""

    def poll(raft: Raft, node: int, *, granted: bool) -> None:
        raft.votes.setdefault(node, granted)
        result = quorum.vote_result(raft.conf, raft.votes)
        if result is True:
            if raft.role == Role.PRE_CANDIDATE:
                raft.become_candidate()
            raft.become_leader()
        elif result is False:
            raft.become_follower(raft.term, NOBODY)

    return [(candidate, "poll", poll)]


def anybody_votes() -> Patches:
    """10: votes of nodes count that have none."""

    def won(voters: Any, votes: Any) -> bool | None:
        granted = sum(1 for given in votes.values() if given)
        refused = sum(1 for given in votes.values() if not given)
        if granted >= len(voters) // 2 + 1:
            return True
        return False if refused >= len(voters) // 2 + 1 else None

    return [(quorum, "_won", won)]


def term_sent_before_persist() -> Patches:
    """1: messages go out in a term that a crash would forget."""
    return [(Raft, "send", lambda self, message: self.messages.append(message))]


def restart_in_the_term_of_the_log() -> Patches:
    """2: after a restart the term is that of the last entry, whatever was promised since."""
    original = RawNode.__init__

    def init(
        self: RawNode, config: Any, *, hard_state: HardState, entries: Any, snapshot: Any, **rest: Any
    ) -> None:
        term = entries[-1].term if entries else snapshot.term
        kept = HardState(term, hard_state.vote, hard_state.commit)
        original(self, config, hard_state=kept, entries=entries, snapshot=snapshot, **rest)

    return [(RawNode, "__init__", init)]


def follower_of_two_leaders() -> Patches:
    """9: a candidate does not give way to the leader of its own term."""

    def step(raft: Raft, message: Any) -> None:
        asked: Any = {Role.CANDIDATE: VoteResponse, Role.PRE_CANDIDATE: PreVoteResponse}.get(raft.role)
        if asked is not None and type(message) is asked:
            candidate.poll(raft, message.sender, granted=message.granted)

    return [(candidate, "step", step)]
