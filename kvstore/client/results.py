"""What calls return: small values, keys and values as bytes. Built from messages here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2 as mvccpb


@dataclass(slots=True)
class Header:
    """Who answered, and at which revision and term."""

    cluster_id: int = 0
    member_id: int = 0
    revision: int = 0
    raft_term: int = 0


@dataclass(slots=True)
class KeyValue:
    key: bytes
    value: bytes
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    lease: int = 0


@dataclass(slots=True)
class RangeResult:
    """revision is the store's at the time of the answer, also when an older one was read.
    count is the number of keys in the range, whatever limit and filters left of them."""

    revision: int
    kvs: list[KeyValue]
    more: bool
    count: int
    header: Header = field(default_factory=Header)


@dataclass(slots=True)
class PutResult:
    revision: int
    prev_kv: KeyValue | None
    header: Header = field(default_factory=Header)


@dataclass(slots=True)
class DeleteResult:
    revision: int
    deleted: int
    prev_kvs: list[KeyValue]
    header: Header = field(default_factory=Header)


@dataclass(slots=True)
class TxnResult:
    """responses: one per operation of the branch that ran, in order."""

    revision: int
    succeeded: bool
    responses: list[OpResult]
    header: Header = field(default_factory=Header)


OpResult = RangeResult | PutResult | DeleteResult | TxnResult


@dataclass(slots=True)
class Event:
    type: Literal["PUT", "DELETE"]
    kv: KeyValue
    prev_kv: KeyValue | None = None


@dataclass(slots=True)
class WatchBatch:
    """revision: every event of the watch up to and including it has been delivered, with this batch.
    is_progress: no events, only that. A batch holds whole revisions, never part of one."""

    revision: int
    events: list[Event]
    is_progress: bool = False
    header: Header = field(default_factory=Header)


@dataclass(slots=True)
class Lease:
    """ttl_s is what the server granted, which may be more than was asked for."""

    id: int
    ttl_s: int


@dataclass(slots=True)
class LeaseStatus:
    """ttl_s is what is left, -1 when there is no such lease (any more)."""

    id: int
    ttl_s: int
    granted_ttl_s: int
    keys: list[bytes]


@dataclass(slots=True)
class Member:
    id: int
    name: str
    peer_urls: list[str]
    client_urls: list[str]
    is_learner: bool


@dataclass(slots=True)
class MemberStatus:
    endpoint: str
    member_id: int
    version: str
    leader: int
    revision: int
    raft_term: int
    raft_index: int
    raft_applied_index: int
    db_size_bytes: int
    db_size_in_use_bytes: int
    is_learner: bool
    errors: list[str]


def header(message: pb.ResponseHeader) -> Header:
    return Header(message.cluster_id, message.member_id, message.revision, message.raft_term)


def key_value(message: mvccpb.KeyValue) -> KeyValue:
    return KeyValue(
        message.key,
        message.value,
        message.create_revision,
        message.mod_revision,
        message.version,
        message.lease,
    )


def range_result(message: pb.RangeResponse) -> RangeResult:
    head = header(message.header)
    return RangeResult(head.revision, _key_values(message.kvs), message.more, message.count, head)


def put_result(message: pb.PutResponse) -> PutResult:
    head = header(message.header)
    previous = key_value(message.prev_kv) if message.HasField("prev_kv") else None
    return PutResult(head.revision, previous, head)


def delete_result(message: pb.DeleteRangeResponse) -> DeleteResult:
    head = header(message.header)
    return DeleteResult(head.revision, message.deleted, _key_values(message.prev_kvs), head)


def txn_result(message: pb.TxnResponse) -> TxnResult:
    head = header(message.header)
    return TxnResult(head.revision, message.succeeded, [_op_result(op) for op in message.responses], head)


def event(message: mvccpb.Event) -> Event:
    return Event(
        "DELETE" if message.type == mvccpb.Event.DELETE else "PUT",
        key_value(message.kv),
        key_value(message.prev_kv) if message.HasField("prev_kv") else None,
    )


def lease_status(message: pb.LeaseTimeToLiveResponse) -> LeaseStatus:
    return LeaseStatus(message.ID, message.TTL, message.grantedTTL, list(message.keys))


def member(message: pb.Member) -> Member:
    return Member(
        message.ID, message.name, list(message.peerURLs), list(message.clientURLs), message.isLearner
    )


def member_status(endpoint: str, message: pb.StatusResponse) -> MemberStatus:
    return MemberStatus(
        endpoint=endpoint,
        member_id=message.header.member_id,
        version=message.version,
        leader=message.leader,
        revision=message.header.revision,
        raft_term=message.raftTerm,
        raft_index=message.raftIndex,
        raft_applied_index=message.raftAppliedIndex,
        db_size_bytes=message.dbSize,
        db_size_in_use_bytes=message.dbSizeInUse,
        is_learner=message.isLearner,
        errors=list(message.errors),
    )


def _key_values(messages: Iterable[mvccpb.KeyValue]) -> list[KeyValue]:
    return [key_value(message) for message in messages]


def _op_result(op: pb.ResponseOp) -> OpResult:
    match op.WhichOneof("response"):
        case "response_range":
            return range_result(op.response_range)
        case "response_put":
            return put_result(op.response_put)
        case "response_delete_range":
            return delete_result(op.response_delete_range)
        case _:
            return txn_result(op.response_txn)
