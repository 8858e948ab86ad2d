"""What the HTTP side serves, as one aiohttp application; loaded with aiohttp by kvstore/http/server.py.

One handler looks a path up in two tables, the pages' and the gateway's: paths are exact, so a router has nothing
to add. Access is decided first, for every path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web

from kvstore import log
from kvstore.http.access import AccessControl, host_refusal
from kvstore.http.gateway import Gateway
from kvstore.http.pages import TEXT, Page, PageHandler
from kvstore.http.paths import ROOT, canonical
from kvstore.http.status import error_body
from kvstore.rpc import Status
from kvstore.tls.certificates import common_name

_NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}


# etcd's words, to a client whose certificate would be its user over gRPC.
CERTIFICATE_TEXT = (
    "CommonName of client sending a request against gateway will be ignored and not used as expected\n"
)


class App:
    def __init__(
        self,
        pages: Mapping[str, PageHandler],
        access: AccessControl,
        gateway: Gateway | None,
        *,
        users_by_certificate: Callable[[], bool] = lambda: False,
    ) -> None:
        """users_by_certificate: whether a common name is a user's now, over gRPC."""
        self._pages = pages
        self._access = access
        self._gateway = gateway
        self._users_by_certificate = users_by_certificate

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        application.on_response_prepare.append(self._add_cors)
        return application

    def close(self) -> None:
        if self._gateway is not None:
            self._gateway.close()

    async def _add_cors(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._access.cors_headers(request.headers.get("Origin", "")))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if not request.secure and not self._access.host_allowed(host):
            log.warn("rejecting HTTP request to prevent DNS rebinding attacks", host=host)
            return _text(421, host_refusal(host))
        if request.method == "OPTIONS":
            return web.Response()
        path = canonical(request.path)
        try:
            if path.startswith(ROOT + "/") and self._gateway is not None:
                return await self._call(self._gateway, request, path)
            return await self._page(request, path)
        except web.RequestPayloadError as problem:
            text = error_body(Status.INVALID_ARGUMENT, f"the body cannot be read: {problem}")
            return web.Response(text=text, status=400, content_type="application/json")
        except Exception as problem:
            log.error("an HTTP request failed", path=path, error=repr(problem))
            text = error_body(Status.INTERNAL, "internal error")
            return web.Response(text=text, status=500, content_type="application/json")

    async def _page(self, request: web.Request, path: str) -> web.Response:
        handler = self._pages.get(path)
        if handler is None:
            return _text(404, "404 page not found\n")
        if request.method not in ("GET", "HEAD"):
            return _text(405, "Method Not Allowed\n", allow="GET, HEAD")
        page: Page = await handler({name: request.query.getall(name) for name in request.query})
        headers = {"Content-Type": page.content_type}
        if page.content_type == TEXT:
            headers |= _NO_SNIFFING
        return web.Response(body=page.body.encode(), status=page.status, headers=headers)

    async def _call(self, gateway: Gateway, request: web.Request, path: str) -> web.StreamResponse:
        binding = gateway.binding(path)
        if binding is None:
            return _text(404, "Not Found\n")
        if self._users_by_certificate() and request.transport is not None:
            if common_name(request.transport.get_extra_info("peercert") or {}):
                return _text(400, CERTIFICATE_TEXT)
        if _wants_websocket(request):
            origin = request.headers.get("Origin", "")
            if origin and not self._access.origin_allowed(origin):
                return _text(403, f"origin {origin} is not allowed: --cors names those that are\n")
            return await gateway.serve_websocket(request, binding)
        if request.method != "POST":
            return _text(405, "Method Not Allowed\n", allow="POST")
        return await gateway.serve(request, binding)


def _wants_websocket(request: web.Request) -> bool:
    connection = request.headers.get("Connection", "").lower()
    return request.headers.get("Upgrade", "").lower() == "websocket" and "upgrade" in connection


def _text(status: int, text: str, allow: str = "") -> web.Response:
    headers = {"Content-Type": TEXT, **_NO_SNIFFING}
    if allow:
        headers["Allow"] = allow
    return web.Response(text=text, status=status, headers=headers)
