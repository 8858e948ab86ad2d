"""One request of a client, and what passes between it and an instance: bodies as they come, in both directions.

Nothing is gathered beyond HOLD_BYTES: a side that is slow to take makes the other side wait. A short request body is
held, so that it can be sent twice; a longer one is passed on as it arrives and is there only once. A client that
asked whether to go on (Expect: 100-continue) is told to when an instance is there to take the body. An answer that
is short, or there as a whole, is passed on whole or not at all. A longer one is streamed, and when its instance dies
in the middle the client's connection is broken off, so that it cannot take a part for all.

Trailers are not passed on: the library has no place for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import HttpVersion11, web
from multidict import CIMultiDict
from yarl import URL

from kvstore.routing.headers import NOBODY, WEBSOCKET, Trusted, for_client, for_instance, is_websocket, target
from kvstore.routing.retry import Fault
from kvstore.routing.tunnel import Tunnel
from kvstore.routing.upstreams import Upstream

HOLD_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class Failed(Exception):
    """No answer began there, so another instance could still be asked."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


class ClientFailed(Exception):
    """The client did not send what it said it would. status: what to answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Body:
    """A request's body. is_at_hand: all of it can (still) be sent, to whoever is asked next."""

    def __init__(self, request: web.BaseRequest, timeout_s: float) -> None:
        self._request = request
        self._timeout_s = timeout_s
        length = request.content_length
        self.is_streamed = request.body_exists and (length is None or length > HOLD_BYTES)
        self.is_at_hand = True
        self.is_broken = False
        self.is_waiting_for_client = False
        self.patience: asyncio.Timeout | None = None  # of the exchange it is part of
        self._held: bytes | None = None
        expected = request.headers.get("Expect", "").lower() == "100-continue"
        self.is_unasked = expected and request.body_exists and request.version >= HttpVersion11

    @property
    def data(self) -> bytes | Body | None:
        return self if self.is_streamed else self._held

    async def hold(self) -> None:
        """Reads a short one. Raises ClientFailed."""
        if self.is_streamed or not self._request.body_exists:
            return
        await self._ask()
        try:
            async with asyncio.timeout(self._timeout_s):
                self._held = await self._request.read()
        except TimeoutError:
            raise ClientFailed(408, "the body did not come in time") from None
        except web.RequestPayloadError as problem:
            raise ClientFailed(400, f"the body cannot be read: {problem}") from None

    def touch(self) -> None:
        """Something moved, in one direction or the other."""
        if self.patience is not None:
            self.patience.reschedule(asyncio.get_running_loop().time() + self._timeout_s)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not self.is_at_hand:
            raise RuntimeError("some of the body has been passed on already")
        await self._ask()
        if not self._request.content.total_bytes:
            yield b""  # the head goes ahead: the client may want to see an answer before it sends anything
        try:
            while True:
                self.is_waiting_for_client = True
                self.touch()
                piece = await self._request.content.readany()
                self.is_waiting_for_client = False
                self.touch()
                if not piece:
                    break
                self.is_at_hand = False
                yield piece
        except web.RequestPayloadError:
            self.is_broken = True
            raise
        if self.patience is not None:
            self.patience.reschedule(None)

    async def _ask(self) -> None:
        if self.is_unasked:
            self.is_unasked = False
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class Exchange:
    """must_close: whether the client's connection is to end with the answer."""

    def __init__(
        self,
        request: web.BaseRequest,
        timeout_s: float,
        trusted: Trusted = NOBODY,
        must_close: Callable[[], bool] = lambda: False,
    ) -> None:
        self.request = request
        self.body = Body(request, timeout_s)
        self._timeout_s = timeout_s
        self._trusted = trusted
        self._must_close = must_close
        self._is_websocket = is_websocket(request)
        self._started: web.StreamResponse | None = None

    @property
    def must_close(self) -> bool:
        """An upgrade that was not made leaves the connection in a state that is for nothing else; so does a body
        that was announced and not asked for."""
        return self._is_websocket or self.body.is_unasked or self._must_close()

    async def forward(self, upstream: Upstream, answered: Callable[[int], None]) -> web.StreamResponse:
        """answered is told the status as soon as it is known. Raises Failed and ClientFailed."""
        try:
            if not self.body.is_streamed:
                return await self._forward(upstream, answered)
            async with asyncio.timeout(None) as self.body.patience:
                return await self._forward(upstream, answered)
        except (aiohttp.ClientError, OSError, TimeoutError) as problem:
            if self._started is None:
                raise self._classified(problem) from problem
            log.warning("%s died in the middle of an answer: %s", upstream.instance.id, _text(problem))
            if self.request.transport is not None:
                self.request.transport.abort()
            return self._started
        finally:
            self.body.patience = None

    async def _forward(self, upstream: Upstream, answered: Callable[[int], None]) -> web.StreamResponse:
        request = self.request
        url = URL(f"http://{upstream.instance.address}{target(request)}", encoded=True)
        headers = for_instance(request, self._trusted)
        if self._is_websocket:
            headers.update(WEBSOCKET)
        async with upstream.session.request(
            request.method, url, headers=headers, data=self.body.data, allow_redirects=False
        ) as answer:
            if answer.status == 101:
                answered(101)
                return await self._tunnel(upstream, answer)
            length = answer.content_length
            is_short = request.method == "HEAD" or (length is not None and length <= HOLD_BYTES)
            if is_short or answer.content.is_eof():
                held = _held(answer, await answer.read())
                answered(answer.status)
                return held
            answered(answer.status)
            return await self._stream(answer)

    async def _tunnel(self, upstream: Upstream, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        if not self._is_websocket:
            raise aiohttp.ClientPayloadError("it switched protocols unasked")
        tunnel = Tunnel(self.request, answer)
        upstream.hold(tunnel)
        try:
            return await tunnel.run()
        finally:
            upstream.let_go(tunnel)

    async def _stream(self, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Passes the answer on piece by piece. A client that has gone, or takes nothing, is no fault of the
        instance."""
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=for_client(answer))
        if self.must_close:
            response.force_close()
        self._started = response
        try:
            await response.prepare(self.request)
        except ConnectionError:
            return response
        async for piece in answer.content.iter_any():
            self.body.touch()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await response.write(piece)
            except ConnectionError:
                return response
            except TimeoutError:
                if self.request.transport is not None:
                    self.request.transport.abort()
                return response
        return response

    def _classified(self, problem: Exception) -> Exception:
        if self.body.is_broken:
            return ClientFailed(400, "the body cannot be read")
        is_at_hand = self.body.is_at_hand
        if isinstance(problem, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) and is_at_hand:
            return Failed(Fault.NOT_CONNECTED, _text(problem))
        if isinstance(problem, TimeoutError):
            if self.body.is_waiting_for_client:
                return ClientFailed(408, "the body did not come in time")
            return Failed(Fault.TOO_SLOW, _text(problem))
        return Failed(Fault.BROKEN_OFF, _text(problem))


def say(status: int, text: str) -> web.Response:
    headers = CIMultiDict({"Retry-After": "1"} if status == 503 else {})
    headers["Server"] = "kvstore"
    return web.Response(status=status, text=f"kvstore: {text}\n", headers=headers)


def _held(answer: aiohttp.ClientResponse, body: bytes) -> web.Response:
    response = web.Response(status=answer.status, reason=answer.reason, headers=for_client(answer))
    if body:
        response.body = body
    return response


def _text(problem: Exception) -> str:
    return str(problem) or type(problem).__name__
