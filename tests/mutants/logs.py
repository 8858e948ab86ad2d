"""Seeded bugs, each one that a real store has had: log, commit and replication.
Patched in by tests, absent from the package.

The number a docstring begins with is the row of the catalogue in docs/verification.md.
"""

from __future__ import annotations

from typing import Any

from raft import (
    AppendEntries,
    AppendResponse,
    CommitNotice,
    Heartbeat,
    HeartbeatResponse,
    Raft,
    RawNode,
    follower,
    leader,
    membership,
    quorum,
)
from raft.log import RaftLog
from raft.progress import Progress, ProgressState
from tests.mutants.patches import Patches


def append_acknowledged_before_persist() -> Patches:
    """35: entries are acknowledged before they are on disk."""

    def send(self: Raft, message: Any) -> None:
        target = self.messages if isinstance(message, AppendResponse) else self.messages_after_persist
        target.append(message)

    return [(Raft, "send_after_persist", send)]


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
        last_new: int | None = original(self, prev_index, prev_term, entries)
        if last_new is not None and self.committed <= last_new < self.last_index:
            self._truncate_to(last_new)
        return last_new

    return [(RaftLog, "try_append", try_append)]


def conflict_not_truncated() -> Patches:
    """14: entries of another term are kept where the leader's should stand."""

    def try_append(self: RaftLog, prev_index: int, prev_term: int, entries: Any) -> int | None:
        if self.term(prev_index) != prev_term:
            return None
        for entry in entries:
            if entry.index > self.last_index:
                self.append([entry])
        return prev_index + len(entries)

    return [(RaftLog, "try_append", try_append)]


def prev_not_checked() -> Patches:
    """15: an append is taken without looking at what precedes it."""

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
        last = original(raft, batch, kind)
        own = raft.progress.get(raft.id)
        if own is not None:
            own.match, own.next = last.index, last.index + 1
            leader.maybe_commit(raft)
        return last

    original = leader.append
    return [(leader, "append", append)]


def overwritten_entry_counted() -> Patches:
    """18: the end of a write is believed though its entries were overwritten meanwhile (ABA)."""

    def written(self: RaftLog, last: Any) -> bool:
        self.durable = max(self.durable, min(last.index, self.last_index))
        return True

    return [(RaftLog, "written", written)]


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


def commit_goes_back() -> Patches:
    """12: commit follows whatever a message says."""

    def commit_to(self: RaftLog, index: int) -> bool:
        changed, self.committed = index != self.committed, max(index, self.base)
        return changed

    return [(RaftLog, "commit_to", commit_to)]


def heartbeat_commits_too_far() -> Patches:
    """12: a heartbeat carries the leader's commit, though the follower may hold other entries there."""

    def broadcast(raft: Raft, read_round: int) -> None:
        for node in membership.peers(raft.conf, raft.id):
            raft.send(Heartbeat(raft.id, node, raft.term, raft.log.committed, read_round))

    return [(leader, "broadcast_heartbeat", broadcast)]


def notice_commits_too_far() -> Patches:
    """12: a notice carries the leader's commit, though the follower may hold other entries there."""
    original = leader.flush

    def flush(raft: Raft) -> None:
        original(raft)
        for node in membership.peers(raft.conf, raft.id):
            progress = raft.progress[node]
            if raft.log.committed > progress.commit_sent:
                raft.send(CommitNotice(raft.id, node, raft.term, raft.log.committed))
                progress.commit_sent = raft.log.committed

    return [(leader, "flush", flush)]


def majority_one_short() -> Patches:
    """11: half of an even number of voters passes for a majority."""

    def committed(voters: Any, match: Any) -> int | None:
        if not voters:
            return None
        held: list[int] = sorted((match(node) for node in voters), reverse=True)
        return held[(len(voters) - 1) // 2]

    return [(quorum, "_committed", committed)]


def stale_acknowledgement_counted() -> Patches:
    """13: an acknowledgement of an older term counts in this one."""
    original = Raft._answer_lower_term

    def answer(self: Raft, message: Any) -> None:
        if isinstance(message, AppendResponse) and not message.reject and message.sender in self.progress:
            leader.step(self, message)
        else:
            original(self, message)

    return [(Raft, "_answer_lower_term", answer)]


def next_at_match() -> Patches:
    """13: next falls to match."""
    original = Progress.become_probe

    def become_probe(self: Progress) -> None:
        original(self)
        self.next = max(1, self.match)

    return [(Progress, "become_probe", become_probe)]


def rejection_not_heeded() -> Patches:
    """17: a refused append is sent again as it was."""
    return [(Progress, "rejected", lambda self, index, retry_after: False)]


def window_never_freed() -> Patches:
    """17: acknowledged messages stay in the window until it is full."""

    def accepted(self: Progress, index: int) -> bool:
        self.next = max(self.next, index + 1)
        if index <= self.match:
            return False
        self.match = index
        return True

    return [(Progress, "accepted", accepted)]


def probe_never_repeated() -> Patches:
    """17: a probe that was lost is waited for."""
    original = leader.step

    def step(raft: Raft, message: Any) -> None:
        progress = raft.progress.get(message.sender)
        sent = progress.probe_sent if progress is not None else False
        original(raft, message)
        if isinstance(message, HeartbeatResponse) and progress is not None:
            progress.probe_sent = sent

    return [(leader, "step", step)]


def lost_snapshot_waited_for() -> Patches:
    """17: a snapshot that did not arrive is waited for."""
    return [(RawNode, "report_snapshot", lambda self, node_id, ok: None)]


def nudge_without_probe() -> Patches:
    """17: a follower whose lost entries were compacted since is never sent anything again."""

    def nudge(raft: Raft, node: int, progress: Progress) -> None:
        if progress.state == ProgressState.REPLICATE:
            prev_term = raft.log.term(progress.next - 1)
            if prev_term is not None and progress.next - 1 <= progress.match:
                raft.send(AppendEntries(raft.id, node, raft.term, progress.next - 1, prev_term, [], 0))

    return [(leader, "_nudge", nudge)]


def overwritten_entries_not_written() -> Patches:
    """18: what replaces truncated entries counts as handed to the disk."""
    original = RaftLog._truncate_to

    def truncate(self: RaftLog, index: int) -> None:
        handed = self.handed
        original(self, index)
        self.handed = handed

    return [(RaftLog, "_truncate_to", truncate)]


def truncation_keeps_durable() -> Patches:
    """18: what replaces truncated entries counts as durable."""
    original = RaftLog._truncate_to

    def truncate(self: RaftLog, index: int) -> None:
        durable = self.durable
        original(self, index)
        self.durable = durable

    return [(RaftLog, "_truncate_to", truncate)]


def committed_repeated() -> Patches:
    """19: paging through committed entries gives one twice."""
    original = RaftLog.next_committed

    def next_committed(self: RaftLog, *, bytes_max: int) -> Any:
        entries = original(self, bytes_max=bytes_max)
        if len(entries) > 1:
            self.taken -= 1
        return entries

    return [(RaftLog, "next_committed", next_committed)]


def own_disk_taken_for_done() -> Patches:
    """35: the leader counts what it has handed to its disk."""

    def self_written(raft: Raft) -> None:
        own = raft.progress.get(raft.id)
        if own is not None and raft.log.handed > own.match:
            own.match = raft.log.handed
            own.next = own.match + 1
            leader.maybe_commit(raft)

    return [(leader, "self_written", self_written)]


def persisted_too_much() -> Patches:
    """35: the end of one write is taken for the end of all."""
    original = RawNode.persisted

    def persisted(self: RawNode, number: int) -> None:
        last = self._writing[-1].number if self._writing else number
        original(self, max(number, last))

    return [(RawNode, "persisted", persisted)]


def commit_lost_at_truncation() -> Patches:
    """16: an entry that is committed here is cut off when a leader sends another."""

    def truncate(self: RaftLog, index: int) -> None:
        del self._entries[index - self.base :]
        while len(self.configs) > 1 and self.configs[-1][0] > index:
            self.configs.pop()
        self.handed = min(self.handed, index)
        self.durable = min(self.durable, index)

    def is_up_to_date(self: RaftLog, last_index: int, last_term: int) -> bool:
        return last_term >= self.last_term

    return [(RaftLog, "_truncate_to", truncate), (RaftLog, "is_up_to_date", is_up_to_date)]
