"""Seeded bugs, each one that a real store has had (numbers: docs/verification.md). Patched in by tests, absent
from the package: they show that the simulator's checks can fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from raft import AppendResponse, Raft, RawNode, Role, VoteResponse, candidate, follower, leader, quorum
from raft.log import RaftLog
from raft.messages import AppendEntries, Heartbeat, HeartbeatResponse
from raft.progress import Progress
from raft.reads import LeaderReads, ReadRound

Patches = list[tuple[Any, str, Any]]


def vote_not_persisted() -> Patches:
    """1: the vote goes out before it is on disk."""

    def send(self: Raft, message: Any) -> None:
        target = self.messages if isinstance(message, VoteResponse) else self.messages_after_persist
        target.append(message)

    return [(Raft, "send_after_persist", send)]


def append_acknowledged_before_persist() -> Patches:
    """35: entries are acknowledged before they are on disk."""

    def send(self: Raft, message: Any) -> None:
        target = self.messages if isinstance(message, AppendResponse) else self.messages_after_persist
        target.append(message)

    return [(Raft, "send_after_persist", send)]


def vote_lost_on_step_down() -> Patches:
    """3: stepping down within a term forgets the vote."""
    original = Raft._reset

    def reset(self: Raft, term: int) -> None:
        original(self, term)
        self.vote = 0

    return [(Raft, "_reset", reset)]


def vote_without_log_check() -> Patches:
    """A vote for a candidate whose log is shorter (thesis 3.6.1)."""
    return [(RaftLog, "is_up_to_date", lambda self, last_index, last_term: True)]


def older_term_committed_by_counting() -> Patches:
    """11: the leader commits entries of earlier terms by counting (figure 3.7)."""

    def maybe_commit(raft: Raft) -> None:
        index = quorum.committed_index(raft.conf, lambda node: raft.progress[node].match)
        if raft.log.term(index) is not None:
            raft.log.commit_to(index)

    return [(leader, "maybe_commit", maybe_commit)]


def commit_beyond_the_message() -> Patches:
    """12: the follower commits min(leader's commit, its own last index)."""

    def append(raft: Raft, message: AppendEntries) -> None:
        log = raft.log
        if message.prev_index < log.committed:
            return
        last_new = log.try_append(message.prev_index, message.prev_term, message.entries)
        if last_new is None:
            hint = log.conflict_hint(message.prev_index, message.prev_term)
            response = AppendResponse(raft.id, message.sender, raft.term, message.prev_index, True, *hint)
            raft.send_after_persist(response)
            return
        follower.commit(raft, message.commit)
        raft.send_after_persist(AppendResponse(raft.id, message.sender, raft.term, last_new))

    return [(follower, "append", append)]


def match_goes_back() -> Patches:
    """13: an old reply moves match backwards."""

    def accepted(self: Progress, index: int) -> bool:
        self.next = max(self.next, index + 1)
        changed, self.match = index != self.match, index
        return changed

    return [(Progress, "accepted", accepted)]


def shorter_append_erases() -> Patches:
    """14: a late, shorter append cuts off what follows it."""
    original = RaftLog.try_append

    def try_append(self: RaftLog, prev_index: int, prev_term: int, entries: Any) -> int | None:
        last_new = original(self, prev_index, prev_term, entries)
        if last_new is not None and self.committed <= last_new < self.last_index:
            self._truncate_to(last_new)
        return last_new

    return [(RaftLog, "try_append", try_append)]


def conflict_not_truncated() -> Patches:
    """Entries of another term are kept where the leader's should stand."""

    def try_append(self: RaftLog, prev_index: int, prev_term: int, entries: Any) -> int | None:
        if self.term(prev_index) != prev_term:
            return None
        for entry in entries:
            if entry.index > self.last_index:
                self._entries.append(entry)
        return prev_index + len(entries)

    return [(RaftLog, "try_append", try_append)]


def prev_not_checked() -> Patches:
    """15: an append is taken without looking at what precedes it."""

    def term(self: RaftLog, index: int) -> int | None:
        offset = index - self.base - 1
        return self._entries[offset].term if 0 <= offset < len(self._entries) else None

    def try_append(self: RaftLog, prev_index: int, prev_term: int, entries: Any) -> int | None:
        if prev_index > self.last_index or prev_index < self.committed:
            return None
        if prev_index < self.last_index:
            self._truncate_to(prev_index)
        self.append(entries)
        return prev_index + len(entries)

    return [(RaftLog, "try_append", try_append)]


def self_counted_before_persist() -> Patches:
    """35: the leader counts its own copy before its disk has it."""

    def append(raft: Raft, batch: Any, kind: Any = 0) -> Any:
        last = original(raft, batch)
        raft.progress[raft.id].match = last.index
        raft.progress[raft.id].next = last.index + 1
        leader.maybe_commit(raft)
        return last

    original = leader.append
    return [(leader, "append", append)]


def self_vote_counted_before_persist() -> Patches:
    """A candidate counts its own vote before it is on disk."""
    original = candidate.stand

    def stand(raft: Raft, *, force: bool = False) -> None:
        original(raft, force=force)
        candidate.poll(raft, raft.id, granted=True)

    return [(candidate, "stand", stand)]


def overwritten_entry_counted() -> Patches:
    """18: the end of a write is believed though its entries were overwritten meanwhile (ABA)."""

    def written(self: RaftLog, last: Any) -> bool:
        self.durable = max(self.durable, min(last.index, self.last_index))
        return True

    return [(RaftLog, "written", written)]


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


def one_vote_is_enough() -> Patches:
    """A majority that is none."""

    def won(voters: Any, votes: Any) -> bool | None:
        granted = sum(1 for node in voters if votes.get(node) is True)
        return True if granted >= max(1, len(voters) // 2) else None

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


def snapshot_keeps_the_tail() -> Patches:
    """29: entries behind an installed snapshot are kept, though they may be somebody else's."""

    def restore(self: RaftLog, index: int, term: int) -> None:
        kept = [entry for entry in self._entries if entry.index > index]
        self.base, self.base_term = index, term
        self._entries = kept if kept and kept[0].index == index + 1 else []
        self.committed = self.last_index
        self.applied = self.taken = index
        self.handed = self.durable = self.last_index

    return [(RaftLog, "restore", restore)]


def committed_skipped() -> Patches:
    """19: paging through committed entries skips one."""
    original = RaftLog.next_committed

    def next_committed(self: RaftLog, *, bytes_max: int) -> Any:
        entries = original(self, bytes_max=bytes_max)
        return entries[1:] if len(entries) > 2 else entries

    return [(RaftLog, "next_committed", next_committed)]


def lost_append_never_resent() -> Patches:
    """17: nothing notices that an append was lost, and the follower stays behind."""
    original = leader.step

    def step(raft: Raft, message: Any) -> None:
        original(raft, message)
        if isinstance(message, HeartbeatResponse) and message.sender in raft.progress:
            raft.progress[message.sender].needs_nudge = False

    return [(leader, "step", step)]


def term_not_persisted() -> Patches:
    """2: a new term is not counted as something to write."""
    original = RawNode.ready

    def ready(self: RawNode) -> Any:
        taken = original(self)
        if taken.hard_state is not None and not taken.entries:
            taken.hard_state = None
        return taken

    return [(RawNode, "ready", ready)]


QUICK: list[Callable[[], Patches]] = [
    vote_not_persisted,
    append_acknowledged_before_persist,
    vote_lost_on_step_down,
    vote_without_log_check,
    commit_beyond_the_message,
    match_goes_back,
    conflict_not_truncated,
    self_counted_before_persist,
    read_without_a_round,
    read_before_own_commit,
    one_vote_is_enough,
    no_check_quorum,
    stale_term_obeyed,
    committed_skipped,
    lost_append_never_resent,
    term_not_persisted,
]
"""Found within seconds: part of every test run."""

SLOW: list[Callable[[], Patches]] = [shorter_append_erases, prev_not_checked, snapshot_keeps_the_tail]
"""Found within a minute: `make mutants`."""

SURVIVING: list[Callable[[], Patches]] = [
    older_term_committed_by_counting,
    self_vote_counted_before_persist,
    overwritten_entry_counted,
    read_round_reused,
]
"""Not found in 3,000 schedules: each needs a coincidence that the fault mix does not make likely yet. `make
mutants` tries them and says so; tests/unit/raft checks the code that each of them breaks directly."""


@contextmanager
def mutated(mutant: Callable[[], Patches]) -> Iterator[None]:
    """The package with one bug in it."""
    patches = [patch.object(owner, name, value) for owner, name, value in mutant()]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()
