"""Other programs, started and ended by pid, their output read line by line as it comes.

Each gets a session of its own, so that Ctrl-C at the terminal reaches only us and we end the others in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType


class ProgramFailed(Exception):
    """A program did not say what it should in time, or ended before it."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 nobody has at this moment, and that no connection will get: one from the kernel's own range
    could be taken by any client before the server it was meant for is up.

    They come from blocks a process holds until it ends, so two processes that look for ports at the same time (the
    workers of a test run) never find the same one.
    """
    found: list[int] = []
    while len(found) < count:
        if not _left:
            _left.extend(_claim_block())
        port = _left.pop()
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found


def _claim_block() -> list[int]:
    """The ports of a block that no other process has claimed; in reverse, for they are taken from the end."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        kernels = int(file.read().split()[0])
    starts = list(range(PORT_FIRST, min(PORT_END, kernels) - BLOCK + 1, BLOCK))
    random.SystemRandom().shuffle(starts)
    for start in starts:
        # A name in the abstract namespace is one process's at a time, and is free again when that process ends.
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0kvstore-ports-{start}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim.detach())  # open until the process ends: nothing closes it, and nothing need to
        return list(range(start + BLOCK - 1, start - 1, -1))
    raise OSError(
        errno.EADDRINUSE, "every block of ports for tests is claimed; end what holds them and try again"
    )


PORT_FIRST, PORT_END, BLOCK = 10_000, 32_000, 50
_left: list[int] = []
_claims: list[int] = []


class Program:
    """One running program. lines: everything it has written so far, stdout and stderr in one."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.pid = process.pid
        self.lines: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._news = asyncio.Event()
        self._exited = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())
        # asyncio's own subprocesses count as ended only when their pipes are closed too, and a grandchild that
        # was left behind keeps those open.
        threading.Thread(target=self._wait, name=f"wait for {name}", daemon=True).start()

    @classmethod
    def start(
        cls, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Program:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        return cls(name, process)

    @property
    def status(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.returncode

    async def wait_line(self, pattern: str, timeout_s: float = 15.0, start: int = 0) -> re.Match[str]:
        """The first line, from number start on, in which the pattern is found. Raises ProgramFailed."""
        return await self.wait_for(
            lambda line: re.search(pattern, line), f"a line with {pattern!r}", timeout_s, start
        )

    async def wait_for(
        self, find: Callable[[str], re.Match[str] | None], what: str, timeout_s: float, start: int = 0
    ) -> re.Match[str]:
        seen = start
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._news.clear()
                    for line in self.lines[seen:]:
                        seen += 1
                        if found := find(line):
                            return found
                    if self._reading.done():
                        raise ProgramFailed(f"{self.name} ended before {what}:\n{self.tail()}")
                    await self._news.wait()
        except TimeoutError:
            raise ProgramFailed(f"{self.name}: not {what} within {timeout_s:g} s:\n{self.tail()}") from None

    def tail(self, count: int = 15) -> str:
        return "\n".join(f"    {line}" for line in self.lines[-count:])

    def signal(self, number: int) -> None:
        if not self._exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended()

    async def stop(self, timeout_s: float = 5.0) -> int:
        """SIGTERM, and SIGKILL when that takes too long; its status."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout_s):
                return await self.ended()
        except TimeoutError:
            await self.kill()
            return await self.ended()

    async def ended(self) -> int:
        await self._exited.wait()
        await asyncio.wait(
            [self._reading], timeout=0.1
        )  # for the rest of its lines, but not for a grandchild's
        self._reading.cancel()
        self._news.set()
        return self._process.returncode

    async def _read(self) -> None:
        reader = asyncio.StreamReader(limit=1 << 20)
        transport, _ = await self._loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout
        )
        try:
            async for data in reader:
                self.lines.append(data.decode(errors="replace").rstrip("\n"))
                self._news.set()
        finally:
            transport.close()
            self._news.set()

    def _wait(self) -> None:
        self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._exited.set)


class Programs:
    """Everything started here is ended at the end: asked first, last started first asked, then killed."""

    def __init__(self) -> None:
        self._running: list[Program] = []

    async def __aenter__(self) -> Programs:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._running:
            await self._running.pop().stop()

    async def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Program:
        program = Program.start(name, command, environment)
        self._running.append(program)
        return program
