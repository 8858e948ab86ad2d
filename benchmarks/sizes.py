"""Clusters of another kind: one and five members, TLS on, authentication on, and with many keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from benchmarks.bench import Bench, leader_of
from benchmarks.figures import OURS, THEIRS, Figure
from benchmarks.load import Shape, body, drive, put_request
from benchmarks.memory import Memory
from benchmarks.put import kept, memory
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT, RANGE, fill
from benchmarks.upkeep import SNAPSHOT
from kvstore.client import Client
from kvstore.demo.cluster import LocalCluster, MemberProcess
from kvstore.pb.etcdserverpb_pb2 import RangeRequest, SnapshotRequest

MEMBERS = (1, 3, 5)
BUSY = Shape(8, 32, 40_000)
LIMIT_S = 600.0


async def members(bench: Bench) -> list[Figure]:
    figures = []
    for count in MEMBERS:
        values: dict[str, list[float]] = {OURS: [], THEIRS: []}
        for server in bench.in_turns(bench.size(2, 1)):
            async with bench.apart(server, count) as cluster:
                values[server].append(await rate(bench, cluster))
        name = f"put, 8 x 32 in flight, {count} member{'s' if count > 1 else ''}"
        figures.append(Figure("members", name, "/s", values, float(count)))
    return figures


async def secured(bench: Bench) -> list[Figure]:
    tls: dict[str, list[float]] = {OURS: [], THEIRS: []}
    auth: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for server in bench.in_turns(bench.size(2, 1)):
        async with bench.apart(server, flags=["--auto-tls"], scheme="https") as cluster:
            tls[server].append(await rate(bench, cluster, "https"))
        async with bench.apart(server) as cluster:
            leader = await leader_of(cluster)  # afterwards only root may ask
            token = await with_authentication(cluster)
            auth[server].append(await rate(bench, cluster, leader=leader, metadata={"token": token}))
    return [
        Figure("secured", "put, 8 x 32 in flight, TLS to the clients", "/s", tls),
        Figure("secured", "put, 8 x 32 in flight, authentication on", "/s", auth),
    ]


async def with_authentication(cluster: LocalCluster) -> str:
    """Switches it on; a token of root's at the leader."""
    async with Client(cluster.endpoints) as client:
        await client.role_add("root")
        await client.user_add("root", "secret")
        await client.user_grant_role("root", "root")
        await client.auth_enable()
        return await client.authenticate("root", "secret")


async def rate(
    bench: Bench,
    cluster: LocalCluster,
    scheme: str = "http",
    *,
    leader: MemberProcess | None = None,
    metadata: Mapping[str, str] | None = None,
) -> float:
    request = body(bench.folder, put_request())
    shape = bench.size(BUSY, Shape(8, 32, 10_000))
    endpoint = (leader or await leader_of(cluster)).endpoint
    return (await drive(f"{scheme}://{endpoint}{PUT}", shape, request, metadata)).per_s


async def large(bench: Bench) -> list[Figure]:
    """Members with many keys: what they keep in memory, how soon one serves again, how long a snapshot takes."""
    count = bench.size(bench.keys, 20_000)
    filled: dict[str, list[float]] = {OURS: [], THEIRS: []}
    stages = [count // 100, count // 10, count]
    resident: dict[int, dict[str, Memory]] = {stage: {} for stage in stages}
    started: dict[str, list[float]] = {OURS: [], THEIRS: []}
    saved: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for server in (OURS, THEIRS):
        async with bench.apart(server, flags=["--quota-backend-bytes=17179869184"]) as cluster:
            leader = await leader_of(cluster)
            bench.say(f"{count:,} keys into {server}")
            began, there = time.perf_counter(), 0
            for stage in stages:
                await fill(leader.endpoint, "large/", stage - there, 128, there)
                resident[stage][server] = memory(cluster)
                there = stage
            filled[server].append(count / (time.perf_counter() - began))
            follower = next(one for one in cluster.members if one is not leader)
            saved[server].append(await save(follower))
            for _ in range(bench.size(3, 1)):
                started[server].append(await start_again(cluster, follower))
    keys = amount(count)
    return [
        *(
            Figure(
                "memory by keys",
                f"of a member with {amount(stage)}",
                "MiB",
                {server: [found.resident] for server, found in resident[stage].items()},
                float(stage),
            )
            for stage in stages
        ),
        *kept("large", f"memory of a member with {keys}", resident[count], wanted=(0.7, 0.3)),
        Figure("large", f"start with {keys} → first get", "s", started, at_least=0.5, aim=0.1),
        Figure("large", f"snapshot of {keys}, streamed", "s", saved),
        Figure("large", f"filling with {keys}, 8 x 64 in flight", "/s", filled),
    ]


def amount(count: int) -> str:
    return f"{count // 1_000_000} M keys" if count >= 1_000_000 else f"{count:,} keys"


async def save(member: MemberProcess) -> float:
    connection = await RawConnection.connect(member.endpoint)
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    begun = time.perf_counter()
    connection.call(SNAPSHOT, SnapshotRequest().SerializeToString(), None, done.set_result)
    async with asyncio.timeout(LIMIT_S):
        await done
    connection.close()
    return time.perf_counter() - begun


async def start_again(cluster: LocalCluster, member: MemberProcess) -> float:
    """Seconds from the start of a stopped member's process to its first answer."""
    assert member.program is not None
    await member.program.stop(timeout_s=60)
    begun = time.perf_counter()
    await cluster.launch(member)
    get = RangeRequest(key=b"large/00000007", serializable=True).SerializeToString()
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                connection = await RawConnection.connect(member.endpoint)
            except OSError:
                await asyncio.sleep(0.005)
                continue
            await connection.ask(RANGE, get)
            connection.close()
            break
    took = time.perf_counter() - begun
    await cluster.ready(member, LIMIT_S)
    return took
