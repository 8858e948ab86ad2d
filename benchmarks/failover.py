"""The leader is killed: how long until a write through another member is acknowledged, and until puts are as quick
as before."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from benchmarks.bench import Bench, leader_of
from benchmarks.figures import Figure
from benchmarks.load import LoadFailed
from benchmarks.raw_client import RawConnection, RawFailed
from benchmarks.recovery import CALM_WINDOWS, WINDOW_S, Sample, recovered
from benchmarks.unary import PUT
from kvstore.demo.cluster import LocalCluster
from kvstore.pb.etcdserverpb_pb2 import PutRequest

LIMIT_S = 30.0
AGAIN_S = 0.02
STEADY_S = 0.005  # between two puts of the steady load: 200 a second
BEFORE_S = 3.0
_PUT = PutRequest(key=b"failover", value=b"v").SerializeToString()


async def measure(bench: Bench) -> list[Figure]:
    values: dict[str, list[float]] = {server: [] for server in bench.clusters}
    for server in bench.in_turns(bench.size(10, 2)):
        values[server].append(await kill_the_leader(bench.clusters[server]))
        bench.leaders[server] = await leader_of(bench.clusters[server])
    slow: dict[str, list[float]] = {server: [] for server in bench.clusters}
    for server in bench.in_turns(bench.size(4, 1)):
        slow[server].append(await slow_for(bench.clusters[server]))
        bench.leaders[server] = await leader_of(bench.clusters[server])
    return [
        Figure(
            "failover",
            "SIGKILL of the leader → first write through another member",
            "s",
            values,
            at_least=0.6,
            aim=0.3,
        ),
        Figure(
            "failover", "SIGKILL of the leader → put p99 at most twice what it was, and stays so", "s", slow
        ),
    ]


async def kill_the_leader(cluster: LocalCluster) -> float:
    """Seconds. The member is started again and serves when this returns."""
    leader = await leader_of(cluster)
    other = next(member for member in cluster.members if member is not leader)
    connection = await RawConnection.connect(other.endpoint)
    assert leader.program is not None
    await connection.ask(PUT, _PUT)
    started = time.perf_counter()  # not when its end is heard of: the others may have elected by then
    leader.program.signal(9)
    took = await first_success(connection) - started
    connection.close()
    await leader.program.ended()
    await cluster.launch(leader)
    await cluster.ready(leader)
    return took


async def first_success(connection: RawConnection) -> float:
    """When the first put was acknowledged. One is sent every 20 ms, as by many clients: one that was passed on to
    the dead leader is answered late, or never."""
    succeeded: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def ended(status: str) -> None:
        if not status and not succeeded.done():
            succeeded.set_result(time.perf_counter())

    async with asyncio.timeout(LIMIT_S):
        while not succeeded.done():
            connection.call(PUT, _PUT, None, ended)
            await asyncio.wait((succeeded,), timeout=AGAIN_S)
    return succeeded.result()


async def slow_for(cluster: LocalCluster) -> float:
    """Seconds in which puts at a steady rate through another member stay slower than they were, or fail. The killed
    member stays away meanwhile, and serves again when this returns. Raises LoadFailed."""
    leader = await leader_of(cluster)
    other = next(member for member in cluster.members if member is not leader)
    connection = await RawConnection.connect(other.endpoint)
    assert leader.program is not None
    found = None
    async with steady(connection) as samples:
        await asyncio.sleep(BEFORE_S)
        leader.program.signal(9)
        killed = time.perf_counter()
        while found is None and time.perf_counter() < killed + LIMIT_S:
            await asyncio.sleep(WINDOW_S)
            # Windows that are still being filled, or answered, are not looked at.
            found = recovered(list(samples.values()), killed, time.perf_counter() - 2 * WINDOW_S)
    connection.close()
    await leader.program.ended()
    await cluster.launch(leader)
    await cluster.ready(leader)
    if found is None:
        raise LoadFailed(
            f"puts were not as quick as before for {CALM_WINDOWS * WINDOW_S:g} s within {LIMIT_S:g} s"
        )
    return found


@contextlib.asynccontextmanager
async def steady(connection: RawConnection) -> AsyncIterator[dict[int, Sample]]:
    """Puts at a rate that does not wait for answers: each counts from when it was due."""
    samples: dict[int, Sample] = {}

    async def go_on() -> None:
        started, number = time.perf_counter(), 0
        while True:
            due = started + number * STEADY_S
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            samples[number] = Sample(due, None)

            def end(status: str, number: int = number, due: float = due) -> None:
                samples[number] = Sample(due, None if status else time.perf_counter() - due)

            connection.call(PUT, _PUT, None, end)
            number += 1

    task = asyncio.ensure_future(go_on())
    try:
        yield samples
    except RawFailed as problem:
        raise LoadFailed(str(problem)) from None
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, RawFailed):
            await task
