"""What is shown, in order, and whether it was so. Every figure is taken from outside: from the clock of the one who
asks, and from the times other programs write into their own lines (same machine, same clock)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import time
from typing import TypeVar

from kvstore.client import Client, ClientError
from kvstore.demo.cluster import LocalCluster, MemberProcess
from kvstore.demo.hops import Hops, said
from kvstore.demo.load import Requests, Writes, stored_writes
from kvstore.demo.processes import Program, Programs, free_ports
from kvstore.demo.proxies import KVCTL, SERVICE, Proxy, start_all

WEB_COUNT = 4
START_S = 0.3  # what a web server of the demo takes to become ready
WRITE_TIMEOUT_S = 1.0  # after which a write that a dying leader took with it counts as of unknown outcome


@dataclass(slots=True)
class Row:
    """One line of the table at the end. is_so: None for a figure that has no right or wrong."""

    what: str
    figure: str
    is_so: bool | None = None


@dataclass(slots=True)
class Web:
    name: str
    announcer: Program
    pid: int
    address: str


@dataclass(slots=True)
class Show:
    cluster: LocalCluster
    programs: Programs
    client: Client
    say: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    webs: list[Web] = field(default_factory=list)
    proxies: list[Proxy] = field(default_factory=list)
    hops: Hops = field(default_factory=Hops)

    @property
    def url(self) -> str:
        """Of the builtin proxy."""
        return self.proxies[0].url

    async def run(self) -> None:
        await self._start_proxies()
        async with self._asking(client_count=1) as requests:
            await self._announce_all(requests)
        async with self._asking() as requests:
            await self._kill_instance(requests)
            await self._kill_leader(requests)

    async def _start_proxies(self) -> None:
        self.proxies = await start_all(self.programs, self._environment(), self.cluster.folder)
        self.say(f"a proxy listens on {self.url}; nobody is ready, so it answers 503")
        for other in self.proxies[1:]:
            self.say(f"{other.name} on {other.url} is driven from the same store")
        self.say(f"four web servers follow; each takes {START_S * 1e3:.0f} ms until it accepts connections")

    @asynccontextmanager
    async def _asking(self, client_count: int = 4) -> AsyncIterator[list[Requests]]:
        """Requests through each proxy, in the order of proxies."""
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(_running(Requests(proxy.url, client_count)))
                for proxy in self.proxies
            ]

    async def _announce_all(self, requests: list[Requests]) -> None:
        """(a) From the moment an instance is found ready to the first answer that came from it."""
        took_ms = []
        for number in range(1, WEB_COUNT + 1):
            web = await self._announce(f"web-{number}")
            ready_at = await said(web.announcer, "ready after")
            announced_at = await said(web.announcer, "announced ")
            answered = {
                proxy.name: await one.first_answer(web.name) for proxy, one in zip(self.proxies, requests)
            }
            took_ms.append((answered[self.proxies[0].name] - ready_at) * 1e3)
            self.say(
                f"{web.name}: ready → put acknowledged {(announced_at - ready_at) * 1e3:.1f} ms"
                f" → first answer through the proxy {took_ms[-1]:.1f} ms"
            )
            await self.hops.note(web.announcer, web.name, web.address, answered, self.proxies)
        figure = ", ".join(f"{one:.1f}" for one in took_ms) + " ms"
        self.rows.append(Row(f"ready → first request answered by it, {WEB_COUNT} times", figure))

    async def _announce(self, name: str) -> Web:
        port = free_ports(1)[0]
        command = [*KVCTL, "announce", SERVICE, f"--id={name}", f"--address=127.0.0.1:{port}"]
        command += [f"--check=http://127.0.0.1:{port}/", "--ttl=2s", "--"]
        command += [sys.executable, "-m", "kvstore.demo.webserver", name, str(port), str(START_S)]
        announcer = await self.programs.start(name, command, self._environment())
        pid = int((await announcer.wait_line(r"started .*, pid (\d+)"))[1])
        web = Web(name, announcer, pid, f"127.0.0.1:{port}")
        self.webs.append(web)
        return web

    async def _kill_instance(self, requests: list[Requests]) -> None:
        """(b) From SIGKILL of a web server to the proxies' having taken it out, under load."""
        web = self.webs[1]
        router = self.proxies[0].router
        with _counting(requests):
            await asyncio.sleep(0.3)
            seen = len(router.lines)
            killed_at = time()
            _kill(web.pid)
            self.say(f"{web.name} (pid {web.pid}) gets SIGKILL while {requests[0].client_count} clients ask")
            gone_at = await said(router, f" -{web.name} ", seen)
            await asyncio.sleep(0.5)
        took_ms = (gone_at - killed_at) * 1e3
        self.rows.append(Row("SIGKILL of a web server → taken out", f"{took_ms:.1f} ms"))
        counts = [f"{one.ok_count} answered, {len(one.failures)} failed" for one in requests]
        others = [f"; {proxy.name}: {count}" for proxy, count in zip(self.proxies[1:], counts[1:])]
        self.say(f"{web.name}: taken out after {took_ms:.1f} ms; {counts[0]}{''.join(others)}")
        self._rows_of_failures("  requests that failed around it", requests)
        status = await web.announcer.ended()
        self.rows.append(Row("  exit status passed on by its announcer", str(status), status == 128 + 9))

    async def _kill_leader(self, requests: list[Requests]) -> None:
        """(c) The leader dies under load: who notices, what is lost, how long nothing could be written."""
        client = Client(self.cluster.endpoints, timeout_s=WRITE_TIMEOUT_S)
        async with client, _running(Writes(client)) as writes:
            with _counting(requests):
                await asyncio.sleep(0.5)
                leader = await self.cluster.leader(self.client)
                assert leader.program is not None
                self.say(f"{leader.name} (pid {leader.program.pid}), the leader, gets SIGKILL under load")
                killed_at = time()
                await leader.program.kill()
                first_s = await writes.first_after(killed_at, 10.0)
                text = "none within 10 s" if first_s is None else f"{first_s * 1e3:.0f} ms"
                self.say(f"first write acknowledged after the kill: {text}")
                self.rows.append(Row("leader killed → first write acknowledged", text, first_s is not None))
                await asyncio.sleep(0.5)
                await self._restart(leader)
                await asyncio.sleep(0.3)
        self._rows_of_failures("  HTTP requests that failed meanwhile", requests)
        await self._check_writes(writes, leader)

    def _rows_of_failures(self, what: str, requests: list[Requests]) -> None:
        for proxy, one in zip(self.proxies, requests):
            which = "" if proxy is self.proxies[0] else f" ({proxy.name})"
            self.rows.append(_none_failed(f"{what}{which}", one))

    async def _restart(self, member: MemberProcess) -> None:
        started = time()
        await self.cluster.launch(member)
        await self.cluster.ready(member)
        goal = (await self.client.get("demo/", limit=1)).revision
        caught_up_s = await _caught_up(member, goal, 10.0)
        text = "not within 10 s" if caught_up_s is None else f"{(caught_up_s - started) * 1e3:.0f} ms"
        self.say(f"{member.name} is started again; caught up with revision {goal}: {text}")
        self.rows.append(Row("killed member started again → caught up", text, caught_up_s is not None))

    async def _check_writes(self, writes: Writes, restarted: MemberProcess) -> None:
        stored = await stored_writes(self.client)
        lost = [key for key, value in writes.acknowledged.items() if stored.get(key) != value]
        applied = sum(key in stored for key in writes.unknown)
        self.say(f"{len(writes.acknowledged)} writes acknowledged, {len(lost)} of them lost")
        self.rows.append(
            Row("acknowledged writes lost", f"{len(lost)} of {len(writes.acknowledged)}", not lost)
        )
        if writes.unknown:
            text = f"{len(writes.unknown)}, of which {applied} took effect"
            self.rows.append(Row("  writes of unknown outcome, told as such", text))
        same = await _agrees(restarted, self.client)
        self.rows.append(Row("  the member started again holds the same", "yes" if same else "no", same))

    def _environment(self) -> dict[str, str]:
        return {"KVCTL_ENDPOINTS": ",".join(self.cluster.endpoints), "PYTHONUNBUFFERED": "1"}


Load = TypeVar("Load", Requests, Writes)


@asynccontextmanager
async def _running(load: Load) -> AsyncIterator[Load]:
    task = asyncio.ensure_future(load.run())
    try:
        yield load
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextmanager
def _counting(requests: list[Requests]) -> Iterator[None]:
    with ExitStack() as stack:
        for one in requests:
            stack.enter_context(one.counting())
        yield


def _none_failed(what: str, requests: Requests) -> Row:
    failed = len(requests.failures)
    example = f": {requests.failures[0]}" if failed else ""
    return Row(what, f"{failed} of {requests.ok_count + failed}{example}", failed == 0)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def _caught_up(member: MemberProcess, revision: int, timeout_s: float) -> float | None:
    """When the member itself was first seen to have the revision."""
    async with Client(member.endpoint) as client:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    with contextlib.suppress(ClientError):
                        if (await client.get("demo/", limit=1, serializable=True)).revision >= revision:
                            return time()
                    await asyncio.sleep(0.01)
    return None


async def _agrees(member: MemberProcess, cluster: Client) -> bool:
    """The member holds what the cluster holds. Both are read again each time: a write whose writer was stopped
    before its answer may still take effect."""
    async with Client(member.endpoint) as client:
        for _ in range(100):
            if await stored_writes(client, serializable=True) == await stored_writes(cluster):
                return True
            await asyncio.sleep(0.02)
    return False
