"""kvstore.v1.Readiness on real members: streams that break, members and leaders that die, two who want one name."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.pb.readiness_pb2 import Announcement, AnnounceRequest, AnnounceResponse, KeepAlive, Withdraw
from tests.cluster.harness import MemberHandle, TestCluster, running, wait_for

LONG_MS = 60_000
ANNOUNCED, RENEWED = AnnounceResponse.ANNOUNCED, AnnounceResponse.RENEWED
WITHDRAWN = AnnounceResponse.WITHDRAWN


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    with running(tmp_path_factory.mktemp("announce")) as made:
        yield made


class Announcer:
    """One stream to one member."""

    def __init__(self, member: MemberHandle) -> None:
        self._channel = grpc.insecure_channel(member.endpoint)
        self._requests: queue.SimpleQueue[AnnounceRequest] = queue.SimpleQueue()
        self._call: Any = self._channel.stream_stream(
            "/kvstore.v1.Readiness/Announce",
            request_serializer=AnnounceRequest.SerializeToString,
            response_deserializer=AnnounceResponse.FromString,
        )(iter(self._requests.get, None), timeout=60)

    def announce(self, key: bytes, lease: int, *, grace_ms: int, ttl_ms: int = LONG_MS) -> AnnounceResponse:
        request = Announcement(key=key, value=b"v", lease_id=lease, ttl_ms=ttl_ms, grace_ms=grace_ms)
        return self.ask(AnnounceRequest(announce=request))

    def ask(self, request: AnnounceRequest) -> AnnounceResponse:
        self._requests.put(request)
        response = next(self._call)
        assert isinstance(response, AnnounceResponse)
        return response

    def break_off(self) -> None:
        """As the kernel does it for a process that was killed."""
        self._call.cancel()
        self._channel.close()


def stored(member: MemberHandle, key: bytes) -> KeyValue | None:
    found = member.calls.range(key)
    return found.kvs[0] if found.kvs else None


def test_announced_kept_alive_and_withdrawn(cluster: TestCluster) -> None:
    announcer, key = Announcer(cluster.members[0]), b"plain"
    told = announcer.announce(key, 101, grace_ms=500)
    assert (told.kind, told.lease_id, told.ttl_ms) == (ANNOUNCED, 101, LONG_MS)
    for member in cluster.members:
        found = stored(member, key)
        assert found is not None
        assert (found.mod_revision, found.lease, found.value) == (told.header.revision, 101, b"v")
    assert announcer.ask(AnnounceRequest(keep_alive=KeepAlive())).kind == RENEWED
    gone = announcer.ask(AnnounceRequest(withdraw=Withdraw()))
    assert (gone.kind, gone.header.revision) == (WITHDRAWN, told.header.revision + 1)
    assert stored(cluster.members[2], key) is None
    announcer.break_off()


def test_a_broken_stream_is_forgotten_after_its_grace_whoever_leads_then(cluster: TestCluster) -> None:
    leader = cluster.leader()
    member = next(each for each in cluster.members if each is not leader)
    announcer, at_once = Announcer(member), Announcer(member)
    announcer.announce(b"graceful", 201, grace_ms=3000)
    at_once.announce(b"at once", 202, grace_ms=0)
    announcer.break_off()
    at_once.break_off()
    wait_for(lambda: stored(member, b"at once") is None, "one without a grace is gone")
    assert stored(member, b"graceful") is not None
    leader.kill()
    wait_for(lambda: stored(member, b"graceful") is None, "the new leader lets it go", 10.0)
    leader.start()
    cluster.wait_ready()


def test_who_comes_back_in_time_elsewhere_was_never_away(cluster: TestCluster) -> None:
    first, second, third = cluster.members
    revision = (announcer := Announcer(first)).announce(b"moving", 301, grace_ms=500).header.revision
    first.kill()
    wait_for(lambda: second.status() is not None and cluster.leader() is not first, "another leads")
    announcer.break_off()
    told = Announcer(second).announce(b"moving", 301, grace_ms=500)
    assert told.header.revision == revision, "nothing was written"
    found = stored(third, b"moving")
    assert found is not None and found.mod_revision == revision
    first.start()
    cluster.wait_ready()


def test_a_name_that_is_taken_is_refused_until_its_holder_is_gone(cluster: TestCluster) -> None:
    first, second = Announcer(cluster.members[0]), Announcer(cluster.members[1])
    first.announce(b"name", 401, grace_ms=1000)
    with pytest.raises(grpc.RpcError) as refused:
        second.announce(b"name", 402, grace_ms=1000)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert refused.value.details() == "kvstore: the instance is announced by somebody else"
    first.break_off()

    def takes() -> bool:
        try:
            return Announcer(cluster.members[1]).announce(b"name", 402, grace_ms=1000).kind == ANNOUNCED
        except grpc.RpcError:
            return False

    wait_for(takes, "the name is free in the grace of who had it")
    found = stored(cluster.members[2], b"name")
    assert found is not None and found.lease == 402


def test_a_name_can_be_taken_over_and_its_holder_is_told(cluster: TestCluster) -> None:
    first, second = Announcer(cluster.members[0]), Announcer(cluster.members[1])
    first.announce(b"taken", 501, grace_ms=1000)
    request = Announcement(key=b"taken", value=b"w", lease_id=502, ttl_ms=LONG_MS, take_over=True)
    assert second.ask(AnnounceRequest(announce=request)).kind == ANNOUNCED
    assert first.ask(AnnounceRequest(keep_alive=KeepAlive())).kind == AnnounceResponse.LOST
    first.break_off()
    found = stored(cluster.members[2], b"taken")
    assert found is not None and (found.lease, found.value) == (502, b"w")
    assert second.ask(AnnounceRequest(withdraw=Withdraw())).kind == WITHDRAWN
    second.break_off()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (Announcement(lease_id=1), "etcdserver: key is not provided"),
        (Announcement(key=b"k"), "kvstore: lease_id is not a positive number chosen at random"),
        (
            Announcement(key=b"k", lease_id=1, ttl_ms=1),
            "kvstore: ttl_ms is 1, and not from 500 to 86400000",
        ),
        (Announcement(key=b"k", lease_id=1, grace_ms=-1), "kvstore: grace_ms is -1"),
    ],
)
def test_what_cannot_be_announced(cluster: TestCluster, wrong: Announcement, text: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        Announcer(cluster.members[0]).ask(AnnounceRequest(announce=wrong))
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)
