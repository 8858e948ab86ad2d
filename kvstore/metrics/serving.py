"""Listeners of their own for /metrics and the probes, without TLS and without the API: --listen-metrics-urls."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvstore.http.checks import Checks
from kvstore.http.pages import PageHandler, Route
from kvstore.http.server import HttpServer

if TYPE_CHECKING:
    from kvstore.api.context import Context

METRICS = "/metrics"


class MetricsServer:
    """Its HTTP side is loaded at the first request, as the client port's is."""

    def __init__(self, context: Context, page: PageHandler) -> None:
        self._http = HttpServer(context, None)
        self._http.routes[:] = [Route(METRICS, page), *Checks(context).routes()]
        self._servers: list[asyncio.Server] = []

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for sock in sockets:
            self._servers.append(await loop.create_server(self._http.protocol, sock=sock))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        await self._http.close()
