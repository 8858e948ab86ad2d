"""The leader is killed; how long until a write through another member is acknowledged."""

from __future__ import annotations

import asyncio
import time

from benchmarks.bench import Bench, leader_of
from benchmarks.figures import Figure
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT
from kvstore.demo.cluster import LocalCluster
from kvstore.pb.etcdserverpb_pb2 import PutRequest

LIMIT_S = 30.0
AGAIN_S = 0.02


async def measure(bench: Bench) -> list[Figure]:
    values: dict[str, list[float]] = {server: [] for server in bench.clusters}
    for server in bench.in_turns(bench.size(10, 2)):
        values[server].append(await kill_the_leader(bench.clusters[server]))
        bench.leaders[server] = await leader_of(bench.clusters[server])
    name = "SIGKILL of the leader → first write through another member"
    return [Figure("failover", name, "s", values, at_least=0.6, aim=0.3)]


async def kill_the_leader(cluster: LocalCluster) -> float:
    """Seconds. The member is started again and serves when this returns."""
    leader = await leader_of(cluster)
    other = next(member for member in cluster.members if member is not leader)
    connection = await RawConnection.connect(other.endpoint)
    assert leader.program is not None
    await connection.ask(PUT, PutRequest(key=b"failover", value=b"v").SerializeToString())
    await leader.program.kill()
    started = time.perf_counter()
    took = await first_success(connection) - started
    connection.close()
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

    put = PutRequest(key=b"failover", value=b"v").SerializeToString()
    async with asyncio.timeout(LIMIT_S):
        while not succeeded.done():
            connection.call(PUT, put, None, ended)
            await asyncio.wait((succeeded,), timeout=AGAIN_S)
    return succeeded.result()
