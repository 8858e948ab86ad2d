"""A watch over three members while members die: it moves on, and loses and repeats nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from kvstore.client import Client, WatchBatch, errors
from tests.conformance.etcd_process import QUICK_ELECTIONS, SERVERS, Cluster, running_cluster, until


@pytest.fixture(scope="module", params=SERVERS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with running_cluster(request.param, size=3, flags=QUICK_ELECTIONS) as running:
        yield running


@pytest.fixture(autouse=True)
def everybody_is_back(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.restore()


async def write_until(client: Client, stop: asyncio.Event, written: list[int]) -> None:
    """Writes numbered values, two a revision's worth apart; an unknown outcome is settled by reading."""
    number = 0
    while not stop.is_set():
        try:
            written.append((await client.put(f"k/{number % 7}", str(number))).revision)
        except errors.OutcomeUnknown:
            found = await client.get(f"k/{number % 7}")
            if found.kvs and found.kvs[0].value == str(number).encode():
                written.append(found.kvs[0].mod_revision)
        number += 1
        await asyncio.sleep(0.001)


async def more(seen: list[WatchBatch], count: int) -> None:
    goal = len(seen) + count
    await until(lambda: len(seen) >= goal)


async def read_into(seen: list[WatchBatch], client: Client, started: asyncio.Event) -> None:
    async with client.watch("k/", prefix=True) as watch:
        await watch.created()
        started.set()
        async for batch in watch:
            seen.append(batch)


async def test_killing_members_under_a_watch(cluster: Cluster) -> None:
    """Twice over: the member that serves the watch is killed while another client writes."""
    seen: list[WatchBatch] = []
    written: list[int] = []
    stop, started = asyncio.Event(), asyncio.Event()
    names = cluster.endpoints
    async with (
        Client(names, shuffle=False) as watching,
        Client(list(reversed(names)), shuffle=False) as writing,
        asyncio.timeout(30),
        asyncio.TaskGroup() as group,
    ):
        reader = group.create_task(read_into(seen, watching, started))
        await started.wait()
        writer = group.create_task(write_until(writing, stop, written))
        for victim in cluster.members[:2]:
            await more(seen, 20)
            victim.kill()
            await more(seen, 20)
            victim.start()
            await asyncio.to_thread(victim.wait_ready)
        stop.set()
        await writer
        await until(lambda: seen[-1].revision >= written[-1])
        reader.cancel()
    revisions = [event.kv.mod_revision for batch in seen for event in batch.events]
    assert revisions == sorted(set(revisions)), "an event came twice or out of order"
    assert set(written) <= set(revisions), "an acknowledged write was not seen"
    assert revisions == list(range(revisions[0], revisions[-1] + 1)), "a revision is missing"


async def test_a_watch_leaves_a_member_without_a_leader(cluster: Cluster) -> None:
    """The member that serves the watch loses its cluster, not its connection: require_leader moves it on."""
    async with (
        asyncio.timeout(25),
        Client(cluster.endpoints, shuffle=False) as client,
        client.watch("a", progress_notify=False) as watch,
    ):
        await watch.created()
        for member in cluster.members[1:]:
            member.pause()
        waiting = asyncio.ensure_future(anext(watch))
        clock = asyncio.get_running_loop().time
        await until(lambda: client.caller.choice.order(clock())[0].name != cluster.endpoints[0])
        for member in cluster.members[1:]:
            member.resume()
        async with Client(cluster.endpoints[1]) as other:
            put = await other.put("a", "1")
        assert (await waiting).events[0].kv.mod_revision == put.revision


async def test_a_resume_point_compacted_meanwhile_is_an_error(cluster: Cluster) -> None:
    async with Client(cluster.endpoints[0], timeout_s=20) as client, asyncio.timeout(25):
        watch = client.watch("a", progress_notify=False)
        await watch.created()
        cluster.members[0].kill()
        for member in cluster.members[1:]:
            await asyncio.to_thread(member.wait_ready)
        async with Client(cluster.endpoints[1:]) as other:
            for _ in range(3):
                last = (await other.put("a", "x")).revision
            await other.compact(last, physical=True)
        cluster.members[0].start()
        with pytest.raises(errors.Compacted) as gone:
            while True:
                await anext(watch)
        assert gone.value.compact_revision == last
