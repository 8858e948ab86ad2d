"""Listening: sockets in, protocols out, and an end that lets calls finish."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from kvstore.rpc import Methods
from kvstore.wire.calm import Calm
from kvstore.wire.limits import Limits
from kvstore.wire.protocol import Http1Factory, WireProtocol
from kvstore.wire.traffic import Traffic

# Between the server and its protocols: makes the handshake, and hands a protocol's maker the common name of the
# client's verified certificate.
Guard = Callable[[Callable[[str], asyncio.Protocol]], Callable[[], asyncio.Protocol]]


class Server:
    """A listening server; close() ends it."""

    def __init__(self, server: asyncio.Server, connections: set[WireProtocol]) -> None:
        self._server = server
        self._connections = connections

    @property
    def sockets(self) -> Sequence[socket.socket]:
        return self._server.sockets

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    async def close(self, grace_s: float = 1.0) -> None:
        """Stops listening, says GOAWAY, waits up to grace_s for the calls under way, then cuts."""
        self._server.close()
        for connection in list(self._connections):
            connection.begin_close()
        deadline = asyncio.get_running_loop().time() + grace_s
        while self._connections and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(
                0.01
            )  # at most grace_s, at the end of a process: an event would need more state
        for connection in list(self._connections):
            connection.abort()


async def serve(
    sock: socket.socket,
    methods: Methods,
    *,
    limits: Limits | None = None,
    http1_factory: Http1Factory | None = None,
    guard: Guard | None = None,
    traffic: Traffic | None = None,
) -> Server:
    """Serves gRPC, and HTTP/1.1 where a factory for it is given, on a bound socket; guard: over TLS."""
    settled = limits or Limits()
    connections: set[WireProtocol] = set()
    calm = Calm(settled.calm_s)

    def protocol(common_name: str = "") -> WireProtocol:
        return WireProtocol(methods, settled, connections, http1_factory, common_name, traffic, calm)

    factory = protocol if guard is None else guard(protocol)
    server = await asyncio.get_running_loop().create_server(factory, sock=sock, backlog=1024)
    return Server(server, connections)
