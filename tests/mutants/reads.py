"""Seeded bugs, each one that a real store has had: reads.
Patched in by tests, absent from the package.

The number a docstring begins with is the row of the catalogue in docs/verification.md.
"""

from __future__ import annotations

from typing import Any

from raft import Raft, ReadIndexResponse, follower, leader, quorum
from raft.reads import LeaderReads, ReadRound, ReadState
from tests.mutants.patches import Patches


def read_without_a_round() -> Patches:
    """21: the leader answers reads without asking whether it still leads."""

    def start(raft: Raft) -> None:
        for node, context in raft.reads.joining:
            raft.answer_read(node, context, raft.log.committed, ok=True)
        raft.reads.joining = []

    return [(leader, "_start_reads", start)]


def read_before_own_commit() -> Patches:
    """22: a new leader answers reads before it has committed in its own term."""

    def start(raft: Raft) -> None:
        if raft.reads.joining:
            leader.broadcast_heartbeat(raft, raft.reads.start(raft.log.committed))

    return [(leader, "_start_reads", start)]


def read_round_reused() -> Patches:
    """23: every round has the same number, so an old answer confirms a new question."""

    def start(self: LeaderReads, index: int) -> int:
        self._rounds.append(ReadRound(1, index, self.joining))
        self.joining = []
        return 1

    return [(LeaderReads, "start", start)]


def one_answer_confirms() -> Patches:
    """21: one follower's answer confirms a round, however many there are."""

    def acknowledge(self: LeaderReads, node: int, number: int, **rest: Any) -> list[ReadRound]:
        done = [round_ for round_ in self._rounds if round_.number <= number]
        self._rounds = [round_ for round_ in self._rounds if round_.number > number]
        return done

    return [(LeaderReads, "acknowledge", acknowledge)]


def every_round_confirmed() -> Patches:
    """23: an answer to an old round confirms the newer ones too."""
    original = LeaderReads.acknowledge

    def acknowledge(self: LeaderReads, node: int, number: int, **rest: Any) -> list[ReadRound]:
        return original(self, node, self._last_number, **rest)

    return [(LeaderReads, "acknowledge", acknowledge)]


def follower_answers_by_itself() -> Patches:
    """21: a follower serves a read at its own commit."""

    def forward(raft: Raft, context: int) -> None:
        raft.read_states.append(ReadState(context, raft.log.committed))

    return [(follower, "forward_read", forward)]


def read_at_applied() -> Patches:
    """24: a read gets the index that was applied, not the one that is committed."""

    def start(raft: Raft) -> None:
        reads, log = raft.reads, raft.log
        if reads.joining and log.term(log.committed) == raft.term:
            index = max(0, log.committed - 1)
            if quorum.has_quorum(raft.conf, {raft.id}):
                for node, context in reads.joining:
                    raft.answer_read(node, context, index, ok=True)
                reads.joining = []
            else:
                leader.broadcast_heartbeat(raft, reads.start(index))

    return [(leader, "_start_reads", start)]


def refused_read_served() -> Patches:
    """24: the answer of one that does not lead is taken for a leader's."""

    def finish(raft: Raft, message: ReadIndexResponse) -> None:
        if message.context in raft.forwarded_reads:
            raft.forwarded_reads.discard(message.context)
            raft.read_states.append(ReadState(message.context, message.index))

    return [(follower, "_finish_read", finish)]


def learners_confirm() -> Patches:
    """21: learners count when a read is confirmed."""
    original = LeaderReads.acknowledge

    def acknowledge(self: LeaderReads, node: int, number: int, *, leader: int, conf: Any) -> list[ReadRound]:
        if node in (*conf.learners, *conf.learners_next):
            done = [round_ for round_ in self._rounds if round_.number <= number]
            self._rounds = [round_ for round_ in self._rounds if round_.number > number]
            return done
        return original(self, node, number, leader=leader, conf=conf)

    return [(LeaderReads, "acknowledge", acknowledge)]
