"""Seeded bugs, each one that a real store has had: changes of membership and snapshots.
Patched in by tests, absent from the package.

The number a docstring begins with is the row of the catalogue in docs/verification.md.
"""

from __future__ import annotations

from typing import Any

from kvstore.replication import recovery
from raft import (
    AppendResponse,
    ConfState,
    EntryKind,
    InstallSnapshot,
    ProposalDropped,
    Raft,
    RawNode,
    SnapshotMeta,
    follower,
    leader,
    membership,
    quorum,
)
from raft.log import RaftLog
from raft.progress import Progress
from tests.mutants.patches import Patches
from tests.simulation import node as simulated


def snapshot_keeps_the_tail() -> Patches:
    """29: entries behind an installed snapshot are kept, though they may be somebody else's."""

    def restore(self: RaftLog, index: int, term: int, conf: Any) -> None:
        kept = [entry for entry in self._entries if entry.index > index]
        self.base, self.base_term = index, term
        self.configs = [(index, conf)]
        self._entries = kept if kept and kept[0].index == index + 1 else []
        self.committed = self.last_index
        self.applied = self.taken = index
        self.handed = self.durable = self.last_index

    return [(RaftLog, "restore", restore)]


def change_while_another_is_pending() -> Patches:
    """26: a second change is proposed before the first is committed."""

    def change(raft: Raft, changes: Any, context: bytes) -> Any:
        conf = raft.conf if not raft.conf.voters_outgoing else membership.left(raft.conf)
        return leader._append_config(raft, membership.changed(conf, changes), context)

    return [(leader, "change_config", change)]


def change_before_own_commit() -> Patches:
    """26: a new leader changes the configuration before anything of its term is committed."""

    def change(raft: Raft, changes: Any, context: bytes) -> Any:
        if raft.log.conf_index > raft.log.committed or raft.conf.voters_outgoing:
            raise ProposalDropped(raft.leader_id, "another change of membership is under way")
        return leader._append_config(raft, membership.changed(raft.conf, changes), context)

    return [(leader, "change_config", change)]


def active_when_committed() -> Patches:
    """27: a configuration is in force when it is committed, though the log holds a newer one."""

    def conf(self: RaftLog) -> ConfState:
        committed = [each for index, each in self.configs if index <= self.committed]
        return committed[-1] if committed else self.configs[0][1]

    return [(RaftLog, "conf", property(conf))]


def configuration_not_rolled_back() -> Patches:
    """27: a truncated configuration stays in force."""

    def truncate(self: RaftLog, index: int) -> None:
        del self._entries[index - self.base :]
        self.handed = min(self.handed, index)
        self.durable = min(self.durable, index)

    return [(RaftLog, "_truncate_to", truncate)]


def joint_never_left() -> Patches:
    """28: nobody leaves a joint configuration."""

    def committed(raft: Raft) -> None:
        conf = raft.conf
        if (
            raft.log.conf_index <= raft.log.committed
            and not conf.voters_outgoing
            and raft.id not in conf.voters
        ):
            raft.become_follower(raft.term, 0)

    return [(leader, "_config_committed", committed)]


def joint_left_at_once() -> Patches:
    """28: a joint configuration is left before it is committed."""
    original = leader.change_config

    def change(raft: Raft, changes: Any, context: bytes) -> Any:
        last = original(raft, changes, context)
        if raft.conf.voters_outgoing:
            leader._append_config(raft, membership.left(raft.conf), b"")
        return last

    return [(leader, "change_config", change)]


def commit_by_the_new_half() -> Patches:
    """27: in a joint configuration the new majority commits alone."""

    def committed(conf: ConfState, match: Any) -> int:
        return quorum._committed(conf.voters, match) or 0

    return [(quorum, "committed_index", committed)]


def elected_by_the_new_half() -> Patches:
    """27: in a joint configuration the new majority elects alone."""
    return [(quorum, "vote_result", lambda conf, votes: quorum._won(conf.voters, votes))]


def several_at_once_without_joint() -> Patches:
    """26: several voters change in one step, so that old and new majority need not meet."""
    original = membership.changed

    def changed(conf: ConfState, changes: Any) -> ConfState:
        new = original(conf, changes)
        return membership.left(new) if new.voters_outgoing else new

    return [(membership, "changed", changed)]


def configuration_forgotten_at_restart() -> Patches:
    """28: configurations behind the applied index are not read from the log."""
    original = RaftLog.__init__

    def init(self: RaftLog, **fields: Any) -> None:
        original(self, **fields)
        del self.configs[1:]

    return [(RaftLog, "__init__", init)]


def snapshot_with_the_newest_configuration() -> Patches:
    """29: a snapshot says the configuration of the leader's log, not the one at its own index."""

    def meta(raft: Raft, node: int, progress: Progress) -> bool:
        term = raft.log.term(raft.log.applied)
        if not progress.recent_active or term is None:
            return False
        progress.become_snapshot(raft.log.applied)
        snapshot = SnapshotMeta(raft.log.applied, term, raft.conf)
        raft.send(InstallSnapshot(raft.id, node, raft.term, snapshot))
        return True

    def carry(self: Any, index: int) -> Any:
        at, term, _ = state_at(self, index)
        conf = self.raw.conf if self.raw is not None else _
        return at, term, conf

    state_at = simulated.SimNode.state_at
    return [(leader, "_send_snapshot", meta), (simulated.SimNode, "state_at", carry)]


def snapshot_without_its_configuration() -> Patches:
    """29: an installed snapshot does not bring its configuration."""
    original = RaftLog.restore

    def restore(self: RaftLog, index: int, term: int, conf: ConfState) -> None:
        original(self, index, term, self.conf)

    return [(RaftLog, "restore", restore)]


def snapshot_acknowledged_before_it_is_durable() -> Patches:
    """32: a snapshot is acknowledged before it is on disk."""
    original = follower.install

    def install(raft: Raft, message: InstallSnapshot) -> None:
        waiting = len(raft.messages_after_persist)
        original(raft, message)
        answers = raft.messages_after_persist[waiting:]
        del raft.messages_after_persist[waiting:]
        raft.messages += answers

    return [(follower, "install", install)]


def snapshot_lowers_commit() -> Patches:
    """29: a late snapshot takes the log back."""

    def install(raft: Raft, message: InstallSnapshot) -> None:
        meta = message.meta
        raft.log._entries.clear()
        raft.log.configs = [(meta.index, meta.conf_state)]
        raft.log.base, raft.log.base_term = meta.index, meta.term
        log = raft.log
        log.committed = log.applied = log.taken = log.handed = log.durable = meta.index
        raft.restored = meta
        raft.send_after_persist(AppendResponse(raft.id, message.sender, raft.term, meta.index))

    return [(follower, "install", install)]


def learners_commit() -> Patches:
    """34: learners count when an entry is committed."""

    def committed(conf: ConfState, match: Any) -> int:
        voters = (*conf.voters, *conf.learners)
        halves = [quorum._committed(voters, match), quorum._committed(conf.voters_outgoing, match)]
        return min((index for index in halves if index is not None), default=0)

    return [(quorum, "committed_index", committed)]


def learners_elect() -> Patches:
    """34: learners stand for election and vote."""

    def voters_of(conf: ConfState) -> tuple[int, ...]:
        return tuple(sorted({*conf.voters, *conf.voters_outgoing, *conf.learners}))

    def vote_result(conf: ConfState, votes: Any) -> bool | None:
        return quorum._won((*conf.voters, *conf.learners), votes)

    return [(quorum, "voters_of", voters_of), (quorum, "vote_result", vote_result)]


def new_member_taken_for_complete() -> Patches:
    """34: a member that is new counts as holding the whole log."""
    original = leader._append_config

    def append(raft: Raft, conf: ConfState, context: bytes) -> Any:
        known = set(raft.progress)
        last = original(raft, conf, context)
        for node in set(raft.progress) - known:
            raft.progress[node].match = last.index
            raft.progress[node].next = last.index + 1
        return last

    return [(leader, "_append_config", append)]


def removed_member_still_sent_to() -> Patches:
    """33: a leader keeps replicating to who was removed, and counts with it."""
    original = leader._append_config

    def append(raft: Raft, conf: ConfState, context: bytes) -> Any:
        before = dict(raft.progress)
        last = original(raft, conf, context)
        raft.progress |= {node: each for node, each in before.items() if node not in raft.progress}
        return last

    return [(leader, "_append_config", append)]


def removed_leader_leads_on() -> Patches:
    """33: a leader that was removed goes on leading."""

    def committed(raft: Raft) -> None:
        conf = raft.conf
        if raft.log.conf_index <= raft.log.committed and conf.voters_outgoing:
            leader._append_config(raft, membership.left(conf), b"")

    return [(leader, "_config_committed", committed)]


def removed_before_it_is_committed() -> Patches:
    """33: who is not in its newest configuration never stands, though that may not be committed and only its
    log is long enough."""
    return [(Raft, "_may_stand", lambda self: self.id in quorum.voters_of(self.conf))]


def demotion_forgets_the_old_vote() -> Patches:
    """27: a voter that becomes a learner loses its vote in the old half of a joint configuration."""
    original = membership.changed

    def changed(conf: ConfState, changes: Any) -> ConfState:
        new = original(conf, changes)
        outgoing = tuple(node for node in new.voters_outgoing if node in new.voters)
        return ConfState(new.voters, outgoing, new.learners, new.learners_next, new.auto_leave)

    return [(membership, "changed", changed)]


def commit_not_clamped_at_restart() -> Patches:
    """16: a node comes back with a commit beyond its log."""
    original = RawNode.__init__

    def init(self: RawNode, config: Any, *, hard_state: Any, **rest: Any) -> None:
        original(self, config, hard_state=hard_state, **rest)
        raft = self.raft
        if raft.log.last_index:
            raft.log.committed = raft.log.taken = raft.log.last_index

    return [(RawNode, "__init__", init)]


def log_kept_where_state_is_ahead() -> Patches:
    """31: after a restart the log's entries are kept though state stands elsewhere."""
    original = recovery.meet

    def meet(recovered: Any, **state: Any) -> Any:
        start, gave_way = original(recovered, **state)
        if not gave_way:
            return start, False
        kept, _ = original(
            recovered, applied=recovered.base_index, term=recovered.base_term, conf=state["conf"]
        )
        return kept, False

    return [(simulated, "meet", meet)]


def no_op_taken_for_a_configuration() -> Patches:
    """30: a configuration that is appended again brings an older one back."""
    original = RaftLog._note_configs

    def note(self: RaftLog, entries: Any) -> None:
        before = self.configs[0]
        entries = list(entries)
        original(self, entries)
        if any(entry.kind == EntryKind.CONFIG for entry in entries) and len(self.configs) > 2:
            self.configs.append((self.configs[-1][0], before[1]))

    return [(RaftLog, "_note_configs", note)]
