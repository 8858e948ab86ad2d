"""A container dies: SIGKILL → the last new request that was sent to it.

Two containers, and a client that asks through the proxy all the time. One of them is killed: the whole container, which
is `kvctl announce` and then its server's process group, so that nobody is left to withdraw it and the store has to
notice; or the server alone. A stand-in takes connections at the same address from then on and answers like it, so that
neither the proxy's retries nor its own notion of who is healthy can hide a request: its last request is what is
measured. A container of its own for each round.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.bench import Bench
from benchmarks.figures import OURS, THEIRS
from benchmarks.routed import hops
from benchmarks.routed.proxies import Proxy
from benchmarks.routed.rows import Row, counted, timed
from benchmarks.routed.stage import Logged, Spoken, Stage, asking, told, wall_offset_ns
from kvstore.demo.processes import ProgramFailed, Programs, free_ports

GRACE_MS = 500  # that of kvctl announce
LIMIT_MS = 10.0
ASKING = ("--connections", "2", "--pause", "1")
QUIET_S = 0.25  # nothing came for so long after the router took it out: nothing will
GONE_S = 15.0


@dataclass(slots=True)
class Side:
    """port: where those that are killed live, and their stand-in."""

    stage: Stage
    proxy: Proxy
    client: Spoken
    stand_in: Spoken
    port: int
    event_ms: list[float] = field(default_factory=list)
    last_ms: list[float] = field(default_factory=list)
    failed: int = 0
    asked: int = 0

    async def round(self, *, wrapper: bool) -> None:
        router = self.proxy.router
        assert router is not None
        async with Programs() as programs:
            victim = await self.stage.container(
                programs, self.proxy.service, "victim", self.stage.announcing, port=self.port
            )
            try:
                router.new_lines()
                await victim.ready()
                await _line(router, r"ready: \+victim")
                await asyncio.sleep(0.3)  # starting it has made everybody busy
                self.client.say("begin")
                await self.client.hear()
                await asyncio.sleep(0.1)
                await self.stand_in.ask("listen")
                killed = victim.kill(wrapper=wrapper)
                event = await _line(router, r"ready: .*-victim")
                await asyncio.sleep(QUIET_S + self.proxy.settle_s)
                last = int((await self.stand_in.ask("last")).split()[0])
                found = await told(self.client, "end")
            finally:
                await victim.end()
        await self.stand_in.ask("close")
        self.event_ms.append((event - killed) / 1e6)
        self.last_ms.append(max(0.0, (last - killed) / 1e6))
        self.failed += found["failed"]
        self.asked += found["ok"] + found["failed"]
        await asyncio.sleep(self.proxy.settle_s)


async def _line(router: Logged, pattern: str) -> int:
    """When the router wrote it. Raises ProgramFailed when it does not for a while."""
    deadline = time.monotonic() + GONE_S
    while True:
        with contextlib.suppress(hops.MissingMark):
            return hops.moment(router.new_lines(), pattern, wall_offset_ns())
        if router.program.status is not None or time.monotonic() > deadline:
            raise ProgramFailed(f"the router did not say {pattern!r}:\n{router.text()[-1000:]}")
        await asyncio.sleep(0.01)


async def measure(
    bench: Bench, tick: Callable[[], None], proxy_class: type[Proxy], rounds: dict[str, int]
) -> list[Row]:
    """rounds: of each kind, for each server."""
    found: list[Row] = []
    driver = proxy_class.name
    for wrapper, what, limit in (
        (True, "SIGKILL of the whole container", GRACE_MS + LIMIT_MS),
        (False, "SIGKILL of the server, its wrapper lives", LIMIT_MS),
    ):
        sides = await _run(bench, proxy_class, rounds, wrapper, tick)
        group = "dead → not routed"
        wanted = None if proxy_class.is_reloaded else limit
        events = {server: side.event_ms for server, side in sides.items()}
        last = {server: side.last_ms for server, side in sides.items()}
        found += [
            timed(group, f"{what} → event at the router", events, driver=driver, is_detail=True),
            timed(group, f"{what} → last request sent to it", last, driver=driver, limit=wanted),
            counted(
                group,
                f"{what}: failed requests",
                {server: side.failed for server, side in sides.items()},
                driver=driver,
                is_detail=True,
                note=f"of {sum(side.asked for side in sides.values()):,}",
            ),
        ]
    return found


async def _run(
    bench: Bench, proxy_class: type[Proxy], rounds: dict[str, int], wrapper: bool, tick: Callable[[], None]
) -> dict[str, Side]:
    sides: dict[str, Side] = {}
    async with Programs() as programs, contextlib.AsyncExitStack() as stack:
        for server in bench.clusters:
            sides[server] = await _side(Stage.of(bench, server), proxy_class, programs, stack, wrapper)
        for number in range(max(rounds.values())):
            for server, side in sides.items():
                if number < rounds[server]:
                    await side.round(wrapper=wrapper)
                    tick()
    return sides


async def _side(
    stage: Stage,
    proxy_class: type[Proxy],
    programs: Programs,
    stack: contextlib.AsyncExitStack,
    wrapper: bool,
) -> Side:
    service = f"dying-{proxy_class.name}-{'all' if wrapper else 'server'}"
    proxy = proxy_class(stage, programs, service)
    await proxy.start(stage.routing)
    stays = await stage.container(programs, service, "stays", stage.announcing)
    stack.push_async_callback(stays.end)
    await stays.ready()
    (port,) = free_ports(1)
    control = stage.fresh("s").with_suffix(".sock")
    command = [sys.executable, "-m", "benchmarks.routed.container", "victim", str(port), str(control)]
    await Logged.start(programs, stage.fresh("stand-in"), [*command, "--later"])
    stand_in = await Spoken.at(control)
    stack.push_async_callback(stand_in.close)
    client = await stack.enter_async_context(
        asking(proxy_class.client, proxy.address, *ASKING, environment=proxy.client_environment)
    )
    return Side(stage, proxy, client, stand_in, port)


def rounds_of(rounds: int) -> dict[str, int]:
    """A tenth of them on ours, because each starts a container; fewer on etcd, which takes seconds for each."""
    return {OURS: max(2, rounds // 10), THEIRS: max(1, rounds // 40)}
