"""Many instances and many clients in the test's own process, where forty programs would be too many."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from kvstore.client import Client
from kvstore.demo.processes import free_ports
from kvstore.readiness.instance import Instance
from kvstore.readiness.registrar import Registrar
from tests.routing.programs import Answers, asking, until

TAKES_MAX_S = 0.004


class Web:
    """Answers every request with its name, after a moment, on connections that stay open."""

    def __init__(self, service: str, name: str) -> None:
        port = free_ports(1)[0]
        self.instance = Instance(service=service, id=name, address=f"127.0.0.1:{port}")
        self._port = port
        self._server: asyncio.Server | None = None
        self._idle: set[asyncio.StreamWriter] = set()
        self._busy = 0
        self._random = random.Random(name)

    async def start(self) -> Web:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=256)
        return self

    async def stop(self) -> None:
        """What it has begun it finishes; connections without a request are closed."""
        assert self._server is not None
        self._server.close()

        async def is_idle() -> bool:
            return not self._busy

        await until(f"{self.instance.id} has finished", is_idle)
        for writer in list(self._idle):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = f"{self.instance.id}\n".encode()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        try:
            while True:
                self._idle.add(writer)
                await reader.readuntil(b"\r\n\r\n")
                self._idle.discard(writer)
                self._busy += 1
                try:
                    await asyncio.sleep(self._random.uniform(0, TAKES_MAX_S))
                    writer.write(answer)
                    await writer.drain()
                finally:
                    self._busy -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._idle.discard(writer)
            writer.close()


@dataclass(slots=True)
class Announced:
    """A web that is announced as kvctl announce does it, but for the probing."""

    web: Web
    registrar: Registrar
    keeping: asyncio.Task[None]

    async def replace(self) -> None:
        """Withdrawn, and stopped when proxies have had the moment that kvctl announce gives them."""
        await self.withdraw()
        await asyncio.sleep(0.05)
        await self.web.stop()

    async def withdraw(self) -> None:
        self.keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.keeping


@dataclass(slots=True)
class Fleet:
    """Announced webs, all withdrawn and stopped at the end."""

    service: str
    client: Client
    running: dict[str, Announced] = field(default_factory=dict)

    async def announce(self, name: str) -> None:
        """Returns when the store has it."""
        web = await Web(self.service, name).start()
        registrar = Registrar(self.client, 5000, grace_ms=500)
        registrar.want(web.instance)
        keeping = asyncio.ensure_future(registrar.run())
        self.running[name] = Announced(web, registrar, keeping)

        async def announced() -> bool:
            return registrar.announced is not None

        await until(f"{name} is announced", announced)

    async def replace(self, name: str) -> None:
        await self.running.pop(name).replace()


@contextlib.asynccontextmanager
async def fleet(service: str, endpoint: str) -> AsyncIterator[Fleet]:
    async with Client(endpoint, wait_for_endpoints=False) as client:
        made = Fleet(service, client)
        try:
            yield made
        finally:
            for one in made.running.values():
                one.keeping.cancel()
            await asyncio.gather(*(one.keeping for one in made.running.values()), return_exceptions=True)
            await asyncio.gather(*(one.web.stop() for one in made.running.values()))


@contextlib.asynccontextmanager
async def many_asking(url: str, count: int) -> AsyncIterator[Sequence[Answers]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(asking(url)) for _ in range(count)]
