"""A client that asks for a leader is told that there is none, by every call; nothing hangs."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from kvstore.api.access import REQUESTS, RULES
from kvstore.api.leader import FREE
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import v3electionpb_pb2 as election
from tests.cluster.harness import running, wait_for

STREAMS = {
    "Watch",
    "LeaseKeepAlive",
    "Snapshot",
    "Observe",
    "RangeStream",
    "Announce",
    "ServerReflectionInfo",
}
ASKING = (("hasleader", "true"),)
NO_LEADER = (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
FIELDS = (("key", b"k"), ("name", b"n"), ("prefix", b"p"), ("revision", 1), ("ID", 7), ("TTL", 5))


class Stream:
    """One two-way call that is kept open from this side."""

    def __init__(self, channel: grpc.Channel, path: str, request: Any) -> None:
        self._out: queue.Queue[Any] = queue.Queue()
        self._out.put(request)
        method = channel.stream_stream(
            path, request_serializer=lambda each: each.SerializeToString(), response_deserializer=bytes
        )
        self.replies: Any = method(self._requests(), timeout=60, metadata=ASKING)

    def _requests(self) -> Iterator[Any]:
        while (request := self._out.get()) is not None:
            yield request

    def end(self) -> tuple[grpc.StatusCode, str | None]:
        """What ends it, after whatever it still says."""
        try:
            for _ in self.replies:
                pass
        except grpc.RpcError:
            pass
        self._out.put(None)
        return self.replies.code(), self.replies.details()


def request_of(path: str) -> Any:
    """Whatever it takes to come as far as asking for a leader."""
    if path == "/etcdserverpb.Watch/Watch":
        return pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k"))
    if path.endswith("/MemberAdd"):
        return pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"])
    if path.endswith("/MemberUpdate"):
        return pb.MemberUpdateRequest(ID=1, peerURLs=["http://127.0.0.1:1"])
    request = REQUESTS[path]()
    for field, value in FIELDS:
        if field in request.DESCRIPTOR.fields_by_name:
            text = request.DESCRIPTOR.fields_by_name[field].type == 9  # string
            setattr(request, field, value.decode() if text and isinstance(value, bytes) else value)
    return request


def test_every_call_that_asks_for_a_leader_is_told_that_there_is_none(tmp_path: Path) -> None:
    with running(tmp_path, extra=["--heartbeat-interval=50", "--election-timeout=500"]) as cluster:
        member, *others = cluster.members
        channel = grpc.insecure_channel(member.endpoint)
        grant: Any = channel.unary_unary(
            "/etcdserverpb.Lease/LeaseGrant",
            request_serializer=pb.LeaseGrantRequest.SerializeToString,
            response_deserializer=pb.LeaseGrantResponse.FromString,
        )
        grant(pb.LeaseGrantRequest(ID=7, TTL=600), timeout=20)
        member.calls.put(b"n/1", b"leads", lease=7)
        open_before = [
            Stream(channel, "/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=7)),
            Stream(channel, "/v3electionpb.Election/Observe", election.LeaderRequest(name=b"n")),
            Stream(channel, "/etcdserverpb.Watch/Watch", request_of("/etcdserverpb.Watch/Watch")),
        ]
        for stream in open_before:
            assert next(stream.replies)
        for other in others:
            other.kill()
        wait_for(lambda: (status := member.status()) is not None and not status.leader, "no leader")
        for path in sorted(set(RULES) - FREE):
            name = path.rpartition("/")[2]
            if name in STREAMS:
                assert Stream(channel, path, request_of(path)).end() == NO_LEADER, path
                continue
            call: Any = channel.unary_unary(
                path, request_serializer=lambda each: each.SerializeToString(), response_deserializer=bytes
            )
            told = call.future(request_of(path), timeout=20, metadata=ASKING)
            assert (told.code(), told.details()) == NO_LEADER, path
        assert [stream.end() for stream in open_before] == [NO_LEADER] * 3
        assert member.calls.range(b"n/1", serializable=True).count == 1
        channel.close()
