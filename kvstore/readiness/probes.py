"""One question, one answer: is it ready at this moment? tcp, http(s) and command probes.

    tcp               the announced address accepts a connection      tcp:HOST:PORT   another address does
    http://… https:// the URL answers 200 to 399                      /path           the same at the announced address
    cmd:COMMAND       the shell command exits with status 0
    none              no question: ready as soon as it is started

Every probe answers within its timeout and never raises: what went wrong is the reason in the answer. Each takes a
new connection, because whether the listener still accepts is half of the question.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from kvstore.readiness.instance import InvalidInstance, split_address
from kvstore.readiness.process import Children, CommandNotStarted

if TYPE_CHECKING:
    import aiohttp

SHELL = "/bin/sh"


@dataclass(frozen=True, slots=True)
class Answer:
    """reason: why not, in a few words; empty when ok."""

    ok: bool
    reason: str = ""


class Probe(Protocol):
    async def ask(self) -> Answer: ...

    async def close(self) -> None: ...


class InvalidCheck(ValueError):
    """The text of a check that no probe can be made from."""


class _Base:
    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    async def ask(self) -> Answer:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask()
        except TimeoutError:
            return Answer(False, f"no answer within {self._timeout_s:g} s")

    async def _ask(self) -> Answer:
        raise NotImplementedError

    async def close(self) -> None:
        return

    async def __aenter__(self) -> _Base:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class NoProbe(_Base):
    async def _ask(self) -> Answer:
        return Answer(True)


class TcpProbe(_Base):
    def __init__(self, address: str, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._host, self._port = split_address(address)

    async def _ask(self) -> Answer:
        try:
            _, writer = await asyncio.open_connection(self._host, self._port)
        except OSError as problem:
            return Answer(False, _short(problem))
        writer.transport.abort()
        return Answer(True)


class HttpProbe(_Base):
    def __init__(self, url: str, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def _ask(self) -> Answer:
        import aiohttp  # a third of a second that a command must not wait for, see announcer.run

        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        try:
            async with self._session.get(self._url, allow_redirects=False) as response:
                if 200 <= response.status < 400:
                    return Answer(True)
                return Answer(False, f"HTTP status {response.status}")
        except aiohttp.ClientConnectorError as problem:
            return Answer(False, _short(problem.os_error))
        except (aiohttp.ClientError, OSError) as problem:
            return Answer(False, str(problem) or type(problem).__name__)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class CommandProbe(_Base):
    """Its output is thrown away. When it overruns its timeout its whole process group is killed."""

    def __init__(self, command: str, timeout_s: float, children: Children) -> None:
        super().__init__(timeout_s)
        self._command = command
        self._children = children

    async def _ask(self) -> Answer:
        quiet = asyncio.subprocess.DEVNULL
        try:
            child = self._children.start(
                [SHELL, "-c", self._command], stdin=quiet, stdout=quiet, stderr=quiet
            )
        except CommandNotStarted as problem:
            return Answer(False, str(problem))
        try:
            status = await asyncio.shield(child.exited)
        finally:
            child.kill_group()
        return Answer(status == 0, "" if status == 0 else f"exit status {status}")


def make_probe(check: str, address: str, timeout_s: float, children: Children) -> Probe:
    """Raises InvalidCheck."""
    kind, _, rest = check.partition(":")
    if check == "none":
        return NoProbe(timeout_s)
    if check == "tcp":
        return TcpProbe(address, timeout_s)
    if check.startswith("/"):
        return HttpProbe(f"http://{address}{check}", timeout_s)
    if kind == "tcp":
        try:
            return TcpProbe(rest, timeout_s)
        except InvalidInstance as problem:
            raise InvalidCheck(f"check {check!r}: {problem.reason}") from None
    if kind in ("http", "https") and rest.startswith("//") and len(rest) > 2:
        return HttpProbe(check, timeout_s)
    if kind == "cmd" and rest.strip():
        return CommandProbe(rest, timeout_s, children)
    raise InvalidCheck(
        f"check {check!r} is none of: tcp, tcp:HOST:PORT, http://…, https://…, /PATH, cmd:COMMAND, none"
    )


def _short(problem: OSError) -> str:
    if problem.errno and problem.errno > 0:
        return os.strerror(problem.errno).lower()
    return problem.strerror or str(problem) or type(problem).__name__
