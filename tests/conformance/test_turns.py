"""Lock and Election over gRPC, against both servers: who has the turn, who waits, and what is said when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from kvstore.client import Client
from kvstore.pb import v3electionpb_pb2 as election
from kvstore.pb import v3lockpb_pb2 as lock
from tests.conformance.etcd_process import SUITE, Server, running_cluster

PATIENCE_S = 15.0


@pytest.fixture(scope="module", params=SUITE)
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    server: Server = request.param
    with running_cluster(server) as cluster:
        yield cluster.endpoints[0]


class Caller:
    """Calls of one channel, by the service's name and the call's."""

    def __init__(self, channel: grpc.aio.Channel, client: Client, name: str) -> None:
        self.client = client
        self.name = name.encode()
        self._channel = channel

    def lock(self, lease: int, name: bytes = b"") -> Any:
        request = lock.LockRequest(name=name or self.name, lease=lease)
        return self._unary("v3lockpb.Lock/Lock", lock.LockResponse)(request, timeout=PATIENCE_S)

    def unlock(self, key: bytes) -> Any:
        return self._unary("v3lockpb.Lock/Unlock", lock.UnlockResponse)(lock.UnlockRequest(key=key))

    def campaign(self, lease: int, value: bytes) -> Any:
        request = election.CampaignRequest(name=self.name, lease=lease, value=value)
        return self._election("Campaign", election.CampaignResponse)(request, timeout=PATIENCE_S)

    def proclaim(self, leader: election.LeaderKey | None, value: bytes) -> Any:
        request = election.ProclaimRequest(leader=leader, value=value)
        return self._election("Proclaim", election.ProclaimResponse)(request)

    def resign(self, leader: election.LeaderKey | None) -> Any:
        return self._election("Resign", election.ResignResponse)(election.ResignRequest(leader=leader))

    def leader(self) -> Any:
        return self._election("Leader", election.LeaderResponse)(election.LeaderRequest(name=self.name))

    def observe(self) -> Any:
        stream = self._channel.unary_stream(
            "/v3electionpb.Election/Observe",
            request_serializer=_encoded,
            response_deserializer=election.LeaderResponse.FromString,
        )
        return stream(election.LeaderRequest(name=self.name), timeout=PATIENCE_S)

    def _election(self, name: str, answer: Any) -> Callable[..., Any]:
        return self._unary(f"v3electionpb.Election/{name}", answer)

    def _unary(self, path: str, answer: Any) -> Callable[..., Any]:
        method: Callable[..., Any] = self._channel.unary_unary(
            f"/{path}", request_serializer=_encoded, response_deserializer=answer.FromString
        )
        return method

    async def lease(self, ttl_s: int = 60) -> int:
        return (await self.client.lease_grant(ttl_s)).id

    async def wait_for_keys(self, count: int) -> list[bytes]:
        """Waits until so many keys are below the name; oldest first."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await self.client.get(self.name + b"/", prefix=True, sort_target="create")
                if len(found.kvs) == count:
                    return [kv.key for kv in found.kvs]
                await asyncio.sleep(0.01)


def _encoded(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


@pytest.fixture
async def caller(endpoint: str, request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    name = request.node.name.partition("[")[0]
    async with grpc.aio.insecure_channel(endpoint) as channel, Client(endpoint) as client:
        yield Caller(channel, client, name)


async def refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details() or ""


async def test_a_lock_is_handed_on_in_the_order_asked(caller: Caller) -> None:
    leases = [await caller.lease() for _ in range(3)]
    first = await caller.lock(leases[0])
    assert first.key == caller.name + b"/%x" % leases[0]
    assert (await caller.lock(leases[0])).key == first.key  # the same lease has it already
    waiting = []
    for number, lease in enumerate(leases[1:], start=2):
        waiting.append(asyncio.ensure_future(caller.lock(lease)))
        await caller.wait_for_keys(number)
    assert not any(call.done() for call in waiting)
    unlocked = await caller.unlock(first.key)
    second = await waiting[0]
    assert second.key == caller.name + b"/%x" % leases[1]
    assert second.header.revision >= unlocked.header.revision > first.header.revision
    assert not waiting[1].done()
    await caller.client.lease_revoke(leases[1])
    assert (await waiting[1]).key == caller.name + b"/%x" % leases[2]


async def test_whoever_gives_up_waiting_leaves_no_key_behind(caller: Caller) -> None:
    held = await caller.lock(await caller.lease())
    waiting = caller.lock(await caller.lease())
    task = asyncio.ensure_future(waiting)
    await caller.wait_for_keys(2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await caller.wait_for_keys(1) == [held.key]


async def test_a_lease_that_ends_while_waiting_ends_the_wish(caller: Caller) -> None:
    held = await caller.lock(await caller.lease())
    lease = await caller.lease()
    waiting = asyncio.ensure_future(caller.lock(lease))
    await caller.wait_for_keys(2)
    await caller.client.lease_revoke(lease)
    await caller.unlock(held.key)
    assert await refusal(waiting) == ("UNKNOWN", "mutex: session is expired")


async def test_without_a_lease_one_is_granted(caller: Caller) -> None:
    held = await caller.lock(0)
    lease = int(held.key.rpartition(b"/")[2], 16)
    status = await caller.client.lease_time_to_live(lease, keys=True)
    assert (status.granted_ttl_s, status.keys) == (60, [held.key])


async def test_what_cannot_be_locked(caller: Caller, request: pytest.FixtureRequest) -> None:
    """etcd's own client stands between these calls and its store, and loses the code on the way."""
    leaked = "UNKNOWN" if request.node.callspec.params["endpoint"] == "etcd" else ""
    missing = await refusal(caller.lock(12345))
    assert missing == (leaked or "NOT_FOUND", "etcdserver: requested lease not found")
    empty = await refusal(caller.unlock(b""))
    assert empty == (leaked or "INVALID_ARGUMENT", "etcdserver: key is not provided")


async def test_an_election_from_end_to_end(caller: Caller) -> None:
    assert await refusal(caller.leader()) == ("UNKNOWN", "election: no leader")
    observed = caller.observe()
    first, second = await caller.lease(), await caller.lease()
    won = await caller.campaign(first, b"one")
    assert won.leader.key == caller.name + b"/%x" % first
    assert (won.leader.name, won.leader.lease, won.leader.rev) == (caller.name, first, won.header.revision)
    assert (await observed.read()).kv.value == b"one"
    again = await caller.campaign(first, b"one and a half")
    assert again.leader == won.leader
    assert (await observed.read()).kv.value == b"one and a half"
    told = await caller.proclaim(won.leader, b"two")
    assert told.header.revision > won.header.revision
    seen = await observed.read()
    assert (seen.kv.value, seen.kv.create_revision) == (b"two", won.leader.rev)
    next_ = asyncio.ensure_future(caller.campaign(second, b"three"))
    await caller.wait_for_keys(2)
    assert (await caller.leader()).kv.value == b"two"
    await caller.resign(won.leader)
    assert (await next_).leader.lease == second
    assert (await observed.read()).kv.value == b"three"
    assert await refusal(caller.proclaim(won.leader, b"late")) == ("UNKNOWN", "election: not leader")
    await caller.resign(won.leader)  # what one does not have any more
    assert (await caller.leader()).kv.value == b"three"
    observed.cancel()


async def test_whoever_gives_up_campaigning_leaves_no_key_behind(caller: Caller) -> None:
    won = await caller.campaign(await caller.lease(), b"one")
    waiting = caller.campaign(await caller.lease(), b"two")
    task = asyncio.ensure_future(waiting)
    await caller.wait_for_keys(2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await caller.wait_for_keys(1) == [won.leader.key]


async def test_a_leader_has_to_be_named(caller: Caller) -> None:
    expected = ("UNKNOWN", '"leader" field must be provided')
    assert await refusal(caller.proclaim(None, b"")) == expected
    assert await refusal(caller.resign(None)) == expected


async def test_unlock_asks_nobody_whose_the_key_is(caller: Caller) -> None:
    """A plain delete: of a key that is no lock's, of one that is not there, and of somebody else's lock."""
    before = await caller.client.put("no lock's", "x")
    unlocked = await caller.unlock(b"no lock's")
    assert unlocked.header.revision == before.revision + 1
    assert (await caller.unlock(b"no lock's")).header.revision == before.revision + 1
    assert not (await caller.client.get("no lock's")).kvs
    held = await caller.lock(await caller.lease())
    waiting = asyncio.ensure_future(caller.lock(await caller.lease()))
    await caller.wait_for_keys(2)
    await caller.unlock(held.key)  # on another's behalf
    assert (await waiting).key != held.key


async def test_a_leader_key_counts_with_its_revision(caller: Caller) -> None:
    """Proclaim and Resign of a key by the same name that was made at another time."""
    won = await caller.campaign(await caller.lease(), b"one")
    stale = election.LeaderKey()
    stale.CopyFrom(won.leader)
    stale.rev -= 1
    assert await refusal(caller.proclaim(stale, b"two")) == ("UNKNOWN", "election: not leader")
    resigned = await caller.resign(stale)
    assert resigned.header.revision == won.header.revision
    assert (await caller.leader()).kv.value == b"one"


async def test_proclaim_without_the_lease_still_leaves_the_key_on_one(caller: Caller) -> None:
    """etcd makes a session for it, of 60 seconds: a leader key without a lease would lead for ever."""
    won = await caller.campaign(await caller.lease(), b"one")
    bare = election.LeaderKey()
    bare.CopyFrom(won.leader)
    bare.lease = 0
    await caller.proclaim(bare, b"two")
    kv = (await caller.leader()).kv
    assert kv.value == b"two"
    assert kv.lease not in (0, won.leader.lease)
    assert (await caller.client.lease_time_to_live(kv.lease)).granted_ttl_s == 60


async def test_proclaim_with_a_lease_that_is_gone(caller: Caller, request: pytest.FixtureRequest) -> None:
    won = await caller.campaign(await caller.lease(), b"one")
    gone = election.LeaderKey()
    gone.CopyFrom(won.leader)
    gone.lease = 4711
    leaked = "UNKNOWN" if request.node.callspec.params["endpoint"] == "etcd" else "NOT_FOUND"
    assert await refusal(caller.proclaim(gone, b"two")) == (leaked, "etcdserver: requested lease not found")


async def test_a_campaign_whose_lease_ended_while_it_waited(
    caller: Caller, request: pytest.FixtureRequest
) -> None:
    """etcd says elected, of a key that is not there: its mutex looks again, its election does not."""
    won = await caller.campaign(await caller.lease(), b"one")
    lease = await caller.lease()
    waiting = asyncio.ensure_future(caller.campaign(lease, b"two"))
    await caller.wait_for_keys(2)
    await caller.client.lease_revoke(lease)
    await caller.resign(won.leader)
    if request.node.callspec.params["endpoint"] == "etcd":
        assert (await waiting).leader.lease == lease
    else:
        assert await refusal(waiting) == ("UNKNOWN", "election: session is expired")
    assert await refusal(caller.leader()) == ("UNKNOWN", "election: no leader")
