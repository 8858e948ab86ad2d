"""A follower: takes entries, snapshots and commit indices from the leader of its term."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft import membership
from raft.messages import (
    AppendEntries,
    AppendResponse,
    CommitNotice,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
)
from raft.reads import ReadState
from raft.trace import Committed, Restored
from raft.types import EntryKind, Role

if TYPE_CHECKING:
    from raft.raft import Raft


def step(raft: Raft, message: Message) -> None:
    if isinstance(message, AppendEntries):
        hear(raft, message.sender)
        append(raft, message)
    elif isinstance(message, Heartbeat):
        hear(raft, message.sender)
        commit(raft, message.commit)
        raft.send(HeartbeatResponse(raft.id, message.sender, raft.term, message.context))
    elif isinstance(message, CommitNotice):
        if message.sender == raft.leader_id:
            commit(raft, message.commit)
    elif isinstance(message, InstallSnapshot):
        hear(raft, message.sender)
        install(raft, message)
    elif isinstance(message, ReadIndexResponse):
        _finish_read(raft, message)
    elif isinstance(message, ReadIndexRequest):
        raft.send(ReadIndexResponse(raft.id, message.sender, raft.term, message.context, 0, False))
    elif isinstance(message, TimeoutNow):
        raft.campaign(force=True)


def hear(raft: Raft, leader_id: int) -> None:
    """The leader of this term spoke. A term has one leader, so only the first of these changes anything."""
    raft.election_elapsed = 0
    if raft.leader_id != leader_id or raft.role != Role.FOLLOWER:
        raft.become_follower(raft.term, leader_id)


def append(raft: Raft, message: AppendEntries) -> None:
    """Thesis 3.5, and the answer that skips a whole conflicting run at once."""
    log = raft.log
    if not _is_well_formed(message):
        return
    if message.prev_index < log.committed:
        raft.send_after_persist(AppendResponse(raft.id, message.sender, raft.term, log.committed))
        return
    last_new = log.try_append(message.prev_index, message.prev_term, message.entries)
    if last_new is None:
        hint_index, hint_term = log.conflict_hint(message.prev_index, message.prev_term)
        raft.send_after_persist(
            AppendResponse(
                raft.id, message.sender, raft.term, message.prev_index, True, hint_index, hint_term
            )
        )
        return
    # Only what this message proves equal may be committed: beyond last_new the logs may still differ.
    commit(raft, min(message.commit, last_new))
    raft.send_after_persist(AppendResponse(raft.id, message.sender, raft.term, last_new))


def _is_well_formed(message: AppendEntries) -> bool:
    """Whether a peer's entries follow prev without a gap, with terms that never fall nor pass its own, and
    those that say so are configurations."""
    index, term = message.prev_index, message.prev_term
    if index < 0 or term < 0:
        return False
    for entry in message.entries:
        if entry.index != index + 1 or not term <= entry.term <= message.term:
            return False
        if entry.kind == EntryKind.CONFIG and not _is_config(entry.data):
            return False
        index, term = entry.index, entry.term
    return True


def _is_config(data: bytes) -> bool:
    try:
        membership.decode(data)
    except membership.MalformedConfig:
        return False
    return True


def commit(raft: Raft, index: int) -> None:
    """Commits what the leader says is committed, as far as this log goes."""
    if raft.log.commit_to(min(index, raft.log.last_index)) and raft.trace is not None:
        raft.emit(Committed(raft.id, raft.term, raft.log.committed))


def install(raft: Raft, message: InstallSnapshot) -> None:
    """Begins anew at the snapshot, unless this log already holds what it stands for."""
    log, meta = raft.log, message.meta
    if meta.index <= log.committed:
        raft.send_after_persist(AppendResponse(raft.id, message.sender, raft.term, log.committed))
        return
    if log.term(meta.index) == meta.term:
        commit(raft, meta.index)
        raft.send_after_persist(AppendResponse(raft.id, message.sender, raft.term, meta.index))
        return
    log.restore(meta.index, meta.term, meta.conf_state)
    raft.restored = meta
    if raft.trace is not None:
        raft.emit(Restored(raft.id, raft.term, meta.index))
    raft.send_after_persist(AppendResponse(raft.id, message.sender, raft.term, meta.index))


def forward_read(raft: Raft, context: int) -> None:
    raft.forwarded_reads.add(context)
    raft.send(ReadIndexRequest(raft.id, raft.leader_id, raft.term, context))


def _finish_read(raft: Raft, message: ReadIndexResponse) -> None:
    if message.context not in raft.forwarded_reads or message.sender != raft.leader_id:
        return
    raft.forwarded_reads.discard(message.context)
    if message.ok:
        raft.read_states.append(ReadState(message.context, message.index))
    else:
        raft.reads_failed.append(message.context)
