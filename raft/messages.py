"""One class for each message. `sender`, `to` and `term` come first in all of them.

A message's term is its sender's, but for PreVoteRequest and a granted PreVoteResponse, which carry the term the
candidate would have: asking changes nobody's term.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from raft.types import Entry, Index, NodeID, SnapshotMeta, Term


@dataclass(slots=True)
class PreVoteRequest:
    """Would you vote for me in this term? (thesis 9.6)"""

    sender: NodeID
    to: NodeID
    term: Term
    last_index: Index
    last_term: Term


@dataclass(slots=True)
class PreVoteResponse:
    sender: NodeID
    to: NodeID
    term: Term
    granted: bool


@dataclass(slots=True)
class VoteRequest:
    """force: the leader itself asked the candidate to take over, so its lease does not protect it."""

    sender: NodeID
    to: NodeID
    term: Term
    last_index: Index
    last_term: Term
    force: bool = False


@dataclass(slots=True)
class VoteResponse:
    sender: NodeID
    to: NodeID
    term: Term
    granted: bool


@dataclass(slots=True)
class AppendEntries:
    """entries follow prev_index@prev_term without a gap; commit is the leader's."""

    sender: NodeID
    to: NodeID
    term: Term
    prev_index: Index
    prev_term: Term
    entries: list[Entry] = field(default_factory=list)
    commit: Index = 0


@dataclass(slots=True)
class AppendResponse:
    """Accepted: index is the last one known equal to the leader's, and durable here. Rejected: index is the
    prev_index that did not match, and the logs cannot agree after hint_index, whose term here is hint_term."""

    sender: NodeID
    to: NodeID
    term: Term
    index: Index
    reject: bool = False
    hint_index: Index = 0
    hint_term: Term = 0


@dataclass(slots=True)
class Heartbeat:
    """commit is at most what this follower is known to hold. context numbers a read round, or is 0."""

    sender: NodeID
    to: NodeID
    term: Term
    commit: Index
    context: int = 0


@dataclass(slots=True)
class HeartbeatResponse:
    sender: NodeID
    to: NodeID
    term: Term
    context: int = 0


@dataclass(slots=True)
class CommitNotice:
    """One-way: commit moved and there was nothing else to send. At most what this follower is known to hold."""

    sender: NodeID
    to: NodeID
    term: Term
    commit: Index


@dataclass(slots=True)
class InstallSnapshot:
    """The follower is behind the log's beginning. The driver carries the data, and hands this to the
    receiving node once all of it is on that member's disk."""

    sender: NodeID
    to: NodeID
    term: Term
    meta: SnapshotMeta


@dataclass(slots=True)
class ReadIndexRequest:
    sender: NodeID
    to: NodeID
    term: Term
    context: int


@dataclass(slots=True)
class ReadIndexResponse:
    sender: NodeID
    to: NodeID
    term: Term
    context: int
    index: Index
    ok: bool


@dataclass(slots=True)
class TimeoutNow:
    """The leader hands over: campaign at once (thesis 3.10)."""

    sender: NodeID
    to: NodeID
    term: Term


Message = (
    PreVoteRequest
    | PreVoteResponse
    | VoteRequest
    | VoteResponse
    | AppendEntries
    | AppendResponse
    | Heartbeat
    | HeartbeatResponse
    | CommitNotice
    | InstallSnapshot
    | ReadIndexRequest
    | ReadIndexResponse
    | TimeoutNow
)
