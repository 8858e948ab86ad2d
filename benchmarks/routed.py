"""Announce to routed: from the call that announces an instance to the first answer it gives through a proxy.

The proxy is `kvctl route builtin` for every server; the instance is up beforehand; a keep-alive client asks all
the time. One round: announce, wait for the first answer, withdraw, wait for the first refusal. Rounds of the
servers take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import aiohttp

from kvstore.client import Client
from kvstore.demo.cluster import LocalCluster
from kvstore.demo.processes import Programs, free_ports
from kvstore.readiness.instance import Instance, State, encode

SERVICE = "bench"
KVCTL = str(Path(sys.executable).parent / "kvctl")


@dataclass
class RoutedTable:
    routed_ms: dict[str, list[float]] = field(default_factory=dict)
    acknowledged_ms: dict[str, list[float]] = field(default_factory=dict)
    withdrawn_ms: dict[str, list[float]] = field(default_factory=dict)

    def rows(self) -> list[list[str]]:
        rows = []
        for name, table in (
            ("announce → acknowledged", self.acknowledged_ms),
            ("announce → first answer through the proxy", self.routed_ms),
            ("withdraw → no longer routed", self.withdrawn_ms),
        ):
            row, at = [name], {}
            for server, values in table.items():
                cuts = quantiles(values, n=100)
                at[server] = (cuts[49], cuts[98])
                row.append(f"p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms")
            ours, theirs = at["kvstore"], at["etcd"]
            rows.append(
                [*row, f"{theirs[0] / ours[0]:.2f} x faster at p50, {theirs[1] / ours[1]:.2f} x at p99"]
            )
        return rows


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


class Round:
    """One server's side: its store, its proxy, its client."""

    def __init__(self, client: Client, session: aiohttp.ClientSession, url: str, address: str) -> None:
        self._client = client
        self._session = session
        self._url = url
        self._instance = Instance(service=SERVICE, id="one", address=address, state=State.READY)

    async def run(self) -> tuple[float, float, float]:
        """Milliseconds (announce to acknowledged, announce to routed, withdraw to not routed)."""
        lease = await self._client.lease_grant(30)
        answered = asyncio.ensure_future(self._until(200))
        await asyncio.sleep(0)
        started = time.perf_counter()
        await self._client.put(self._instance.key, encode(self._instance), lease=lease.id)
        acknowledged = time.perf_counter()
        routed = await answered
        refused = asyncio.ensure_future(self._until(503))
        withdrawn = time.perf_counter()
        await self._client.lease_revoke(lease.id)
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


async def measure(clusters: dict[str, LocalCluster], programs: Programs, rounds: int) -> RoutedTable:
    table = RoutedTable()
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(web_server())
        sides: dict[str, Round] = {}
        for server, cluster in clusters.items():
            (port,) = free_ports(1)
            listen = f"127.0.0.1:{port}"
            endpoints = ",".join(cluster.endpoints)
            command = [KVCTL, "--endpoints", endpoints, "route", "builtin", "--service", SERVICE]
            proxy = await programs.start(f"proxy of {server}", [*command, "--listen", listen])
            await proxy.wait_line(str(port))
            client = await stack.enter_async_context(Client(cluster.endpoints))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            sides[server] = Round(client, session, f"http://{listen}/", address)
            for values in (table.routed_ms, table.acknowledged_ms, table.withdrawn_ms):
                values[server] = []
        for number in range(rounds + 5):
            for server, side in sides.items():
                acknowledged, routed, withdrawn = await side.run()
                if number >= 5:  # the first few open connections
                    table.acknowledged_ms[server].append(acknowledged)
                    table.routed_ms[server].append(routed)
                    table.withdrawn_ms[server].append(withdrawn)
    return table
