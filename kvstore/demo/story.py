"""What is shown, in order, and whether it was so. Every figure is taken from outside: from the clock of the one who
asks, and from the times other programs write into their own lines (same machine, same clock)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import time
from typing import TypeVar

from kvstore.client import Client, ClientError
from kvstore.demo.cluster import LocalCluster, MemberProcess
from kvstore.demo.load import Requests, Writes, stored_writes
from kvstore.demo.processes import Program, Programs, free_ports
from kvstore.readiness.console import parse_line

KVCTL = (sys.executable, "-m", "kvstore.cli.main")
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


@dataclass(slots=True)
class Show:
    cluster: LocalCluster
    programs: Programs
    client: Client
    say: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    webs: list[Web] = field(default_factory=list)
    proxy_port: int = 0
    proxy: Program | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy_port}/"

    async def run(self) -> None:
        await self._start_proxy()
        async with _running(Requests(self.url, client_count=1)) as requests:
            await self._announce_all(requests)
        async with _running(Requests(self.url)) as requests:
            await self._kill_instance(requests)
            await self._kill_leader(requests)

    async def _start_proxy(self) -> None:
        self.proxy_port = free_ports(1)[0]
        self.proxy = await self.programs.start(
            "proxy",
            [*KVCTL, "route", "builtin", "--service=demo", f"--listen=127.0.0.1:{self.proxy_port}"],
            self._environment(),
        )
        await self.proxy.wait_line("listening on")
        self.say(f"a proxy listens on {self.url}; nobody is ready, so it answers 503")
        self.say(f"four web servers follow; each takes {START_S * 1e3:.0f} ms until it accepts connections")

    async def _announce_all(self, requests: Requests) -> None:
        """(a) From the moment an instance is found ready to the first answer that came from it."""
        took_ms = []
        for number in range(1, WEB_COUNT + 1):
            web = await self._announce(f"web-{number}")
            ready_at, _ = await _said(web.announcer, "ready after")
            announced_at, _ = await _said(web.announcer, "announced ")
            answered_at = await requests.first_answer(web.name)
            took_ms.append((answered_at - ready_at) * 1e3)
            self.say(
                f"{web.name}: ready → put acknowledged {(announced_at - ready_at) * 1e3:.1f} ms"
                f" → first answer through the proxy {took_ms[-1]:.1f} ms"
            )
        figure = ", ".join(f"{one:.1f}" for one in took_ms) + " ms"
        self.rows.append(Row(f"ready → first request answered by it, {WEB_COUNT} times", figure))

    async def _announce(self, name: str) -> Web:
        port = free_ports(1)[0]
        command = [*KVCTL, "announce", "demo", f"--id={name}", f"--address=127.0.0.1:{port}"]
        command += [f"--check=http://127.0.0.1:{port}/", "--ttl=2s", "--"]
        command += [sys.executable, "-m", "kvstore.demo.webserver", name, str(port), str(START_S)]
        announcer = await self.programs.start(name, command, self._environment())
        pid = int((await announcer.wait_line(r"started .*, pid (\d+)"))[1])
        web = Web(name, announcer, pid)
        self.webs.append(web)
        return web

    async def _kill_instance(self, requests: Requests) -> None:
        """(b) From SIGKILL of a web server to the proxy's having taken it out, under load."""
        assert self.proxy is not None
        web = self.webs[1]
        with requests.counting():
            await asyncio.sleep(0.3)
            seen = len(self.proxy.lines)
            killed_at = time()
            _kill(web.pid)
            self.say(f"{web.name} (pid {web.pid}) gets SIGKILL while {requests.client_count} clients ask")
            await self.proxy.wait_line(rf" -{web.name} ", 10.0, seen)
            gone_at, _ = await _said(self.proxy, f" -{web.name} ", seen)
            await asyncio.sleep(0.5)
        took_ms, failed = (gone_at - killed_at) * 1e3, len(requests.failures)
        self.say(
            f"{web.name}: taken out after {took_ms:.1f} ms; {requests.ok_count} answered, {failed} failed"
        )
        self.rows.append(Row("SIGKILL of a web server → taken out", f"{took_ms:.1f} ms"))
        self.rows.append(_none_failed("  requests that failed around it", requests))
        status = await web.announcer.ended()
        self.rows.append(Row("  exit status passed on by its announcer", str(status), status == 128 + 9))

    async def _kill_leader(self, requests: Requests) -> None:
        """(c) The leader dies under load: who notices, what is lost, how long nothing could be written."""
        client = Client(self.cluster.endpoints, timeout_s=WRITE_TIMEOUT_S)
        async with client, _running(Writes(client)) as writes:
            with requests.counting():
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
        self.rows.append(_none_failed("  HTTP requests that failed meanwhile", requests))
        await self._check_writes(writes, leader)

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


def _none_failed(what: str, requests: Requests) -> Row:
    failed = len(requests.failures)
    example = f": {requests.failures[0]}" if failed else ""
    return Row(what, f"{failed} of {requests.ok_count + failed}{example}", failed == 0)


async def _said(program: Program, text: str, start: int = 0) -> tuple[float, str]:
    """When the program says it had written the first line with this text, and the line."""
    line = (await program.wait_line(f"Z .*{text}|Z {text}", start=start)).string
    parsed = parse_line(line)
    assert parsed is not None
    return parsed


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
