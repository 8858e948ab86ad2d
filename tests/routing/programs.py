"""What the tests of this folder run: a store, kvctl, web servers, HAProxy. All on loopback, all ended by pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from kvstore.demo.cluster import READY, server_program
from kvstore.demo.processes import Program, Programs, free_ports
from kvstore.routing.haproxy import HaproxyError, ask

KVCTL = [sys.executable, "-m", "kvstore.cli.main"]
DEADLINE_S = 10.0


def required(program: str, name: str) -> str:
    """The path of a program; where it is missing a test is skipped, and fails where CI is set."""
    found = shutil.which(program)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed", pytrace=False)
        pytest.skip(f"{name} is not installed")
    return found


async def until(what: str, holds: Callable[[], Awaitable[bool]], timeout_s: float = DEADLINE_S) -> None:
    """Asks again and again until it holds."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await holds():  # noqa: ASYNC110 - other processes cannot set an event
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within {timeout_s:g} s: {what}", pytrace=False)


class Store:
    """One member, which can be killed and started again on the same ports and data."""

    def __init__(self, program: str, folder: Path) -> None:
        client, peer = free_ports(2)
        self.is_ours = program == "kvstore"
        self.endpoint = f"127.0.0.1:{client}"
        self._log = folder / "store.log"
        self._process: subprocess.Popen[bytes] | None = None
        flags = {
            "name": "m1",
            "data-dir": folder / "m1.etcd",
            "listen-client-urls": f"http://{self.endpoint}",
            "advertise-client-urls": f"http://{self.endpoint}",
            "listen-peer-urls": f"http://127.0.0.1:{peer}",
            "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
            "initial-cluster": f"m1=http://127.0.0.1:{peer}",
        }
        self._command = [required(server_program(program), program)]
        self._command += [f"--{name}={value}" for name, value in flags.items()]

    def start(self) -> None:
        """Returns when it serves."""
        seen = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 20.0
        while READY not in self._log.read_text(errors="replace")[seen:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the store does not serve:\n{self._log.read_text()[-2000:]}", pytrace=False)
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@dataclass(slots=True)
class Bench:
    """A service of its own on a store, and the programs of one test."""

    service: str
    endpoint: str
    programs: Programs
    webs: dict[str, int] = field(default_factory=dict)

    async def kvctl(self, name: str, *arguments: str) -> Program:
        environment = {"KVCTL_ENDPOINTS": self.endpoint, "PYTHONUNBUFFERED": "1"}
        return await self.programs.start(name, [*KVCTL, *arguments], environment)

    async def announce(self, name: str, *options: str, port: int = 0) -> Program:
        """A web server that answers its name, announced under it. Returns when it is announced."""
        announcer = await self.start_announce(name, *options, port=port)
        await announcer.wait_line("announced ")
        return announcer

    async def start_announce(self, name: str, *options: str, port: int = 0) -> Program:
        port = port or free_ports(1)[0]
        command = [sys.executable, "-m", "kvstore.demo.webserver", name, str(port)]
        words = ["announce", self.service, f"--id={name}", f"--address=127.0.0.1:{port}", "--check=/"]
        announcer = await self.kvctl(name, *words, "--interval=50ms", *options, "--", *command)
        self.webs[name] = int((await announcer.wait_line(r"started .*, pid (\d+)"))[1])
        return announcer

    def kill_web(self, name: str) -> None:
        os.kill(self.webs[name], signal.SIGKILL)

    async def builtin(self, *options: str) -> str:
        """A builtin proxy; its URL."""
        proxy = await self.kvctl(
            "proxy", "route", "builtin", f"--service={self.service}", "--listen=127.0.0.1:0", *options
        )
        return f"http://{(await proxy.wait_line('listening on (.*)'))[1]}/"

    def kill_left_behind(self) -> None:
        """Web servers whose announcer was killed."""
        for pid in self.webs.values():
            with contextlib.suppress(ProcessLookupError, OSError):
                if "webserver" in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def bench(service: str, endpoint: str) -> AsyncIterator[Bench]:
    made: Bench | None = None
    try:
        async with Programs() as programs:
            made = Bench(service, endpoint, programs)
            yield made
    finally:
        if made is not None:
            made.kill_left_behind()


@dataclass(slots=True)
class Answers:
    """What a client gets that asks one request after another on one connection, all the time."""

    url: str
    names: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(connector=connector) as session:
            while True:
                try:
                    async with session.get(self.url) as response:
                        text = (await response.text()).strip()
                        if response.status == 200:
                            self.names.append(text)
                        else:
                            self.failures.append(f"{response.status} {text}")
                except (aiohttp.ClientError, OSError) as problem:
                    self.failures.append(repr(problem))
                await asyncio.sleep(0.002)

    async def only(self, *names: str, count: int = 12) -> None:
        """Waits until the last answers came from exactly these instances."""

        async def holds() -> bool:
            return set(self.names[-count:]) == set(names)

        await until(f"answers from {names}, last were {self.names[-count:]}, {self.failures[-3:]}", holds)

    async def failing_with(self, text: str) -> None:
        """Waits until a request fails so; those before may fail otherwise, while the news is on its way."""

        async def holds() -> bool:
            return self.failures[-1:] == [text]

        await until(f"requests fail with {text!r}, last were {self.failures[-3:]}", holds)

    async def failing(self) -> None:
        """Waits until a request fails that is sent from now on."""
        before = len(self.failures)

        async def holds() -> bool:
            return len(self.failures) > before + 1

        await until("requests fail", holds)


@contextlib.asynccontextmanager
async def asking(url: str) -> AsyncIterator[Answers]:
    answers = Answers(url)
    task = asyncio.ensure_future(answers.run())
    try:
        yield answers
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Haproxy:
    """HAProxy with the example configuration of deploy/, on a port and socket of its own. servers: a line for the
    backend, which has none in the example."""

    def __init__(self, folder: Path, programs: Programs, servers: str = "") -> None:
        self.socket = str(folder / "h.sock")
        self._config = folder / "haproxy.cfg"
        self._programs = programs
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}/"
        example = Path(__file__).parent.parent.parent / "deploy" / "haproxy.cfg"
        text = example.read_text().replace("/run/haproxy/admin.sock", self.socket)
        example_servers = "# server-template kv 1-20 0.0.0.0:0 disabled"
        assert example_servers in text
        text = text.replace(example_servers, servers)
        self._config.write_text(text.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
        self._program = required("haproxy", "haproxy")

    async def start(self) -> Program:
        running = await self._programs.start("haproxy", [self._program, "-db", "-f", str(self._config)])
        await until("HAProxy's socket answers", self._answers)
        return running

    async def _answers(self) -> bool:
        try:
            await ask(self.socket, ["show info"])
        except HaproxyError:
            return False
        return True

    async def info(self) -> dict[str, str]:
        (text,) = await ask(self.socket, ["show info"])
        return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)

    async def servers(self) -> list[str]:
        (text,) = await ask(self.socket, ["show servers state web"])
        return sorted(line.split()[3] for line in text.splitlines()[2:])


def started_store(program: str, folder: Path) -> Iterator[Store]:
    store = Store(program, folder)
    try:
        store.start()
        yield store
    finally:
        store.kill()
