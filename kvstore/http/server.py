"""HTTP/1.1 on the client port: the JSON gateway, probes, /version and what describes them.

aiohttp is loaded when the first HTTP/1.1 connection arrives, in a thread: a member that only serves gRPC keeps
some 25 MB less resident, and the event loop does not stand still while it loads. Nothing imported here at the top
may need it.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import TYPE_CHECKING, cast

from kvstore import log
from kvstore.http.access import AccessControl
from kvstore.http.checks import Checks
from kvstore.http.pages import HTML, JSON, Page, Query, Route, json_page
from kvstore.rpc import Methods
from kvstore.version import CLUSTER_VERSION, ETCD_VERSION

if TYPE_CHECKING:
    from aiohttp import web

    from kvstore.api.context import Context
    from kvstore.http.app import App

EARLY_BYTES_MAX = 64 << 10
GOODBYE_S = 0.5  # for replies under way when the member stops


class HttpServer:
    def __init__(self, context: Context, methods: Methods | None) -> None:
        """methods None: pages alone."""
        self._context = context
        self._methods = methods
        self._loading: asyncio.Task[web.AppRunner] | None = None
        self._runner: web.AppRunner | None = None
        self._app: App | None = None
        self.routes = [
            Route("/version", self._version),
            Route("/debug/vars", self._variables),
            Route("/openapi.json", self._openapi),
            Route("/docs", self._docs),
            *Checks(context).routes(),
        ]
        """What is served beside the gateway; whoever has more to show adds it before the first request."""

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
        await asyncio.get_running_loop().run_in_executor(None, importlib.import_module, "kvstore.http.app")
        from aiohttp import web

        from kvstore.http.app import App
        from kvstore.http.gateway import Gateway

        config = self._context.config
        gateway = None
        if config.enable_grpc_gateway and self._methods is not None:
            gateway = Gateway(self._methods, message_bytes_max=config.max_request_bytes + (512 << 10))
        access = AccessControl(origins=config.cors, hosts=config.host_whitelist)
        self._app = App(
            {route.path: route.handler for route in self.routes},
            access,
            gateway,
            users_by_certificate=lambda: self._context.certificates and self._context.guard.enabled,
        )
        self._runner = runner = web.AppRunner(
            self._app.application(), access_log=None, handler_cancellation=True, shutdown_timeout=GOODBYE_S
        )
        await runner.setup()
        return runner

    async def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
        if self._app is not None:
            self._app.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _version(self, query: Query) -> Page:
        versions = {"etcdserver": ETCD_VERSION, "etcdcluster": CLUSTER_VERSION, "storage": CLUSTER_VERSION}
        return json_page(versions)

    async def _variables(self, query: Query) -> Page:
        """What Go's expvar shows, as far as it means something here."""
        node = self._context.driver.node
        raft = {
            "id": f"{self._context.member_id:x}",
            "term": node.term,
            "commit": node.commit,
            "applied": self._context.machine.applied_index,
            "lead": f"{node.leader_id:x}",
        }
        return json_page({"cmdline": sys.argv, "raft.status": raft})

    async def _openapi(self, query: Query) -> Page:
        from kvstore.http.openapi import document_json

        return Page(document_json(), content_type=JSON)

    async def _docs(self, query: Query) -> Page:
        from kvstore.http.openapi import document_html

        return Page(document_html(), content_type=HTML)


class _Waiting(asyncio.Protocol):
    """Holds a connection's first bytes until aiohttp is there to take it."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._early = bytearray()
        self._lost = False
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._task = asyncio.get_running_loop().create_task(self._hand_over(self._transport))

    def data_received(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > EARLY_BYTES_MAX and self._transport is not None:
            self._transport.pause_reading()  # a large body: the rest can wait in the socket

    def eof_received(self) -> bool:
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True

    async def _hand_over(self, transport: asyncio.Transport) -> None:
        try:
            runner = await self._server.load()
        except Exception as problem:
            log.error("the HTTP side cannot be loaded", error=repr(problem))
            transport.abort()
            return
        if self._lost or runner.server is None:
            transport.abort()
            return
        protocol = runner.server()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()
        protocol.data_received(bytes(self._early))
