"""HTTP/1.1 on the client port: GET /version and /health, as etcd answers them.

aiohttp is loaded when the first HTTP/1.1 connection arrives, in a thread: a member that only serves gRPC keeps
some 25 MB less resident, and the event loop does not stand still while it loads.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, cast

from kvstore.pb.etcdserverpb_pb2 import AlarmType
from kvstore.version import CLUSTER_VERSION, ETCD_VERSION

if TYPE_CHECKING:
    from aiohttp import web

    from kvstore.api.context import Context

EARLY_BYTES_MAX = 64 << 10


class HttpServer:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._loading: asyncio.Task[web.AppRunner] | None = None
        self._runner: web.AppRunner | None = None

    def protocol(self) -> asyncio.Protocol:
        """The protocol of one connection that turned out to speak HTTP/1.1."""
        if self._runner is not None and self._runner.server is not None:
            return self._runner.server()
        return _Waiting(self)

    async def load(self) -> web.AppRunner:
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._load())
        return await self._loading

    async def _load(self) -> web.AppRunner:
        await asyncio.get_running_loop().run_in_executor(None, importlib.import_module, "aiohttp.web")
        from aiohttp import web

        app = web.Application()
        app.router.add_get("/version", self._version)
        app.router.add_get("/health", self._health)
        self._runner = runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        return runner

    async def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _version(self, request: web.Request) -> web.Response:
        from aiohttp import web

        return web.json_response(
            {"etcdserver": ETCD_VERSION, "etcdcluster": CLUSTER_VERSION, "storage": CLUSTER_VERSION}
        )

    async def _health(self, request: web.Request) -> web.Response:
        """Healthy: no alarm, a leader, and (unless ?serializable=true) a linearizable read answered."""
        from aiohttp import web

        reason = self._ailment(request.query.getall("exclude", []))
        if not reason and request.query.get("serializable") != "true":
            done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

            def answered(problem: Exception | None) -> None:
                if not done.done():
                    done.set_result(problem)

            self._context.driver.read(answered)
            problem = await done
            if problem is not None:
                reason = f"RANGE ERROR:{type(problem).__name__}"
        body = {"health": "false" if reason else "true", "reason": reason}
        return web.json_response(body, status=503 if reason else 200)

    def _ailment(self, excluded: list[str]) -> str:
        for alarm in self._context.machine.alarms:
            name = AlarmType.Name(alarm.alarm)
            if name not in excluded:
                return f"ALARM {name}"
        return "" if self._context.driver.leader_id else "RAFT NO LEADER"


class _Waiting(asyncio.Protocol):
    """Holds a connection's first bytes until aiohttp is there to take it."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._early = bytearray()
        self._lost = False
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._task = asyncio.get_running_loop().create_task(self._hand_over(stream))

    def data_received(self, data: bytes) -> None:
        self._early += data

    def eof_received(self) -> bool:
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True

    async def _hand_over(self, transport: asyncio.Transport) -> None:
        runner = await self._server.load()
        if self._lost or runner.server is None or len(self._early) > EARLY_BYTES_MAX:
            transport.abort()
            return
        protocol = runner.server()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(bytes(self._early))
