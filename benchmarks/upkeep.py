"""What a lone client's puts feel of the work beside them: a compaction, a snapshot, ten thousand leases that end
together."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from benchmarks.bench import Bench
from benchmarks.figures import Figure, percentile
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT, RANGE, fill, pipeline
from benchmarks.watch import revision
from kvstore.pb.etcdserverpb_pb2 import (
    CompactionRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    SnapshotRequest,
)

COMPACT = "/etcdserverpb.KV/Compact"
SNAPSHOT = "/etcdserverpb.Maintenance/Snapshot"
GRANT = "/etcdserverpb.Lease/LeaseGrant"
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
TTL_S = 8
STORED_S = 2.0
Work = Callable[[Bench, str], Awaitable[None]]
LIMIT_S = 120.0


async def measure(bench: Bench) -> list[Figure]:
    for server in bench.clusters:
        for _ in range(2):
            await fill(bench.leaders[server].endpoint, "upkeep/", bench.size(50_000, 5_000))
    figures = await beside(bench, "a compaction", compaction, before=history)
    return figures + await beside(bench, "a snapshot", snapshot)


async def leases(bench: Bench) -> list[Figure]:
    """Expiring together, and kept alive."""
    figures = await beside(
        bench, "10,000 leases that expire together", expiry, turns=1 if bench.quick else 2, wanted=(0.3, 0.1)
    )
    figures.append(await renewals(bench))
    return figures


async def beside(
    bench: Bench,
    what: str,
    work: Work,
    turns: int | None = None,
    wanted: tuple[float, float] | None = None,
    before: Work | None = None,
) -> list[Figure]:
    """One client puts, one after the other, while the work goes on. before: what must have been done by then, and
    is not measured."""
    p99: dict[str, list[float]] = {server: [] for server in bench.clusters}
    slowest: dict[str, list[float]] = {server: [] for server in bench.clusters}
    for server in bench.in_turns(turns):
        if before is not None:
            await before(bench, server)
        async with putting(bench.leaders[server].endpoint) as took:
            await work(bench, server)
        p99[server].append(1e3 * percentile(took, 0.99))
        slowest[server].append(1e3 * max(took))
    at_least, aim = wanted or (None, None)
    return [
        Figure("upkeep", f"put p99 beside {what}", "ms", p99),
        Figure("upkeep", f"slowest put beside {what}", "ms", slowest, at_least=at_least, aim=aim),
    ]


@contextlib.asynccontextmanager
async def putting(endpoint: str) -> AsyncIterator[list[float]]:
    """What each put of a lone client takes meanwhile, in seconds."""
    connection = await RawConnection.connect(endpoint)
    put = PutRequest(key=b"beside", value=b"v" * 256).SerializeToString()
    took: list[float] = []

    async def go_on() -> None:
        while True:
            started = time.perf_counter()
            await connection.ask(PUT, put)
            took.append(time.perf_counter() - started)

    for _ in range(20):
        await connection.ask(PUT, put)
    task = asyncio.ensure_future(go_on())
    try:
        yield took
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        connection.close()


async def history(bench: Bench, server: str) -> None:
    """So that there is something to compact, stored on every member by the time that anybody looks."""
    await fill(bench.leaders[server].endpoint, "upkeep/", bench.size(20_000, 3_000))
    await asyncio.sleep(STORED_S)


async def compaction(bench: Bench, server: str) -> None:
    """Of all that is history by now, until it is gone from the disk."""
    endpoint = bench.leaders[server].endpoint
    connection = await RawConnection.connect(endpoint)
    target = await revision(endpoint) - 10
    request = CompactionRequest(revision=target, physical=True)
    await connection.ask(COMPACT, request.SerializeToString())
    connection.close()


async def snapshot(bench: Bench, server: str) -> None:
    connection = await RawConnection.connect(bench.leaders[server].endpoint)
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    connection.call(SNAPSHOT, SnapshotRequest().SerializeToString(), None, done.set_result)
    async with asyncio.timeout(LIMIT_S):
        await done
    connection.close()


async def expiry(bench: Bench, server: str) -> None:
    """Leases with a key each, granted as fast as it goes, and then their end awaited."""
    count = bench.size(10_000, 2_000)
    endpoint = bench.leaders[server].endpoint
    connections = [await RawConnection.connect(endpoint) for _ in range(4)]
    first = 1 + (time.time_ns() & 0xFFFF_FFFF_FFFF)
    grants = (LeaseGrantRequest(ID=first + n, TTL=TTL_S).SerializeToString() for n in range(count))
    await pipeline(connections, GRANT, grants, 64)
    keys = (
        PutRequest(key=b"leased/%d" % n, value=b"v", lease=first + n).SerializeToString()
        for n in range(count)
    )
    await pipeline(connections, PUT, keys, 64)
    left = RangeRequest(key=b"leased/", range_end=b"leased0", count_only=True).SerializeToString()
    async with asyncio.timeout(LIMIT_S):
        while RangeResponse.FromString(await connections[0].ask(RANGE, left)).count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    for connection in connections:
        connection.close()


async def renewals(bench: Bench) -> Figure:
    """Ten thousand leases renewed on one stream, all at once."""
    count = bench.size(10_000, 2_000)
    values: dict[str, list[float]] = {server: [] for server in bench.clusters}
    connections = {}
    first = 1 + (time.time_ns() & 0xFFFF_FFFF_FFFF)
    for server in bench.clusters:
        connection = connections[server] = await RawConnection.connect(bench.leaders[server].endpoint)
        grants = (LeaseGrantRequest(ID=first + n, TTL=600).SerializeToString() for n in range(count))
        await pipeline([connection], GRANT, grants, 128)
    for server in bench.in_turns():
        connection = connections[server]
        left, done = count, asyncio.get_running_loop().create_future()

        def hear(_: bytes, done: asyncio.Future[None] = done) -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set_result(None)

        started = time.perf_counter()
        stream = connection.open(KEEP_ALIVE, hear)
        for number in range(count):
            connection.send(stream, LeaseKeepAliveRequest(ID=first + number).SerializeToString())
        async with asyncio.timeout(LIMIT_S):
            await done
        values[server].append(count / (time.perf_counter() - started))
        connection.reset(stream)
    for connection in connections.values():
        connection.close()
    return Figure("leases", f"renewals of {count:,} leases on one stream", "/s", values)
