"""Ready to routed: READY=1 on the notify socket → the first answer through the proxy, every hop of it.

One container for each store: `kvctl announce --check notify` with a server that says READY=1 and STOPPING=1 when it
is told to, so that a round costs no start of a program. One router for each store, which talks to another member than
the announcer does. A client of its own process asks all the time, 0.2 ms after each answer; on etcd the same programs
with the same settings. Rounds of the two take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.bench import Bench
from benchmarks.routed import hops
from benchmarks.routed.proxies import Proxy
from benchmarks.routed.rows import Row, timed
from benchmarks.routed.stage import Container, Spoken, Stage, asking, wall_offset_ns
from kvstore.demo.processes import ProgramFailed, Programs

WARM_UP = 3
LIMITS_MS = {"haproxy": 5.0, "envoy": 15.0}
GONE = "STOPPING=1 → no longer answered"


@dataclass(slots=True)
class Side:
    """One store's container, router, proxy and client."""

    proxy: Proxy
    container: Container
    client: Spoken
    rounds: list[dict[str, float]] = field(default_factory=list)
    gone_ms: list[float] = field(default_factory=list)

    async def round(self, is_counted: bool) -> None:
        router = self.proxy.router
        assert router is not None
        self.container.announcer.new_lines()
        router.new_lines()
        self.client.say("served")
        await asyncio.sleep(0.002)  # it asks, and is refused
        signal = await self.container.told("ready")
        answered = await self._at()
        await asyncio.sleep(self.proxy.settle_s)
        announcer_lines, router_lines = self.container.announcer.new_lines(), router.new_lines()
        self.client.say("refused")
        stopping = await self.container.told("stopping")
        gone = await self._at()
        await asyncio.sleep(self.proxy.settle_s)
        if not is_counted:
            return
        offset = wall_offset_ns()
        event = hops.moment(router_lines, r"\d ready: \+", offset)
        configured = self.proxy.configured
        marks = hops.Marks(
            signal=signal,
            heard=hops.moment(announcer_lines, "^ready after", offset),
            acknowledged=hops.moment(announcer_lines, "^announced", offset),
            event=event,
            configured=hops.moment(router_lines, configured, offset) if configured else event,
            answered=answered,
        )
        self.rounds.append(marks.since_signal_ms())
        self.gone_ms.append((gone - stopping) / 1e6)

    async def _at(self) -> int:
        return int(json.loads(await self.client.hear())["at"])


async def measure(bench: Bench, tick: Callable[[], None], proxy_class: type[Proxy], rounds: int) -> list[Row]:
    sides: dict[str, Side] = {}
    async with Programs() as programs, contextlib.AsyncExitStack() as stack:
        for server in bench.clusters:
            sides[server] = await _side(Stage.of(bench, server), proxy_class, programs, stack)
        for number in range(rounds + WARM_UP):
            for server in sides if number % 2 == 0 else reversed(sides):
                try:
                    await sides[server].round(number >= WARM_UP)
                except hops.MissingMark as problem:
                    raise ProgramFailed(
                        f"{proxy_class.name} on {server}, round {number}: {problem}"
                    ) from None
                tick()
    return rows(proxy_class.name, sides)


async def _side(
    stage: Stage, proxy_class: type[Proxy], programs: Programs, stack: contextlib.AsyncExitStack
) -> Side:
    service = f"ready-{proxy_class.name}"
    proxy = proxy_class(stage, programs, service)
    await proxy.start(stage.routing)
    container = await stage.container(
        programs, service, "one", stage.announcing, module=proxy_class.container
    )
    stack.push_async_callback(container.end)
    client = await stack.enter_async_context(
        asking(proxy_class.client, proxy.address, environment=proxy.client_environment)
    )
    return Side(proxy, container, client)


def rows(driver: str, sides: Mapping[str, Side]) -> list[Row]:
    group = "ready → routed"
    found = []
    for mark in hops.MARKS:
        samples = {server: [one[mark] for one in side.rounds] for server, side in sides.items()}
        is_last = mark == "answered"
        limit = LIMITS_MS.get(driver) if is_last else None
        found.append(
            timed(group, hops.NAMES[mark], samples, driver=driver, limit=limit, is_detail=not is_last)
        )
    gone = {server: side.gone_ms for server, side in sides.items()}
    return [*found, timed(group, GONE, gone, driver=driver)]
