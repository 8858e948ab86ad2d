"""Nothing must be lost: every instance replaced under load, and the store away under load. Failed requests.

All proxies at once, each with a client of four connections that ask all the time; twenty containers replaced one after
another, the new one announced before the old one is told to end, which withdraws it first (`kvctl announce`: SIGTERM);
every member killed with SIGKILL, started again half a minute later.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks.bench import Bench, leader_of
from benchmarks.routed.proxies import Proxy
from benchmarks.routed.rows import Row, counted
from benchmarks.routed.stage import Container, Spoken, Stage, asking, told
from kvstore.demo.processes import ProgramFailed, Programs

PAUSE_MS = 20
STARTING_AT_ONCE = 4
ROUTED_S = 20.0


@dataclass(slots=True)
class Service:
    """Containers behind every proxy."""

    stage: Stage
    programs: Programs
    name: str
    containers: list[Container]
    proxies: list[Proxy]
    clients: dict[str, Spoken]

    async def add(self, name: str) -> Container:
        container = await self.stage.container(self.programs, self.name, name, self.stage.everybody)
        await container.ready()
        return container

    async def fill(self, count: int) -> None:
        some = asyncio.Semaphore(STARTING_AT_ONCE)

        async def one(number: int) -> Container:
            async with some:
                return await self.add(f"c{number}")

        self.containers += await asyncio.gather(*(one(number) for number in range(count)))

    async def routed(self) -> None:
        """Until every proxy answers."""
        for client in self.clients.values():
            await told(client, "served")
        await asyncio.sleep(0.5)  # a file that was written meanwhile is read

    async def replace(self, number: int) -> None:
        old = self.containers[number]
        self.containers[number] = await self.add(f"r{number}")
        await old.end()

    async def end(self) -> None:
        for container in self.containers:
            await container.end()


@contextlib.asynccontextmanager
async def service(
    bench: Bench, server: str, name: str, classes: Sequence[type[Proxy]]
) -> AsyncIterator[Service]:
    stage = Stage.of(bench, server)
    async with Programs() as programs, contextlib.AsyncExitStack() as stack:
        made = Service(stage, programs, name, [], [], {})
        stack.push_async_callback(made.end)
        for proxy_class in classes:
            proxy = proxy_class(stage, programs, name)
            await proxy.start(stage.everybody)
            made.proxies.append(proxy)
            made.clients[proxy.name] = await stack.enter_async_context(
                asking(proxy.client, proxy.address, "--pause", str(PAUSE_MS))
            )
        yield made


async def under_load(made: Service, what: Callable[[], Awaitable[None]]) -> dict[str, dict[str, int]]:
    """What each proxy's client counted meanwhile."""
    for client in made.clients.values():
        await client.ask("begin")
    await what()
    return {name: await told(client, "end") for name, client in made.clients.items()}


async def rolling(
    bench: Bench, tick: Callable[[], None], classes: Sequence[type[Proxy]], instances: int
) -> list[Row]:
    counts = {}
    for server in bench.clusters:
        async with service(bench, server, "rolling", classes) as made:
            await made.fill(instances)
            await made.routed()

            async def replace(made: Service = made) -> None:
                for number in range(instances):
                    await made.replace(number)
                    tick()

            counts[server] = await under_load(made, replace)
    return _rows(f"rolling replacement of {instances} instances", counts, classes)


async def outage(
    bench: Bench, tick: Callable[[], None], classes: Sequence[type[Proxy]], away_s: float
) -> list[Row]:
    """The clusters serve again when this returns."""
    counts = {}
    for server in bench.clusters:
        async with service(bench, server, "outage", classes) as made:
            await made.fill(3)
            await made.routed()
            counts[server] = await under_load(made, lambda: _away(bench, server, away_s))  # noqa: B023
            tick()
    return _rows(f"store away for {away_s:g} s, and back", counts, classes)


async def _away(bench: Bench, server: str, away_s: float) -> None:
    cluster = bench.clusters[server]
    for member in cluster.members:
        assert member.program is not None
        await member.program.kill()
    await asyncio.sleep(away_s)
    for member in cluster.members:
        await cluster.launch(member)
    for member in cluster.members:
        await cluster.ready(member)
    await asyncio.sleep(min(5.0, away_s))  # announced again, listed again
    async with asyncio.timeout(ROUTED_S):
        while True:
            try:
                bench.leaders[server] = await leader_of(cluster)
                return
            except (LookupError, ProgramFailed):
                await asyncio.sleep(0.1)


def _rows(
    group: str, counts: dict[str, dict[str, dict[str, int]]], classes: Sequence[type[Proxy]]
) -> list[Row]:
    found = []
    for proxy_class in classes:
        name = proxy_class.name
        failed = {server: counts[server][name]["failed"] for server in counts}
        asked = sum(counts[server][name]["ok"] + counts[server][name]["failed"] for server in counts)
        reconnected = sum(counts[server][name]["reconnected"] for server in counts)
        note = f"of {asked:,} requests" + (
            f"; {reconnected} repeated on a new connection" if reconnected else ""
        )
        found.append(counted(group, "failed requests", failed, driver=name, limit=0, note=note))
    return found
