"""A candidate, and before it a pre-candidate that only asks whether it could win (thesis 9.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft import follower, quorum
from raft.messages import (
    AppendEntries,
    Heartbeat,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.types import NOBODY, Role

if TYPE_CHECKING:
    from raft.raft import Raft


def ask_first(raft: Raft) -> None:
    raft.become_pre_candidate()
    log = raft.log
    for node in quorum.voters_of(raft.conf):
        if node != raft.id:
            raft.send(PreVoteRequest(raft.id, node, raft.term + 1, log.last_index, log.last_term))
    poll(raft, raft.id, granted=True)


def stand(raft: Raft, *, force: bool = False) -> None:
    """Votes for itself in a new term. That vote counts only once it is on disk (see self_vote_is_durable): a
    crash in between could otherwise give it away a second time."""
    raft.become_candidate()
    log = raft.log
    for node in quorum.voters_of(raft.conf):
        if node != raft.id:
            request = VoteRequest(raft.id, node, raft.term, log.last_index, log.last_term, force)
            raft.send_after_persist(request)


def self_vote_is_durable(raft: Raft) -> None:
    if raft.role == Role.CANDIDATE and raft.vote == raft.id:
        poll(raft, raft.id, granted=True)


def poll(raft: Raft, node: int, *, granted: bool) -> None:
    """Counts one answer, the first of each node, and acts on the result."""
    raft.votes.setdefault(node, granted)
    result = quorum.vote_result(raft.conf, raft.votes)
    if result is True:
        if raft.role == Role.PRE_CANDIDATE:
            stand(raft)
        else:
            raft.become_leader()
    elif result is False:
        raft.become_follower(raft.term, NOBODY)


def step(raft: Raft, message: Message) -> None:
    if isinstance(message, AppendEntries | Heartbeat | InstallSnapshot):
        # Somebody else has won this term.
        raft.become_follower(raft.term, message.sender)
        follower.step(raft, message)
    elif isinstance(message, VoteResponse):
        if raft.role == Role.CANDIDATE:
            poll(raft, message.sender, granted=message.granted)
    elif isinstance(message, PreVoteResponse):
        # A grant names the term asked for; any other is an answer to an older question (Xraft 33).
        asked_for = raft.term + 1 if message.granted else raft.term
        if raft.role == Role.PRE_CANDIDATE and message.term == asked_for:
            poll(raft, message.sender, granted=message.granted)
    elif isinstance(message, ReadIndexRequest):
        raft.send(ReadIndexResponse(raft.id, message.sender, raft.term, message.context, 0, False))
    elif isinstance(message, TimeoutNow):
        raft.campaign(force=True)
