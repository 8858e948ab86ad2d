"""Announce to routed: from the call that announces an instance to the first answer it gives through a proxy.

The proxy is `kvctl route builtin` for every server; the instance is up beforehand; a keep-alive client asks all
the time. One round: announce, wait for the first answer, withdraw, wait for the first refusal. Rounds of the
servers take turns. Announcing is one call on a stream that is open here, and a lease and a put under it on etcd,
which has nothing else; withdrawing is a message on the stream, and a revocation.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import aiohttp

from benchmarks.bench import Bench
from benchmarks.figures import OURS, Figure, percentile
from kvstore.client import Client
from kvstore.client.methods import ANNOUNCE
from kvstore.client.stream import Stream
from kvstore.demo.processes import free_ports
from kvstore.pb.readiness_pb2 import Announcement, AnnounceRequest, AnnounceResponse, Withdraw
from kvstore.readiness.instance import Instance, State, encode

SERVICE = "bench"
ROUNDS = 200
WARM_UP = 5
CONNECT_S = 5.0
KVCTL = str(Path(sys.executable).parent / "kvctl")


@contextlib.asynccontextmanager
async def web_server() -> AsyncIterator[str]:
    """Something that answers; its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Announcing(Protocol):
    """One server's way to announce and to withdraw; both return when that is acknowledged."""

    async def announce(self, instance: Instance) -> None: ...

    async def withdraw(self) -> None: ...


class ByCall:
    def __init__(self, stream: Stream[AnnounceRequest, AnnounceResponse]) -> None:
        self._stream = stream
        self._lease_id = random.SystemRandom().getrandbits(62) | 1

    @classmethod
    async def open(cls, client: Client) -> ByCall:
        caller = client.caller
        endpoint = caller.choice.order(asyncio.get_running_loop().time())[0]
        await caller.connect(endpoint, CONNECT_S)
        return cls(caller.open_stream(endpoint, ANNOUNCE))

    async def announce(self, instance: Instance) -> None:
        said = Announcement(key=instance.key, value=encode(instance), lease_id=self._lease_id, ttl_ms=30_000)
        await self._ask(AnnounceRequest(announce=said))

    async def withdraw(self) -> None:
        await self._ask(AnnounceRequest(withdraw=Withdraw()))

    async def _ask(self, request: AnnounceRequest) -> None:
        await self._stream.write(request)
        await self._stream.read(CONNECT_S)


class ByLease:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._lease_id = 0

    async def announce(self, instance: Instance) -> None:
        self._lease_id = (await self._client.lease_grant(30)).id
        await self._client.put(instance.key, encode(instance), lease=self._lease_id)

    async def withdraw(self) -> None:
        await self._client.lease_revoke(self._lease_id)


class Round:
    """One server's side: its store, its proxy, its client."""

    def __init__(
        self, announcing: Announcing, session: aiohttp.ClientSession, url: str, address: str
    ) -> None:
        self._announcing = announcing
        self._session = session
        self._url = url
        self._instance = Instance(service=SERVICE, id="one", address=address, state=State.READY)

    async def run(self) -> tuple[float, float, float]:
        """Milliseconds (announce to acknowledged, announce to routed, withdraw to not routed)."""
        answered = asyncio.ensure_future(self._until(200))
        await asyncio.sleep(0)
        started = time.perf_counter()
        await self._announcing.announce(self._instance)
        acknowledged = time.perf_counter()
        routed = await answered
        refused = asyncio.ensure_future(self._until(503))
        withdrawn = time.perf_counter()
        await self._announcing.withdraw()
        gone = await refused
        return tuple(  # type: ignore[return-value]
            1e3 * value for value in (acknowledged - started, routed - started, gone - withdrawn)
        )

    async def _until(self, status: int) -> float:
        """When the proxy first answered with this status."""
        while True:
            async with self._session.get(self._url) as response:
                await response.read()
                if response.status == status:
                    return time.perf_counter()


async def measure(bench: Bench) -> list[Figure]:
    rounds = bench.size(ROUNDS, 30)
    sides: dict[str, Round] = {}
    measured: dict[str, list[tuple[float, float, float]]] = {server: [] for server in bench.clusters}
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(web_server())
        for server, cluster in bench.clusters.items():
            (port,) = free_ports(1)
            listen = f"127.0.0.1:{port}"
            endpoints = ",".join(cluster.endpoints)
            command = [KVCTL, "--endpoints", endpoints, "route", "builtin", "--service", SERVICE]
            proxy = await bench.programs.start(f"proxy of {server}", [*command, "--listen", listen])
            stack.push_async_callback(proxy.stop)
            await proxy.wait_line(str(port))
            client = await stack.enter_async_context(Client(cluster.endpoints))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            announcing = await ByCall.open(client) if server == OURS else ByLease(client)
            sides[server] = Round(announcing, session, f"http://{listen}/", address)
        for number in range(rounds + WARM_UP):
            for server, side in sides.items():
                took = await side.run()
                if number >= WARM_UP:  # the first few open connections
                    measured[server].append(took)
    names = (
        "announce (etcd: grant and put) → acknowledged",
        "announce → first answer through the proxy",
        "withdraw → no longer routed",
    )
    return [
        Figure(
            "routed",
            f"{name}, {label}",
            "ms",
            {server: [percentile([one[at] for one in rows], share)] for server, rows in measured.items()},
        )
        for at, name in enumerate(names)
        for label, share in (("p50", 0.5), ("p99", 0.99))
    ]
