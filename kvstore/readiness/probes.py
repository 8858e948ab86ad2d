"""One question, one answer: is it ready at this moment? tcp, http(s), gRPC, file and command probes.

    tcp               the announced address accepts a connection      tcp:HOST:PORT   another address does
    http://… https:// the URL answers 200 to 399                      /path           the same at the announced address
    grpc              the gRPC health service (grpc.health.v1) at the announced address says SERVING
    grpc:/SERVICE     the same of one service of it                   grpc:HOST:PORT[/SERVICE]   at another address
    file:PATH         there is such a file                            cmd:COMMAND   the command exits with status 0
    notify            the command says so itself (notify.py)
    none              no question: ready as soon as it is started

Every probe answers within its timeout, but for notify, which answers when there is something new. None raises: what
went wrong is the reason in the answer. Each takes a new connection, because whether the listener still accepts is
half of the question.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import quote, urlsplit, urlunsplit

from kvstore.readiness.health import Policy
from kvstore.readiness.instance import InvalidInstance, split_address
from kvstore.readiness.notify import NotifySocket
from kvstore.readiness.process import Child, Children, CommandNotStarted

SHELL = "/bin/sh"
KINDS = (
    *("tcp", "tcp:HOST:PORT", "http://…", "https://…", "/PATH", "grpc[:[HOST:PORT][/SERVICE]]"),
    *("file:PATH", "cmd:COMMAND", "notify", "none"),
)
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r\n]")


@dataclass(frozen=True, slots=True)
class Answer:
    """reason: why not, in a few words; empty when ok."""

    ok: bool
    reason: str = ""


class Probe(Protocol):
    environment: Mapping[str, str]
    """What the command has to know of it."""

    def policy(self, asked: Policy) -> Policy:
        """The policy it can be asked with, for the one that was asked for."""

    async def ask(self) -> Answer: ...

    def started(self, child: Child) -> None: ...

    def close(self) -> None: ...


class InvalidCheck(ValueError):
    """The text of a check that no probe can be made from."""


class _Base:
    environment: Mapping[str, str] = {}

    def policy(self, asked: Policy) -> Policy:
        return asked

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def started(self, child: Child) -> None:
        """The command runs now."""

    def close(self) -> None:
        """It is not asked any more."""

    async def ask(self) -> Answer:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask()
        except TimeoutError:
            return Answer(False, f"no answer within {self._timeout_s:g} s")

    async def _ask(self) -> Answer:
        raise NotImplementedError


class NoProbe(_Base):
    async def _ask(self) -> Answer:
        return Answer(True)


class NotifyProbe(_Base):
    """Answers when the command has said something new, and not before: nothing is polled."""

    def policy(self, asked: Policy) -> Policy:
        return replace(asked, rise=1, fall=1, interval_s=0.001, jitter=0.0)

    def __init__(self, watchdog_s: float) -> None:
        super().__init__(float("inf"))
        self._socket = NotifySocket(watchdog_s=watchdog_s)
        self.environment = self._socket.environment
        self._was_ready = False

    async def ask(self) -> Answer:
        reason = await self._socket.differs_from(self._was_ready)
        self._was_ready = not reason
        return Answer(self._was_ready, reason)

    def started(self, child: Child) -> None:
        def is_theirs(pid: int) -> bool:
            try:
                return os.getpgid(pid) == child.pid
            except ProcessLookupError:
                return False

        self._socket.is_theirs = is_theirs

    def close(self) -> None:
        self._socket.close()


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
    """One GET, of whose answer only the status is read. aiohttp is not used for it: loading it takes a quarter
    of a second, which is longer than many an instance takes to become ready."""

    def __init__(self, url: str, timeout_s: float) -> None:
        super().__init__(timeout_s)
        parts = urlsplit(url)
        if not parts.hostname:
            raise InvalidCheck(f"check {url!r} has no host")
        try:
            self._port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as problem:
            raise InvalidCheck(f"check {url!r}: {problem}") from None
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        target = quote(urlunsplit(("", "", parts.path or "/", parts.query, "")), safe="/?=&%;:@!$'()*+,-._~")
        self._request = (
            f"GET {target} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
            "User-Agent: kvctl-announce\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        ).encode()

    async def _ask(self) -> Answer:
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        except OSError as problem:
            return Answer(False, _short(problem))
        try:
            writer.write(self._request)
            line = await reader.readline()
        except (OSError, ValueError) as problem:
            return Answer(False, str(problem))
        finally:
            writer.transport.abort()
        match = _STATUS_LINE.match(line)
        if match is None:
            return Answer(
                False, "the answer is not HTTP" if line else "the connection was closed without an answer"
            )
        status = int(match[1])
        return Answer(200 <= status < 400, "" if 200 <= status < 400 else f"HTTP status {status}")


class FileProbe(_Base):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._path = path

    async def _ask(self) -> Answer:
        is_there = await asyncio.to_thread(os.path.exists, self._path)  # a network's file system may hang
        return Answer(is_there, "" if is_there else f"{self._path} is not there")


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


def make_probe(
    check: str, address: str, timeout_s: float, children: Children, *, watchdog_s: float = 0.0
) -> Probe:
    """watchdog_s: for notify, 0 for none. Raises InvalidCheck."""
    if check == "notify":
        return NotifyProbe(watchdog_s)
    if watchdog_s:
        raise InvalidCheck(f"a watchdog is a matter of check 'notify', not of {check!r}")
    kind, _, rest = check.partition(":")
    if kind == "cmd" and rest.strip():
        return CommandProbe(rest, timeout_s, children)
    if kind == "file" and rest:
        return FileProbe(rest, timeout_s)
    return make_network_probe(check, address, timeout_s)


def make_network_probe(check: str, address: str, timeout_s: float) -> Probe:
    """Of those that ask over the network, or nobody: they mean the same on every machine. Raises InvalidCheck."""
    kind, _, rest = check.partition(":")
    if check == "none":
        return NoProbe(timeout_s)
    if check == "tcp":
        return TcpProbe(address, timeout_s)
    if check.startswith("/"):
        return HttpProbe(f"http://{address}{check}", timeout_s)
    try:
        if kind == "tcp":
            return TcpProbe(rest, timeout_s)
        if kind == "grpc":
            from kvstore.readiness.grpc_probe import GrpcProbe

            where, _, service = rest.partition("/")
            return GrpcProbe(where or address, service, timeout_s)
    except InvalidInstance as problem:
        raise InvalidCheck(f"check {check!r}: {problem.reason}") from None
    if kind in ("http", "https") and rest.startswith("//") and len(rest) > 2:
        return HttpProbe(check, timeout_s)
    raise InvalidCheck(f"check {check!r} is none of: {', '.join(KINDS)}")


def _short(problem: OSError) -> str:
    if problem.errno and problem.errno > 0:
        return os.strerror(problem.errno).lower()
    return problem.strerror or str(problem) or type(problem).__name__
