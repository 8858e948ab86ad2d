"""Instances and a builtin proxy in the test's own event loop: for what HTTP does, where no store is needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from kvstore.readiness.instance import Instance, State
from kvstore.routing.builtin import BuiltinProxy, Options
from kvstore.routing.listener import Listener

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """An HTTP server; its address. What a client leaves is cancelled there."""
    server = web.Server(handler, handler_cancellation=True, access_log=None, auto_decompress=False)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "{}:{}".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def raw_serving(handler: RawHandler) -> AsyncIterator[str]:
    """A server that does with its connections what the handler does; its address."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()


async def accepts_and_closes(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    pass


def named(name: str, count: list[str] | None = None) -> Handler:
    """Answers its name, and notes it."""

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        if count is not None:
            count.append(name)
        return web.Response(text=name)

    return answer


def instance(name: str, address: str, **fields: Any) -> Instance:
    return replace(Instance(service="web", id=name, address=address), **fields)


@dataclass(slots=True)
class Local:
    """A proxy that listens, and is told its instances here."""

    proxy: BuiltinProxy
    listener: Listener
    instances: dict[str, Instance] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.listener.address}/"

    def announce(self, name: str, address: str, **fields: Any) -> None:
        self.instances[name] = instance(name, address, **fields)
        self._tell()

    def drain(self, name: str) -> None:
        self.instances[name] = replace(self.instances[name], state=State.DRAINING)
        self._tell()

    def withdraw(self, name: str) -> None:
        del self.instances[name]
        self._tell()

    def _tell(self) -> None:
        self.proxy.reconcile([self.instances[name] for name in sorted(self.instances)])

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self.listener.address.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def exchange(self, data: bytes) -> bytes:
        """Sends it, and reads until the proxy closes."""
        reader, writer = await self.connect()
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def proxying(options: Options | None = None, **listening: Any) -> AsyncIterator[Local]:
    proxy = BuiltinProxy("web", options)
    listener = Listener(proxy, "127.0.0.1", 0, **{"stop_timeout_s": 0.0, **listening})
    await listener.start()
    try:
        yield Local(proxy, listener)
    finally:
        await listener.stop()


async def head(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
