"""What a lone client's puts feel of the work beside them: a compaction, a snapshot (of leases: leases.py)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from benchmarks.bench import Bench
from benchmarks.figures import Figure, percentile
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT, fill
from benchmarks.watch import revision
from kvstore.pb.etcdserverpb_pb2 import (
    CompactionRequest,
    PutRequest,
    SnapshotRequest,
)

COMPACT = "/etcdserverpb.KV/Compact"
SNAPSHOT = "/etcdserverpb.Maintenance/Snapshot"
STORED_S = 2.0
Work = Callable[[Bench, str], Awaitable[None]]
LIMIT_S = 120.0


async def measure(bench: Bench) -> list[Figure]:
    for server in bench.clusters:
        for _ in range(2):
            await fill(bench.leaders[server].endpoint, "upkeep/", bench.size(50_000, 5_000))
    figures = await beside(bench, "a compaction", compaction, before=history)
    return figures + await beside(bench, "a snapshot", snapshot)


async def beside(
    bench: Bench,
    what: str,
    work: Work,
    before: Work | None = None,
) -> list[Figure]:
    """One client puts, one after the other, while the work goes on. before: what must have been done by then, and
    is not measured."""
    p99: dict[str, list[float]] = {server: [] for server in bench.clusters}
    slowest: dict[str, list[float]] = {server: [] for server in bench.clusters}
    for server in bench.in_turns():
        if before is not None:
            await before(bench, server)
        async with putting(bench.leaders[server].endpoint) as took:
            await work(bench, server)
        p99[server].append(1e3 * percentile(took, 0.99))
        slowest[server].append(1e3 * max(took))
    return [
        Figure("upkeep", f"put p99 beside {what}", "ms", p99),
        Figure("upkeep", f"slowest put beside {what}", "ms", slowest),
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
