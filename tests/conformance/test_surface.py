"""Corners of the API that clients lean on, asked of a real etcd and of us: the same answer, or the same refusal."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.conformance.etcd_process import Server, running_cluster


class Calls:
    def __init__(self, endpoint: str) -> None:
        self.channel = grpc.insecure_channel(endpoint)

    def __call__(self, path: str, request: Any, reply: Any) -> Any:
        """The reply, or (code, text)."""
        method: Any = self.channel.unary_unary(
            "/etcdserverpb." + path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        try:
            return method(request, timeout=20)
        except grpc.RpcError as problem:
            return problem.code().name, problem.details()

    def stream(self, path: str, requests: list[Any], reply: Any, count: int) -> list[Any]:
        """The first replies; the stream stays open meanwhile."""
        out: queue.Queue[Any] = queue.Queue()
        for request in requests:
            out.put(request)
        method: Any = self.channel.stream_stream(
            "/etcdserverpb." + path,
            request_serializer=lambda each: each.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        replies = method(iter(out.get, None), timeout=20)
        found = [next(replies) for _ in range(count)]
        replies.cancel()
        out.put(None)
        return found

    def put(self, key: bytes, value: bytes = b"", **fields: Any) -> Any:
        return self("KV/Put", pb.PutRequest(key=key, value=value, **fields), pb.PutResponse)

    def get(self, key: bytes, **fields: Any) -> Any:
        return self("KV/Range", pb.RangeRequest(key=key, **fields), pb.RangeResponse)

    def txn(self, *success: pb.RequestOp, **fields: Any) -> Any:
        return self("KV/Txn", pb.TxnRequest(success=success, **fields), pb.TxnResponse)

    def compact(self, revision: int) -> Any:
        return self("KV/Compact", pb.CompactionRequest(revision=revision), pb.CompactionResponse)

    def watch(self, *requests: pb.WatchRequest, count: int) -> list[Any]:
        replies = self.stream("Watch/Watch", list(requests), pb.WatchResponse, count)
        return [
            (each.watch_id, each.created, each.canceled, each.compact_revision, each.cancel_reason)
            for each in replies
        ]

    def grant(self, ttl: int, lease_id: int = 0) -> Any:
        reply = self("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=ttl, ID=lease_id), pb.LeaseGrantResponse)
        return reply if isinstance(reply, tuple) else reply.TTL


def put_op(key: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key))


def range_op(key: bytes, revision: int) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, revision=revision))


def create(**fields: Any) -> pb.WatchRequest:
    return pb.WatchRequest(create_request=pb.WatchCreateRequest(**fields))


def answers(server: Server) -> dict[str, Any]:
    with running_cluster(server) as cluster:
        calls = Calls(cluster.endpoints[0])
        found: dict[str, Any] = {}
        for ask in (_headers, _ranges, _transactions, _sizes, _compaction, _watches, _leases, _others):
            found.update(ask(calls))
        calls.channel.close()
        return found


def _headers(calls: Calls) -> Iterator[tuple[str, Any]]:
    members = calls("Cluster/MemberList", pb.MemberListRequest(), pb.MemberListResponse)
    yield "MemberList has no revision", members.header.revision
    defragmented = calls("Maintenance/Defragment", pb.DefragmentRequest(), pb.DefragmentResponse)
    yield "Defragment has no header", defragmented.HasField("header")
    moved = pb.MoveLeaderRequest(targetID=members.members[0].ID)
    yield "MoveLeader", calls("Maintenance/MoveLeader", moved, pb.MoveLeaderResponse).HasField("header")
    inner = pb.RequestOp(request_txn=pb.TxnRequest(success=[put_op(b"n")]))
    nested = calls.txn(inner).responses[0].response_txn
    yield "a nested header is empty", nested.header.SerializeToString()
    yield (
        "an operation's has a revision alone",
        nested.responses[0].response_put.header.ListFields()[0][1] > 1,
    )


def _ranges(calls: Calls) -> Iterator[tuple[str, Any]]:
    for key, value in ((b"s/a", b"3"), (b"s/b", b"2"), (b"s/c", b"1"), (b"s/d", b"0")):
        calls.put(key, value)
    by_value = calls.get(b"s/", range_end=b"s0", sort_target=pb.RangeRequest.VALUE, limit=2)
    yield "sorted without an order", [kv.key for kv in by_value.kvs]
    yield "a negative revision is the newest", calls.get(b"s/a", revision=-1).count
    yield "key above range_end", calls.get(b"b", range_end=b"a").count
    yield "a future revision", calls.get(b"s/a", revision=10_000)
    yield "no key", calls.get(b"")


def _transactions(calls: Calls) -> Iterator[tuple[str, Any]]:
    yield "nothing", calls.txn().succeeded
    yield "an empty operation", calls.txn(pb.RequestOp())
    missing = pb.Compare(key=b"none", target=pb.Compare.VALUE, result=pb.Compare.NOT_EQUAL, value=b"x")
    yield "no value of a missing key", calls.txn(compare=[missing]).succeeded
    yield "-1 before a compaction", calls.txn(range_op(b"s/a", -1)).responses[0].response_range.count
    yield "-2", calls.txn(range_op(b"s/a", -2))
    yield "129 operations", calls.txn(*(put_op(b"k%d" % number) for number in range(129)))
    yield "twice the same", calls.txn(put_op(b"k"), put_op(b"k"))
    yield "ignore_value of nothing", calls.put(b"nokey", ignore_value=True)
    yield "ignore_value with one", calls.put(b"s/a", b"x", ignore_value=True)
    yield "ignore_lease with one", calls.put(b"s/a", ignore_lease=True, lease=5)
    yield "a lease that is not there", calls.put(b"s/a", lease=99)


def _sizes(calls: Calls) -> Iterator[tuple[str, Any]]:
    yield "above the largest request", calls.put(b"big", b"x" * (1600 << 10))
    yield "above the largest message", calls.put(b"big", b"x" * (2200 << 10))


def _compaction(calls: Calls) -> Iterator[tuple[str, Any]]:
    revision = calls.get(b"s/a").header.revision
    yield "to the future", calls.compact(revision + 1)
    calls.compact(revision - 1)
    yield "again", calls.compact(revision - 1)
    yield "at the point", calls.get(b"s/a", revision=revision - 1).count
    yield "below it", calls.get(b"s/a", revision=revision - 2)
    yield "-1 after it", calls.txn(range_op(b"s/a", -1))
    for asked, at in (
        ("of the future", 10_000),
        ("of what is compacted", revision - 2),
        ("negative", -1),
    ):
        hashed = calls("Maintenance/HashKV", pb.HashKVRequest(revision=at), pb.HashKVResponse)
        yield f"a hash {asked}", hashed if isinstance(hashed, tuple) else hashed.compact_revision


def _watches(calls: Calls) -> Iterator[tuple[str, Any]]:
    yield "from a compacted revision", calls.watch(create(key=b"s/a", start_revision=2), count=2)
    yield "of an empty range", calls.watch(create(key=b"b", range_end=b"a"), count=1)
    yield "one id twice", calls.watch(*[create(key=b"b", watch_id=5)] * 2, count=2)
    cancels = [pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=each)) for each in (9, 0)]
    yield "an id that is not there is not answered", calls.watch(create(key=b"b"), *cancels, count=2)


def _leases(calls: Calls) -> Iterator[tuple[str, Any]]:
    for ttl in (0, 1, -3, 60, 9_000_000_001):
        yield f"TTL {ttl}", calls.grant(ttl)
    calls.grant(60, 77)
    yield "granted twice", calls.grant(60, 77)
    nowhere = pb.LeaseRevokeRequest(ID=4242)
    yield "revoked from nowhere", calls("Lease/LeaseRevoke", nowhere, pb.LeaseRevokeResponse)
    asked = pb.LeaseTimeToLiveRequest(ID=4242)
    left = calls("Lease/LeaseTimeToLive", asked, pb.LeaseTimeToLiveResponse)
    yield "left of none", (left.ID, left.TTL, left.grantedTTL)
    asked_for = [pb.LeaseKeepAliveRequest(ID=each) for each in (4242, 77)]
    renewed = calls.stream("Lease/LeaseKeepAlive", asked_for, pb.LeaseKeepAliveResponse, 2)
    yield "renewed in order", [(each.ID, each.TTL) for each in renewed]


def _others(calls: Calls) -> Iterator[tuple[str, Any]]:
    alarm = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, alarm=pb.AlarmType.CORRUPT, memberID=7)
    yield "a corrupt member", calls("Maintenance/Alarm", alarm, pb.AlarmResponse).alarms[0].memberID
    yield "then no put", calls.put(b"s/a")
    yield "no delete", calls("KV/DeleteRange", pb.DeleteRangeRequest(key=b"s/a"), pb.DeleteRangeResponse)
    yield "no transaction that writes", calls.txn(put_op(b"s/a"))
    yield "no grant", calls.grant(60)
    yield "no compaction", calls.compact(calls.get(b"s/a").header.revision)
    yield "but reading", calls.get(b"s/a").count
    status = calls("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
    yield "and it is told", list(status.errors)
    alarm.action = pb.AlarmRequest.DEACTIVATE
    yield "until it is taken back", len(calls("Maintenance/Alarm", alarm, pb.AlarmResponse).alarms)
    nobody = pb.MoveLeaderRequest(targetID=4242)
    yield "leadership to nobody", calls("Maintenance/MoveLeader", nobody, pb.MoveLeaderResponse)
    yield "bad URLs", calls("Cluster/MemberAdd", pb.MemberAddRequest(peerURLs=["x"]), pb.MemberAddResponse)
    yield (
        "no such member",
        calls("Cluster/MemberRemove", pb.MemberRemoveRequest(ID=5), pb.MemberRemoveResponse),
    )
    yield "auth without root", calls("Auth/AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse)
    login = pb.AuthenticateRequest(name="a", password="b")
    yield "a login without auth", calls("Auth/Authenticate", login, pb.AuthenticateResponse)


def test_the_same_answers_as_etcds() -> None:
    theirs, ours = answers("etcd"), answers("kvstore")
    assert len(theirs) > 40
    for asked, answer in theirs.items():
        assert ours[asked] == answer, asked
