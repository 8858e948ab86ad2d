"""What the client does when servers die: reads go on elsewhere, writes are repeated only when that is safe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from kvstore.client import Client, errors
from kvstore.demo.processes import free_ports
from tests.conformance.etcd_process import (
    QUICK_ELECTIONS,
    SERVERS,
    Cluster,
    running_cluster,
    until,
)


@pytest.fixture(scope="module", params=SERVERS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with running_cluster(request.param, size=3, flags=QUICK_ELECTIONS) as running:
        yield running


@pytest.fixture(autouse=True)
def everybody_is_back(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.restore()


async def test_dead_endpoints_are_passed_over_at_once(cluster: Cluster) -> None:
    dead = [f"127.0.0.1:{port}" for port in free_ports(2)]
    async with Client([*dead, *cluster.endpoints], shuffle=False) as client:
        started = time.monotonic()
        await client.put("a", "1")
        assert (await client.get("a")).count == 1
        assert time.monotonic() - started < 1.5
        assert client.caller.choice.pinned.name == cluster.endpoints[0]


async def test_nobody_there(cluster: Cluster) -> None:
    port = free_ports(1)[0]
    async with Client(f"127.0.0.1:{port}", wait_for_endpoints=False) as client:
        for call in (client.put("a", "1"), client.get("a"), client.lease_grant(5)):
            with pytest.raises(errors.Unreachable) as refused:
                await call
            assert refused.value.definite
            assert "Connection refused" in refused.value.reasons[f"127.0.0.1:{port}"]
        with pytest.raises(errors.Unreachable):
            await client.watch("a").created()
    async with Client(f"127.0.0.1:{port}", timeout_s=0.3) as client:
        with pytest.raises(errors.Unreachable):
            await client.put("a", "1")


async def test_a_read_moves_on_from_a_member_that_dies_under_it(cluster: Cluster) -> None:
    async with Client(cluster.endpoints, shuffle=False) as client:
        await client.put("a", "1")
        cluster.members[0].pause()
        reading = asyncio.create_task(client.get("a", serializable=True))
        await asyncio.sleep(0.05)
        cluster.members[0].kill()
        assert (await reading).kvs[0].value == b"1"
        assert client.caller.choice.pinned.name == cluster.endpoints[1]


async def test_a_read_moves_on_from_a_member_that_hangs(cluster: Cluster) -> None:
    async with Client(cluster.endpoints, shuffle=False, timeout_s=2) as client:
        await client.put("a", "1")
        cluster.members[0].pause()
        assert (await client.get("a", serializable=True)).kvs[0].value == b"1"


async def test_a_write_that_had_left_is_unknown(cluster: Cluster) -> None:
    """The member takes the bytes and dies with them unread: nobody can tell, so nobody repeats it."""
    async with Client(cluster.endpoints, shuffle=False) as client:
        await client.delete("a")
        await client.put("a", "1")
        cluster.members[0].pause()
        writing = asyncio.create_task(client.put("a", "2"))
        await asyncio.sleep(0.05)
        cluster.members[0].kill()
        with pytest.raises(errors.OutcomeUnknown) as unknown:
            await writing
        assert not unknown.value.definite
        # The next one finds nobody at home there, which is definite, and goes elsewhere.
        await client.put("a", "3")
        assert (await client.get("a")).kvs[0].version == 2


async def test_a_write_without_an_answer_in_time_is_unknown(cluster: Cluster) -> None:
    async with Client(cluster.endpoints, shuffle=False, timeout_s=0.5) as client:
        await client.put("a", "1")
        cluster.members[0].pause()
        with pytest.raises(errors.OutcomeUnknown):
            await client.put("a", "2")


async def test_a_write_to_a_member_that_never_answers_a_connection_is_definite(cluster: Cluster) -> None:
    """Accepted by the kernel, never by the process: no request byte leaves before the server's first frame."""
    async with Client(cluster.endpoints, shuffle=False, dial_timeout_s=0.3) as client:
        cluster.members[0].pause()
        await client.put("a", "1")
        assert client.caller.choice.pinned.name != cluster.endpoints[0]


async def test_writes_under_a_crash_are_counted_right(cluster: Cluster) -> None:
    """Each of many writers bumps a key of its own; after a SIGKILL in their midst, no key was bumped more
    often than was acknowledged or left unknown, and no less than was acknowledged."""
    async with Client(cluster.endpoints, shuffle=False) as client:
        before = (await client.get("w", prefix=True)).count
        assert before == 0
        acknowledged, unknown = [0] * 16, [0] * 16

        async def bump(writer: int, until: asyncio.Event) -> None:
            while not until.is_set():
                try:
                    await client.put(f"w{writer:02}", "x")
                    acknowledged[writer] += 1
                except errors.OutcomeUnknown:
                    unknown[writer] += 1

        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for writer in range(16):
                group.create_task(bump(writer, stop))
            await until(lambda: min(acknowledged) >= 3)
            await asyncio.to_thread(cluster.members[0].kill)
            goal = min(acknowledged) + 5
            await until(lambda: min(acknowledged) >= goal)
            stop.set()
        versions = [kv.version for kv in (await client.get("w", prefix=True)).kvs]
        assert len(versions) == 16
        for writer, version in enumerate(versions):
            assert acknowledged[writer] <= version <= acknowledged[writer] + unknown[writer]


async def test_without_a_majority_a_write_is_refused_or_unknown_and_a_lone_read_works(
    cluster: Cluster,
) -> None:
    async with Client(cluster.endpoints[0], timeout_s=1) as client:
        await client.put("a", "1")
        for member in cluster.members[1:]:
            member.kill()
        assert (await client.get("a", serializable=True)).count == 1
        with pytest.raises((errors.NoLeader, errors.OutcomeUnknown)):
            await client.put("a", "2")
        # By now the member knows that it has no leader, so the refusal comes before the proposal.
        deadline = time.monotonic() + 5
        while True:
            with pytest.raises((errors.NoLeader, errors.OutcomeUnknown, errors.RequestTimeout)) as refused:
                await client.put("a", "3")
            if refused.type is errors.NoLeader or time.monotonic() > deadline:
                break
        assert refused.value.definite


async def test_closing_under_a_call_ends_it(cluster: Cluster) -> None:
    client = Client(cluster.endpoints, shuffle=False)
    await client.put("a", "1")
    cluster.members[0].pause()
    writing = asyncio.create_task(client.put("a", "2"))
    reading = asyncio.create_task(client.get("a", serializable=True))
    await asyncio.sleep(0.05)
    await client.close()
    with pytest.raises(errors.OutcomeUnknown):
        await writing
    with pytest.raises(errors.ClientClosed):
        await reading
