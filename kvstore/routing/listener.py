"""A proxy on a port, and how it leaves: nothing new, what is on its way is finished, and at the limit it is ended.

stop() ─► no more connections ─► linger_s: idle ones may ask once more, and are told that it was the last time
       ─► idle ones are closed ─► requests and websockets finish ─► limit: websockets get 1001, the rest is cut
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from kvstore.routing.builtin import BuiltinProxy
from kvstore.routing.tunnel import CLOSE_WAIT_S

LINGER_S = 0.25
IDLE_S = 75.0  # a connection without a request, or with a head that does not end, is closed then
LINGER_BODY_S = 1.0  # for a client that has its answer, and is still sending what nobody wants
FINISH_S = 0.5  # for answers that are made, and on their way out


@dataclass(slots=True)
class Listener:
    """address is set by start(). head_bytes: of one header, and of the line that asks."""

    proxy: BuiltinProxy
    host: str
    port: int
    stop_timeout_s: float = 10.0
    tls: ssl.SSLContext | None = None
    head_bytes: int = 16 * 1024
    linger_s: float = LINGER_S
    address: str = ""
    _server: web.Server | None = None
    _runner: web.ServerRunner | None = None
    _site: web.TCPSite | None = None

    async def start(self) -> None:
        """Raises OSError when the port cannot be had."""
        self._server = web.Server(
            self.proxy.handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_BODY_S,
            max_line_size=self.head_bytes,
            max_field_size=self.head_bytes,
        )
        self._runner = web.ServerRunner(self._server, shutdown_timeout=FINISH_S)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, self.host, self.port, backlog=1024, ssl_context=self.tls)
        await self._site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def stop(self) -> None:
        """May be called again."""
        runner, self._runner = self._runner, None
        if runner is not None and self._server is not None:
            if self._site is not None and self.address:
                await self._site.stop()
                await self._finish(self._server)
            await runner.cleanup()
        await self.proxy.close()
        await asyncio.sleep(0)  # a turn of the loop for the transports that were closed

    async def _finish(self, server: web.Server) -> None:
        proxy = self.proxy
        proxy.is_stopping = True
        limit = asyncio.get_running_loop().time() + self.stop_timeout_s
        await _until(lambda: not server.connections, min(self.linger_s, self.stop_timeout_s))
        for connection in server.connections:
            if connection not in proxy.busy:  # server.pre_shutdown() would keep the rest from reading, too
                connection.force_close()
        left_s = limit - asyncio.get_running_loop().time()
        if not await _until(lambda: not proxy.busy, left_s):
            proxy.upstreams.dismiss()
            await _until(lambda: not proxy.upstreams.tunnel_count, CLOSE_WAIT_S + FINISH_S)


async def _until(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Whether it came to hold in time."""
    end = asyncio.get_running_loop().time() + timeout_s
    while not holds():
        if asyncio.get_running_loop().time() >= end:
            return False
        await asyncio.sleep(0.01)
    return True
