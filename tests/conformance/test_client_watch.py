"""Watches against real servers: nothing lost, nothing twice, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator

import pytest

from kvstore.client import Client, Event, Op, Watch, errors
from tests.conformance.etcd_process import SUITE, Cluster, running_cluster


@pytest.fixture(scope="module", params=SUITE)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    flags = ("--experimental-watch-progress-notify-interval", "100ms", "--max-request-bytes", "1048576")
    with running_cluster(request.param, flags=flags) as running:
        yield running


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with Client(cluster.endpoints) as made:
        await made.delete("", prefix=True)
        yield made


async def events(watch: Watch, count: int) -> list[Event]:
    """The next count events; more in the same batch would be an error."""
    found: list[Event] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += (await anext(watch)).events
    assert len(found) == count
    return found


async def test_changes_in_order(client: Client) -> None:
    async with client.watch("k/", prefix=True, prev_kv=True) as watch:
        revision = await watch.created()
        await client.put("k/a", "1")
        await client.put("other", "1")
        await client.put("k/a", "2")
        await client.delete("k/a")
        put, change, delete = await events(watch, 3)
        assert put.kv.mod_revision == revision + 1
        assert (put.type, put.kv.value, put.prev_kv) == ("PUT", b"1", None)
        assert change.prev_kv is not None and change.prev_kv.value == b"1"
        assert (delete.type, delete.kv.key) == ("DELETE", b"k/a")


async def test_one_revision_is_one_batch(client: Client) -> None:
    async with client.watch("", prefix=True, progress_notify=False) as watch:
        await watch.created()
        done = await client.txn(success=[Op.put(f"k{i}", "x") for i in range(50)])
        batch = await anext(watch)
        assert batch.revision == done.revision and len(batch.events) == 50


async def test_a_revision_in_fragments_is_made_whole(client: Client) -> None:
    """The revision is larger than the server's message limit, so it comes in several responses."""
    async with client.watch("big", prefix=True, progress_notify=False) as watch:
        await watch.created()
        first = await client.put("big0", b"x" * 900_000)
        for i in range(1, 5):
            await client.put(f"big{i}", b"x" * 900_000)
        async with client.watch(
            "big", prefix=True, start_revision=first.revision, prev_kv=True, progress_notify=False
        ) as late:
            found = await events(late, 5)
        assert [len(e.kv.value) for e in found] == [900_000] * 5
        gone = await client.delete("big", prefix=True)
        async with client.watch(
            "big", prefix=True, start_revision=gone.revision, prev_kv=True, progress_notify=False
        ) as late:
            batch = await anext(late)
        assert [e.type for e in batch.events] == ["DELETE"] * 5
        assert sum(len(e.prev_kv.value) for e in batch.events if e.prev_kv) == 4_500_000


async def test_history_filters_and_cancel(client: Client) -> None:
    first = await client.put("a", "1")
    await client.delete("a")
    await client.put("a", "2")
    deletes = client.watch("a", start_revision=first.revision, no_put=True)
    assert [e.type for e in await events(deletes, 1)] == ["DELETE"]
    puts = client.watch("a", start_revision=first.revision, no_delete=True)
    assert [e.kv.value for e in await events(puts, 2)] == [b"1", b"2"]
    await puts.cancel()
    assert [batch async for batch in puts] == []
    waiting = asyncio.ensure_future(anext(deletes, None))
    await asyncio.sleep(0.02)
    await deletes.cancel()
    while (batch := await waiting) is not None:  # progress may have come first
        assert batch.is_progress
        waiting = asyncio.ensure_future(anext(deletes, None))


async def test_giving_up_waiting_loses_nothing(client: Client) -> None:
    async with client.watch("a", progress_notify=False) as watch:
        await watch.created()
        found: list[Event] = []
        timeout_count = 0
        for number in range(20):
            try:
                while True:
                    found += (await asyncio.wait_for(anext(watch), 0.005)).events
            except TimeoutError:
                timeout_count += 1
            await client.put("a", str(number))
        found += await events(watch, 20 - len(found))
        assert [int(e.kv.value) for e in found] == list(range(20))
        assert timeout_count == 20


async def test_progress_moves_an_idle_watch_past_a_compaction(client: Client) -> None:
    async with client.watch("idle") as watch:
        created = await watch.created()
        last = created
        for _ in range(5):
            last = (await client.put("busy", "x")).revision
        async with asyncio.timeout(5):
            batch = await anext(watch)
            while batch.revision < last:
                batch = await anext(watch)
        assert batch.is_progress and batch.events == []
        assert watch.next_revision == last + 1


async def test_progress_on_request(client: Client) -> None:
    await client.put("idle", "x")  # etcd before 3.5.13 answers nothing on a watch without an event
    async with client.watch("idle", progress_notify=False) as watch:
        await watch.created()
        put = await client.put("idle", "y")
        await events(watch, 1)
        await watch.request_progress()
        async with asyncio.timeout(5):
            batch = await anext(watch)
        assert batch.is_progress and batch.revision == put.revision


async def test_a_compacted_start_is_an_error(client: Client) -> None:
    first = await client.put("a", "1")
    last = await client.put("a", "2")
    await client.compact(last.revision, physical=True)
    watch = client.watch("a", start_revision=first.revision)
    with pytest.raises(errors.Compacted) as gone:
        await anext(watch)
    assert gone.value.compact_revision == last.revision
    with pytest.raises(errors.Compacted):
        await anext(watch)


async def test_a_refused_watch_is_an_error(client: Client) -> None:
    with pytest.raises(errors.WatchCanceled, match="range is empty") as refused:
        await client.watch("b", range_end="a").created()
    assert "watcher range is empty" in refused.value.reason


async def test_closing_the_client_ends_its_watches(cluster: Cluster) -> None:
    client = Client(cluster.endpoints)
    watch, idle = client.watch("a", progress_notify=False), client.watch("b")
    await watch.created()
    await idle.created()
    waiting = asyncio.ensure_future(anext(watch, None))
    await asyncio.sleep(0.02)
    await client.close()
    assert await waiting is None
    assert [batch async for batch in idle] == []


async def test_a_forgotten_watch_is_cancelled(client: Client) -> None:
    async def forget() -> None:
        await client.put("a", "1")
        async for _ in client.watch("a", start_revision=1):
            break

    await client.compact((await client.put("a", "0")).revision)
    with pytest.raises(errors.Compacted):
        await forget()
    watch = client.watch("a", progress_notify=False)
    await watch.created()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(watch), 0.01)
    del watch
    gc.collect()
    assert client._watch_streams == set()
