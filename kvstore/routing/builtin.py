"""The embedded reverse proxy: HTTP/1.1, round robin over who is ready at this moment.

What a request may count on:
- When a connection could not be made nothing was sent, so any request goes on to another instance.
- When the connection broke before the answer began, the request may have been carried out: only one that may be
  carried out twice (GET, HEAD, OPTIONS, PUT, DELETE, TRACE) and whose body is still at hand goes on, twice at most.
- An answer short enough to be held (HOLD_BYTES) is passed on whole or not at all; a longer one is streamed, and
  when its instance dies in the middle the client's connection is broken off, so that it cannot take a part for all.
- Nobody ready: 503. Nobody could be connected to: 503. Broken off: 502. Too slow: 504. Each with a line that says so.

Not here: websockets and other upgrades, TLS, HTTP/2.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from kvstore.readiness.instance import Instance
from kvstore.routing.balance import Balance
from kvstore.routing.headers import for_client, for_instance
from kvstore.routing.upstreams import Timeouts, Upstream, Upstreams

HOLD_BYTES = 64 * 1024
REPEATABLE = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"))
REPEATS = 2

log = logging.getLogger(__name__)


class NotConnected(Exception):
    """Nothing was sent."""


class BrokenOff(Exception):
    """Something may have been sent, and the answer had not begun."""


class TooSlow(Exception):
    """The instance took the request and was silent for too long."""


class StreamedBody:
    """A request body that is passed on as it arrives, and is therefore there only once."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self.is_consumed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.is_consumed:
            raise RuntimeError("the body has been passed on already")
        self.is_consumed = True
        async for piece in self._content.iter_any():
            yield piece


Body = bytes | StreamedBody | None


@dataclass(slots=True)
class Attempts:
    """What has been tried for one request."""

    tried: set[str] = field(default_factory=set)
    broken_count: int = 0
    last_problem: str = ""


class BuiltinProxy:
    """A Driver. handle() answers one request; reconcile() may come at any time between."""

    def __init__(self, service: str, timeouts: Timeouts | None = None) -> None:
        self._service = service
        self._balance = Balance()
        self._upstreams = Upstreams(timeouts or Timeouts())

    def reconcile(self, instances: Sequence[Instance]) -> None:
        self._upstreams.reconcile(instances)
        self._balance.reconcile(instances)

    async def close(self) -> None:
        await self._upstreams.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "CONNECT":
            return _say(501, "CONNECT is not supported")
        body = await _body(request)
        attempts = Attempts()
        while (instance := self._balance.pick(time.monotonic(), attempts.tried)) is not None:
            attempts.tried.add(instance.id)
            try:
                response = await self._forward(request, body, self._upstreams.of(instance))
            except NotConnected as problem:
                attempts.last_problem = f"{instance.id}: {problem}"
                self._balance.refused(instance.id, time.monotonic())
            except BrokenOff as problem:
                attempts.last_problem = f"{instance.id}: {problem}"
                attempts.broken_count += 1
                if not _may_repeat(request, body) or attempts.broken_count > REPEATS:
                    return self._failed(502, f"{instance.id} broke the connection off: {problem}")
            except TooSlow:
                return self._failed(504, f"{instance.id} did not answer in time")
            else:
                self._balance.answered(instance.id)
                return response
        if not attempts.tried:
            return _say(503, f"no instance of {self._service} is ready")
        tried = len(attempts.tried)
        return self._failed(
            503, f"none of {tried} instances of {self._service} answered; {attempts.last_problem}"
        )

    async def _forward(self, request: web.BaseRequest, body: Body, upstream: Upstream) -> web.StreamResponse:
        """Raises NotConnected, BrokenOff or TooSlow while another instance could still be asked."""
        path = request.raw_path if request.raw_path.startswith("/") else request.rel_url.raw_path_qs or "/"
        url = URL(f"http://{upstream.instance.address}{path}", encoded=True)
        started: web.StreamResponse | None = None
        with upstream.request() as session:
            try:
                async with session.request(
                    request.method, url, headers=for_instance(request), data=body, allow_redirects=False
                ) as answer:
                    length = answer.content_length
                    if request.method == "HEAD" or (length is not None and length <= HOLD_BYTES):
                        return _held(answer, await answer.read())
                    started = web.StreamResponse(
                        status=answer.status, reason=answer.reason, headers=for_client(answer)
                    )
                    return await _stream(request, answer, started)
            except (aiohttp.ClientError, OSError, TimeoutError) as problem:
                if started is None:
                    raise _classified(problem, body) from problem
                log.warning("%s died in the middle of an answer: %s", upstream.instance.id, problem)
                if request.transport is not None:
                    request.transport.abort()
                return started

    def _failed(self, status: int, text: str) -> web.Response:
        log.warning("%d: %s", status, text)
        return _say(status, text)


async def _stream(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, response: web.StreamResponse
) -> web.StreamResponse:
    """Passes the answer on piece by piece. A client that has gone is no fault of the instance."""
    try:
        await response.prepare(request)
    except ConnectionError:
        return response
    async for piece in answer.content.iter_any():
        try:
            await response.write(piece)
        except ConnectionError:
            return response
    return response


async def _body(request: web.BaseRequest) -> Body:
    if not request.body_exists:
        return None
    if request.content_length is not None and request.content_length <= HOLD_BYTES:
        return await request.read()
    return StreamedBody(request.content)


def _held(answer: aiohttp.ClientResponse, body: bytes) -> web.Response:
    response = web.Response(status=answer.status, reason=answer.reason, headers=for_client(answer))
    if body:
        response.body = body
    return response


def _may_repeat(request: web.BaseRequest, body: Body) -> bool:
    return request.method in REPEATABLE and not isinstance(body, StreamedBody)


def _classified(problem: Exception, body: Body) -> Exception:
    text = str(problem) or type(problem).__name__
    consumed = isinstance(body, StreamedBody) and body.is_consumed
    if isinstance(problem, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) and not consumed:
        return NotConnected(text)
    if isinstance(problem, TimeoutError):
        return TooSlow(text)
    return BrokenOff(text)


def _say(status: int, text: str) -> web.Response:
    headers = CIMultiDict({"Retry-After": "1"} if status == 503 else {})
    return web.Response(status=status, text=f"kvstore: {text}\n", headers=headers)


@dataclass(slots=True)
class Listener:
    """A proxy on a port. address is set by start(); stop() lets requests on their way finish."""

    proxy: BuiltinProxy
    host: str
    port: int
    stop_timeout_s: float = 10.0
    address: str = ""
    _runner: web.ServerRunner | None = None

    async def start(self) -> None:
        """Raises OSError when the port cannot be had."""
        server = web.Server(
            self.proxy.handle, handler_cancellation=True, access_log=None, auto_decompress=False
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=self.stop_timeout_s)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, backlog=1024)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        await self.proxy.close()
        await asyncio.sleep(0)  # a turn of the loop for the transports that were closed
