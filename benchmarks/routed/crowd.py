"""Many instances, many routers, some of them coming and going: announce → event at every router, and memory.

Instances and routers are streams of a few processes (crowd_side.py), spread over the members: a stream and a lease for
each instance, a watch of everything for each router. A tenth of the instances a minute is withdrawn and replaced by new
ones. The announcement carries the time of its call, so that every router knows how old its event is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.memory import memory_of
from benchmarks.routed.rows import Row, counted, timed
from benchmarks.routed.stage import Spoken, told
from kvstore.demo.cluster import LocalCluster

LIMIT_MS = 50.0
ANNOUNCE_S = 300.0
ARRIVE_S = 1.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """churn: the share of the instances that is replaced in a minute. processes: for each side."""

    instances: int = 5_000
    routers: int = 100
    churn: float = 0.1
    for_s: float = 60.0
    ttl_s: int = 10
    processes: int = 4

    @property
    def per_s(self) -> float:
        return self.instances * self.churn / 60


async def measure(bench: Bench, tick: Callable[[], None], crowd: Crowd) -> list[Row]:
    ages: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    missing: dict[str, int] = {}
    for server in bench.clusters:
        async with bench.apart(server) as cluster:
            ages[server], missing[server], memory[server] = await _one(server, cluster, crowd)
        tick()
    group = (
        f"{crowd.instances:,} instances, {crowd.routers} routers, {100 * crowd.churn:g} % replaced a minute"
    )
    return [
        timed(group, "announce → event at each router", ages, limit=LIMIT_MS),
        counted(group, "events that did not arrive", missing, limit=0),
        counted(group, "memory of the largest member", memory, "MiB"),
    ]


async def _one(server: str, cluster: LocalCluster, crowd: Crowd) -> tuple[list[float], int, float]:
    """Ages of the events at the routers in ms, how many events are missing, MiB of the largest member."""
    async with contextlib.AsyncExitStack() as stack:
        watchers = [
            await _side(stack, "watch", server, cluster, count=share)
            for share in shares(crowd.routers, crowd.processes)
        ]
        announcers = [
            await _side(stack, "announce", server, cluster, count=share, number=number, ttl_s=crowd.ttl_s)
            for number, share in enumerate(shares(crowd.instances, crowd.processes))
        ]
        for one in watchers:
            await told(one, "begin")
        for one in announcers:
            await _told_at_length(one, "begin")
        for one in announcers:
            one.say(f"churn {crowd.per_s / crowd.processes} {crowd.for_s}")
        replaced = sum(
            [json.loads(await one.hear(crowd.for_s + ANNOUNCE_S))["replaced"] for one in announcers]
        )
        await asyncio.sleep(ARRIVE_S)
        ages = [age for one in watchers for age in (await told(one, "report"))["ages_ms"]]
        pids = [member.program.pid for member in cluster.members if member.program is not None]
        memory = max(memory_of(pid).resident for pid in pids)
    return ages, replaced * crowd.routers - len(ages), memory


async def _told_at_length(side: Spoken, word: str) -> None:
    await side.ask(word, ANNOUNCE_S)


async def _side(
    stack: contextlib.AsyncExitStack, role: str, server: str, cluster: LocalCluster, **given: int
) -> Spoken:
    config = {"role": role, "server": server, "endpoints": cluster.endpoints, **given}
    side = await Spoken.run(sys.executable, "-m", "benchmarks.routed.crowd_side", json.dumps(config))
    stack.push_async_callback(side.close)
    return side


def shares(count: int, parts: int) -> list[int]:
    """count in parts that differ by one at most."""
    return [count // parts + (part < count % parts) for part in range(parts)]
