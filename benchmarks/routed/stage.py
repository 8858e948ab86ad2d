"""Where the measurements take place: two clusters, and programs around them that write to files.

Their output goes to files instead of to us, so that a line that is written in the middle of a round wakes nobody up.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from kvstore.demo.processes import Program, ProgramFailed, Programs, free_ports

KVCTL = str(Path(sys.executable).parent / "kvctl")
ANSWER_S = 60.0
_numbers = itertools.count(1)
LINE_BYTES_MAX = 1 << 24


@dataclass(slots=True)
class Logged:
    """A program whose lines are in a file."""

    program: Program
    path: Path
    _read: int = 0

    @classmethod
    async def start(
        cls, programs: Programs, path: Path, command: Sequence[str], environment: dict[str, str] | None = None
    ) -> Logged:
        shell = ["/bin/sh", "-c", 'exec "$@" >>"$0" 2>&1', str(path), *command]
        return cls(await programs.start(path.stem, shell, environment), path)

    def text(self) -> str:
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def new_lines(self) -> list[str]:
        """Those that were completed since the last call."""
        whole = self.text().rpartition("\n")[0].splitlines()
        fresh, self._read = whole[self._read :], len(whole)
        return fresh

    async def wait_line(self, pattern: str, timeout_s: float = 20.0) -> str:
        """The first line that has it, from the beginning. Raises ProgramFailed."""
        deadline = time.monotonic() + timeout_s
        while True:
            for line in self.text().splitlines():
                if pattern in line:
                    return line
            if self.program.status is not None or time.monotonic() > deadline:
                tail = self.text()[-1500:]
                raise ProgramFailed(f"{self.path.stem} did not say {pattern!r}:\n{tail}")
            await asyncio.sleep(0.01)


class Spoken:
    """A process that obeys lines, and answers each with one."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, process: Any = None
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._process = process

    @classmethod
    async def run(cls, *command: str, environment: dict[str, str] | None = None) -> Spoken:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            limit=LINE_BYTES_MAX,
            start_new_session=True,
        )
        assert process.stdout is not None and process.stdin is not None
        return cls(process.stdout, process.stdin, process)

    @classmethod
    async def at(cls, path: Path, timeout_s: float = 20.0) -> Spoken:
        """What listens on a Unix socket, as soon as it does. Raises ProgramFailed."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return cls(*await asyncio.open_unix_connection(str(path)))
            except OSError:
                if time.monotonic() > deadline:
                    raise ProgramFailed(f"nobody listens on {path}") from None
                await asyncio.sleep(0.01)

    def say(self, word: str) -> None:
        self._writer.write(f"{word}\n".encode())

    async def hear(self, timeout_s: float = ANSWER_S) -> str:
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._reader.readline()
        except TimeoutError:
            raise ProgramFailed(f"no answer within {timeout_s:g} s") from None
        if not line:
            raise ProgramFailed("it ended without an answer")
        return line.decode().strip()

    async def ask(self, word: str, timeout_s: float = ANSWER_S) -> str:
        self.say(word)
        return await self.hear(timeout_s)

    async def close(self) -> None:
        self._writer.close()
        if self._process is not None:
            try:
                async with asyncio.timeout(5):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


@dataclass(slots=True)
class Container:
    """`kvctl announce --check notify`, and the server that it runs."""

    name: str
    port: int
    announcer: Logged
    server_pid: int
    control: Spoken

    async def told(self, word: str) -> int:
        return int((await self.control.ask(word)).split()[0])

    async def ready(self) -> None:
        """Returns when it is announced."""
        await self.told("ready")
        await self.announcer.wait_line(" announced ")

    def kill(self, *, wrapper: bool) -> int:
        """SIGKILL of the server's process group, and first of the wrapper too, which must not get to see it; when,
        just before."""
        at = time.monotonic_ns()
        if wrapper:
            os.kill(self.announcer.program.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.server_pid, signal.SIGKILL)
        return at

    async def end(self) -> None:
        """However it is by now."""
        await self.control.close()
        await self.announcer.program.stop()
        with contextlib.suppress(OSError):
            if f"container\0{self.name}\0" in Path(f"/proc/{self.server_pid}/cmdline").read_text():
                os.killpg(self.server_pid, signal.SIGKILL)


@dataclass(slots=True)
class Stage:
    """One server's cluster. announcing, routing: the members that announcers and routers talk to, where it is to
    be one: two different followers, so that an announcement makes its longest way."""

    server: str
    bench: Bench
    folder: Path
    announcing: str
    routing: str

    @classmethod
    def of(cls, bench: Bench, server: str) -> Stage:
        leader = bench.leaders[server]
        followers = [one.endpoint for one in bench.clusters[server].members if one is not leader]
        folder = bench.folder / f"stage-{server}"
        folder.mkdir(exist_ok=True)
        announcing, routing = followers[:2]
        return cls(server, bench, folder, announcing, routing)

    @property
    def everybody(self) -> str:
        return ",".join(self.bench.clusters[self.server].endpoints)

    def fresh(self, what: str) -> Path:
        """A path that nobody has had; short, because sockets may be put there."""
        return self.folder / f"{what}-{next(_numbers)}"

    async def kvctl(self, programs: Programs, name: str, endpoints: str, *words: str) -> Logged:
        command = [KVCTL, "--endpoints", endpoints, *words]
        return await Logged.start(programs, self.fresh(name).with_suffix(".log"), command)

    async def container(
        self,
        programs: Programs,
        service: str,
        name: str,
        endpoints: str,
        *options: str,
        port: int = 0,
        module: str = "container",
    ) -> Container:
        """Running, and not ready yet."""
        port = port or free_ports(1)[0]
        control = self.fresh("c").with_suffix(".sock")
        server = [sys.executable, "-m", f"benchmarks.routed.{module}", name, str(port), str(control)]
        words = ["announce", service, "--id", name, "--address", f"127.0.0.1:{port}", "--check", "notify"]
        words += ["--flips", "0"]  # a round is a flip
        announcer = await self.kvctl(programs, name, endpoints, *words, *options, "--", *server)
        line = await announcer.wait_line(" started ")
        return Container(name, port, announcer, int(line.rpartition("pid ")[2]), await Spoken.at(control))


@contextlib.asynccontextmanager
async def asking(module: str, address: str, *options: str, **more: Any) -> AsyncIterator[Spoken]:
    """A client of its own process."""
    command = (sys.executable, "-m", f"benchmarks.routed.{module}", address, *options)
    client = await Spoken.run(*command, **more)
    try:
        yield client
    finally:
        await client.close()


async def told(client: Spoken, word: str) -> dict[str, Any]:
    found = json.loads(await client.ask(word))
    assert isinstance(found, dict), found
    return found


def wall_offset_ns() -> int:
    """What the wall clock is ahead of the monotonic one."""
    return time.time_ns() - time.monotonic_ns()
