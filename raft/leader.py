"""A leader: replicates its log, commits what a quorum has written, answers reads, and gives up without a quorum.

Nothing is sent while stepping: flush() looks, when has_ready() is asked, at what each follower lacks. So a turn
of the driver's loop costs one message a follower, however much arrived in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raft import membership, quorum
from raft.errors import ProposalDropped
from raft.membership import Change
from raft.messages import (
    AppendEntries,
    AppendResponse,
    CommitNotice,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    ReadIndexRequest,
    TimeoutNow,
)
from raft.progress import Progress, ProgressState
from raft.trace import Committed, ConfigChanged, SteppedDown
from raft.types import NOBODY, ConfState, Entry, EntryID, EntryKind, NodeID, SnapshotMeta

if TYPE_CHECKING:
    from raft.raft import Raft


def take_office(raft: Raft) -> None:
    """The no-op entry lets the leader commit what earlier terms left behind (thesis 3.6.2, figure 3.7)."""
    next_index = raft.log.last_index + 1
    raft.progress = {node: Progress(next_index) for node in quorum.members_of(raft.conf)}
    own = raft.progress.get(raft.id)
    if own is not None:
        own.match = raft.log.durable
    tail = raft.log.committed + 1
    if tail <= raft.log.last_index:
        inherited = raft.log.slice(tail, raft.log.last_index, bytes_max=1 << 62)
        raft.uncommitted_bytes = sum(len(entry.data) for entry in inherited)
    append(raft, [b""])


def resign(raft: Raft) -> None:
    for node, context in raft.reads.close():
        raft.answer_read(node, context, 0, ok=False)


def change_config(raft: Raft, changes: Sequence[Change], context: bytes) -> EntryID:
    """One change at a time, and none before an entry of this term is committed: until then an older leader's
    configuration may still be somewhere, and two changes from one origin need not overlap (raft-dev 2015)."""
    log = raft.log
    if log.conf_index > log.committed or raft.conf.voters_outgoing:
        raise ProposalDropped(raft.leader_id, "another change of membership is under way")
    if log.term(log.committed) != raft.term:
        raise ProposalDropped(raft.leader_id, "nothing of this term is committed yet")
    conf = membership.changed(raft.conf, changes)
    return _append_config(raft, conf, context)


def _append_config(raft: Raft, conf: ConfState, context: bytes) -> EntryID:
    next_index = raft.log.last_index + 1
    last = append(raft, [membership.encode(conf, context)], EntryKind.CONFIG)
    members = quorum.members_of(conf)
    for node in members:
        if node not in raft.progress:
            raft.progress[node] = progress = Progress(next_index)
            progress.recent_active = True  # it gets an election timeout to be heard from
            if node == raft.id:
                progress.match = raft.log.durable
    for node in [node for node in raft.progress if node not in members]:
        del raft.progress[node]
    if raft.transfer_to not in conf.voters:
        raft.transfer_to = NOBODY
    raft.emit(ConfigChanged(raft.id, raft.term, last.index, conf))
    return last


def _config_committed(raft: Raft) -> None:
    """Leaves a joint configuration, and hands over where this node has no vote any more (thesis 4.2.2)."""
    conf = raft.conf
    if raft.log.conf_index > raft.log.committed:
        return
    if conf.voters_outgoing:
        if conf.auto_leave:
            _append_config(raft, membership.left(conf), b"")
    elif raft.id not in conf.voters and not raft.transfer_to:
        # Handing over spares the others an election timeout; tick() gives up leading if it takes as long.
        transfer(raft, max(conf.voters, key=lambda node: raft.progress[node].match))


def append(raft: Raft, batch: Sequence[bytes], kind: EntryKind = EntryKind.NORMAL) -> EntryID:
    index, term = raft.log.last_index, raft.term
    raft.log.append([Entry(index + at, term, data, kind) for at, data in enumerate(batch, 1)])
    raft.uncommitted_bytes += sum(map(len, batch))
    return raft.log.last_id()


def tick(raft: Raft) -> None:
    raft.heartbeat_elapsed += 1
    raft.election_elapsed += 1
    if raft.transfer_to:
        raft.transfer_elapsed += 1
        if raft.transfer_elapsed >= raft.config.election_ticks:
            raft.transfer_to = NOBODY  # the successor did not make it in time: go on leading
            if raft.id not in raft.conf.voters and raft.log.conf_index <= raft.log.committed:
                raft.become_follower(raft.term, NOBODY)
                return
    if raft.election_elapsed >= raft.config.election_ticks:
        raft.election_elapsed = 0
        if raft.config.check_quorum and not _hears_quorum(raft):
            raft.emit(SteppedDown(raft.id, raft.term))
            raft.become_follower(raft.term, NOBODY)
            return
    if raft.heartbeat_elapsed >= raft.config.heartbeat_ticks:
        raft.heartbeat_elapsed = 0
        broadcast_heartbeat(raft, raft.reads.open_round)


def _hears_quorum(raft: Raft) -> bool:
    """Whether a quorum has been heard from since last asked (thesis 6.2)."""
    active = {node for node, progress in raft.progress.items() if progress.recent_active}
    for progress in raft.progress.values():
        progress.recent_active = False
    return quorum.has_quorum(raft.conf, active | {raft.id})


def broadcast_heartbeat(raft: Raft, read_round: int) -> None:
    for node in membership.peers(raft.conf, raft.id):
        commit = min(raft.progress[node].match, raft.log.committed)
        raft.send(Heartbeat(raft.id, node, raft.term, commit, read_round))


def step(raft: Raft, message: Message) -> None:
    progress = raft.progress.get(message.sender)
    if progress is None:
        return
    if isinstance(message, AppendResponse):
        progress.recent_active = True
        _handle_append_response(raft, message, progress)
    elif isinstance(message, HeartbeatResponse):
        progress.recent_active = True
        progress.probe_sent = False
        progress.needs_nudge = progress.match < raft.log.last_index
        _handle_read_acknowledgement(raft, message)
    elif isinstance(message, ReadIndexRequest):
        raft.reads.joining.append((message.sender, message.context))


def _handle_append_response(raft: Raft, message: AppendResponse, progress: Progress) -> None:
    log = raft.log
    if message.reject:
        retry_after = message.hint_index
        if message.hint_term > 0:
            retry_after, _ = log.conflict_hint(message.hint_index, message.hint_term)
        progress.rejected(message.index, max(0, retry_after))
        return
    if message.index > log.last_index:
        return  # no follower of this term can hold that: not from one of ours
    advanced = progress.accepted(message.index)
    if progress.state == ProgressState.PROBE and (advanced or message.index == progress.match):
        progress.become_replicate()
    elif progress.state == ProgressState.SNAPSHOT and progress.match >= progress.pending_snapshot:
        progress.become_probe()
        progress.become_replicate()
    if advanced and message.index > log.committed:
        maybe_commit(raft)
    if message.sender == raft.transfer_to and progress.match == log.last_index:
        raft.send(TimeoutNow(raft.id, message.sender, raft.term))


def self_written(raft: Raft) -> None:
    """The leader's own disk has caught up: it counts itself only now."""
    own = raft.progress.get(raft.id)
    if own is not None and raft.log.durable > own.match:
        own.match = raft.log.durable
        own.next = own.match + 1
        if own.match > raft.log.committed:
            maybe_commit(raft)


def maybe_commit(raft: Raft) -> None:
    """Only entries of this term are committed by counting; older ones come along (thesis 3.6.2)."""
    progress = raft.progress
    index = quorum.committed_index(raft.conf, lambda node: progress[node].match)
    if raft.log.term(index) == raft.term and raft.log.commit_to(index):
        if raft.trace is not None:
            raft.emit(Committed(raft.id, raft.term, index))
        _config_committed(raft)


def _handle_read_acknowledgement(raft: Raft, message: HeartbeatResponse) -> None:
    if not message.context:
        return
    confirmed = raft.reads.acknowledge(message.sender, message.context, leader=raft.id, conf=raft.conf)
    for round_ in confirmed:
        for node, context in round_.requests:
            raft.answer_read(node, context, round_.index, ok=True)


def flush(raft: Raft) -> None:
    """Of has_ready(): starts the reads that joined and sends each follower what it lacks. Asked several
    times a put, so a follower that lacks nothing costs a few comparisons and no call."""
    if raft.reads.joining:
        _start_reads(raft)
    log = raft.log
    last, committed = log.last_index, log.committed
    for node, progress in raft.followers():
        if (
            progress.next > last
            and progress.state is ProgressState.REPLICATE
            and not progress.needs_nudge
            and (progress.commit_sent >= committed or progress.commit_sent >= progress.match)
        ):
            continue
        sent = _send_appends(raft, node, progress)
        commit = min(progress.match, committed)
        if not sent and commit > progress.commit_sent:
            raft.send(CommitNotice(raft.id, node, raft.term, commit))
            progress.commit_sent = commit


def _start_reads(raft: Raft) -> None:
    reads, log = raft.reads, raft.log
    if not reads.joining or log.term(log.committed) != raft.term:
        return
    index = log.committed
    if quorum.has_quorum(raft.conf, {raft.id}):
        for node, context in reads.joining:
            raft.answer_read(node, context, index, ok=True)
        reads.joining = []
        return
    broadcast_heartbeat(raft, reads.start(index))


def _send_appends(raft: Raft, node: NodeID, progress: Progress) -> bool:
    """Everything the follower lacks, as far as its window allows. True where a message went out."""
    config, log, sent = raft.config, raft.log, False
    if progress.needs_nudge:
        progress.needs_nudge = False
        _nudge(raft, node, progress)
    while not progress.is_paused(
        messages_max=config.max_inflight_appends, bytes_max=config.max_inflight_bytes
    ):
        if progress.next > log.last_index and (sent or progress.state == ProgressState.REPLICATE):
            break
        prev_term = log.term(progress.next - 1)
        if prev_term is None:
            return _send_snapshot(raft, node, progress) or sent
        entries = log.slice(progress.next, log.last_index, bytes_max=config.max_append_bytes)
        raft.send(
            AppendEntries(raft.id, node, raft.term, progress.next - 1, prev_term, entries, log.committed)
        )
        last = entries[-1].index if entries else progress.next - 1
        progress.commit_sent = max(progress.commit_sent, min(log.committed, last))
        progress.sent(last, sum(len(entry.data) for entry in entries))
        sent = True
    return sent


def _nudge(raft: Raft, node: NodeID, progress: Progress) -> None:
    """An empty append past everything sent: a follower that lost some of it refuses, and is probed anew. Where
    the log no longer reaches back there, only a probe finds out that a snapshot is needed."""
    if progress.state != ProgressState.REPLICATE:
        return
    prev_index = progress.next - 1
    prev_term = raft.log.term(prev_index)
    if prev_term is None:
        progress.become_probe()
    else:
        raft.send(AppendEntries(raft.id, node, raft.term, prev_index, prev_term, [], raft.log.committed))


def _send_snapshot(raft: Raft, node: NodeID, progress: Progress) -> bool:
    """Asks the driver to send one. Not to a follower that is not there: it would be made for nothing."""
    if not progress.recent_active:
        return False
    term = raft.log.term(raft.log.applied)
    assert term is not None, f"applied {raft.log.applied} is not in the log after {raft.log.base}"
    meta = SnapshotMeta(raft.log.applied, term, raft.log.conf_at(raft.log.applied))
    progress.become_snapshot(meta.index)
    raft.send(InstallSnapshot(raft.id, node, raft.term, meta))
    return True


def transfer(raft: Raft, to: NodeID) -> None:
    """Hands over to a voter, once its log is complete (thesis 3.10). Proposals are refused meanwhile."""
    progress = raft.progress.get(to)
    if progress is None or to == raft.id or to not in raft.conf.voters:
        return
    raft.transfer_to = to
    raft.transfer_elapsed = 0  # a clock of its own: handing over must not put off the check for a quorum
    if progress.match == raft.log.last_index:
        raft.send(TimeoutNow(raft.id, to, raft.term))
