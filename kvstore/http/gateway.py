"""The JSON gateway: a POST below /v3/ becomes a call of the same table of methods that gRPC is served from.

    unary     body, whatever follows its first JSON value ─► one JSON reply
    stream    JSON objects in the body, as they come ─► one {"result": …} a line; the last may be {"error": …}

A stream begins with its first request: what fails before is told like a unary failure, and a status other than 200
is possible until the first line goes out. The end of the body does not end a watch; the client's going does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

from aiohttp import web

from kvstore import log
from kvstore.http.calls import Sink, StreamHttpCall, UnaryHttpCall, encoded
from kvstore.http.json_mapping import BadRequest, parse, to_message
from kvstore.http.json_stream import JsonObjects, TooLarge
from kvstore.http.pages import JSON
from kvstore.http.paths import Binding, table
from kvstore.http.status import DEADLINE_TEXT, error_body, http_status, stream_error, timeout_s
from kvstore.rpc import Methods, Status, StreamHandler, StreamMethod, UnaryMethod

T = TypeVar("T")
INLINE_BODY_BYTES_MAX = 64 << 10  # a larger body is read into a message in a thread
METADATA_PREFIX = "grpc-metadata-"
HEARTBEAT_S = 30.0  # of a websocket: its client may be gone without a word
STOPPED_TEXT = "etcdserver: server stopped"


class Refused(Exception):
    """A call that did not reach its service."""

    def __init__(self, status: int, text: str, http: int | None = None) -> None:
        super().__init__(text)
        self.status, self.text = status, text
        self.http = http_status(status) if http is None else http


class ClientGone(Exception):
    """A websocket ended, and with it the call."""


class Gateway:
    def __init__(self, methods: Methods, *, message_bytes_max: int) -> None:
        self._methods = methods
        self._bindings = table()
        self._message_bytes_max = message_bytes_max
        self._body_bytes_max = 2 * message_bytes_max  # base64 takes a third more, JSON's escapes some
        self._streams: set[StreamHttpCall] = set()

    def binding(self, path: str) -> Binding | None:
        return self._bindings.get(path)

    def close(self) -> None:
        """Ends every stream; its client hears why."""
        for call in list(self._streams):
            call.finish(Status.UNAVAILABLE, STOPPED_TEXT)

    async def serve(self, request: web.Request, binding: Binding) -> web.StreamResponse:
        """A POST to the binding's path."""
        try:
            method = self._method(binding)
            if isinstance(method, UnaryMethod):
                text = await self._unary(request, binding, method, await self._whole_body(request))
                return web.Response(text=text, content_type=JSON)
            sink = _Lines(request)
            await self._stream(request, binding, method, _chunks(request), sink)
            return await sink.ended()
        except Refused as refusal:
            return _refusal(refusal)

    async def serve_websocket(self, request: web.Request, binding: Binding) -> web.StreamResponse:
        """The same over a websocket: each text message is a request or a part of one, each reply a message."""
        socket = web.WebSocketResponse(
            protocols=("Bearer",), max_msg_size=self._body_bytes_max, heartbeat=HEARTBEAT_S, compress=False
        )
        await socket.prepare(request)
        try:
            method = self._method(binding)
            if isinstance(method, UnaryMethod):
                with contextlib.suppress(ClientGone):
                    first = await anext(_messages(socket))
                    await socket.send_str(await self._unary(request, binding, method, first))
            else:
                await self._stream(request, binding, method, _messages(socket), _Messages(socket))
        except Refused as refusal:
            with contextlib.suppress(OSError):
                await socket.send_str(error_body(refusal.status, refusal.text))
        await socket.close()
        return socket

    def _method(self, binding: Binding) -> UnaryMethod | StreamMethod:
        method = self._methods.get(binding.method)
        if method is None:
            service, _, name = binding.method[1:].partition("/")
            known = any(path.startswith(f"/{service}/") for path in self._methods)
            text = f"unknown method {name} for service {service}" if known else f"unknown service {service}"
            raise Refused(Status.UNIMPLEMENTED, text)
        return method

    # Unary calls

    async def _whole_body(self, request: web.Request) -> bytes:
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > self._body_bytes_max:
                text = f"the body is larger than {self._body_bytes_max} bytes"
                raise Refused(Status.RESOURCE_EXHAUSTED, text, http=413)
        return bytes(body)

    async def _unary(self, request: web.Request, binding: Binding, method: UnaryMethod, body: bytes) -> str:
        data = await self._message(binding, body)
        call = UnaryHttpCall(metadata_of(request), _deadline(request))
        _guarded(lambda: method.handler(call, data))
        answer = await call.answer()
        if answer.status:
            raise Refused(answer.status, answer.text)
        return await encoded(binding.reply, answer.message)

    async def _message(self, binding: Binding, text: bytes) -> bytes:
        """One request's JSON as the bytes a service takes."""

        def convert() -> bytes:
            return to_message(parse(text), binding.request).SerializeToString()

        try:
            if len(text) <= INLINE_BODY_BYTES_MAX:
                data = convert()
            else:
                data = await asyncio.get_running_loop().run_in_executor(None, convert)
        except BadRequest as problem:
            raise Refused(Status.INVALID_ARGUMENT, str(problem)) from None
        if len(data) > self._message_bytes_max:
            text_ = f"grpc: received message larger than max ({len(data)} vs. {self._message_bytes_max})"
            raise Refused(Status.RESOURCE_EXHAUSTED, text_)
        return data

    # Streams

    async def _stream(
        self,
        request: web.Request,
        binding: Binding,
        method: StreamMethod,
        body: AsyncIterator[bytes],
        sink: _Sink,
    ) -> None:
        """Returns when the stream has ended, or the client has gone. Raises Refused before it began."""
        call = StreamHttpCall(metadata_of(request), _deadline(request))
        requests = self._requests(binding, body)
        try:
            async with asyncio.timeout_at(call.deadline):
                first = await anext(requests, None)
        except TimeoutError:
            await _fail(sink, Status.DEADLINE_EXCEEDED, DEADLINE_TEXT)
            return
        except ClientGone:
            return
        handler = _guarded(lambda: method.opener(call))
        self._streams.add(call)
        listening = asyncio.create_task(_listen(call, handler, binding, first, requests))
        try:
            async with asyncio.timeout_at(call.deadline):
                await call.run(handler, binding.reply, sink)
        except TimeoutError:
            await _fail(sink, Status.DEADLINE_EXCEEDED, DEADLINE_TEXT)
        except OSError:
            pass  # the client has gone, as finally tells the service
        else:
            if call.ending is not None and call.ending.status:
                await _fail(sink, call.ending.status, call.ending.text)
        finally:
            self._streams.discard(call)
            listening.cancel()
            if call.ending is None:
                call.abandon()
                handler.cancelled()

    async def _requests(self, binding: Binding, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        objects = JsonObjects(self._body_bytes_max)
        try:
            async for chunk in body:
                for text in objects.feed(chunk):
                    yield await self._message(binding, text)
            objects.end()
        except BadRequest as problem:
            raise Refused(Status.INVALID_ARGUMENT, str(problem)) from None
        except TooLarge as problem:
            raise Refused(Status.RESOURCE_EXHAUSTED, str(problem)) from None


async def _listen(
    call: StreamHttpCall,
    handler: StreamHandler,
    binding: Binding,
    first: bytes | None,
    requests: AsyncIterator[bytes],
) -> None:
    """Hands the requests on, no faster than the client reads the replies."""
    try:
        if first is not None:
            handler.message(first)
            if binding.client_streams:
                async for data in requests:
                    await call.room()
                    if call.cancelled or call.ending is not None:
                        return
                    handler.message(data)
        handler.half_closed()
        if not binding.client_streams:
            async for _ in requests:  # only to hear of a websocket's end
                pass
    except ClientGone:
        call.abandon()
    except Refused as refusal:
        if call.ending is None and not call.cancelled:
            call.finish(refusal.status, refusal.text)
            handler.cancelled()
    except (OSError, web.RequestPayloadError):
        call.abandon()
    except Exception as problem:
        log.error("a call over HTTP failed", method=binding.method, error=repr(problem))
        if call.ending is None:
            call.finish(Status.INTERNAL, "internal error")
            handler.cancelled()


class _Sink(Sink):
    async def fail(self, text: str, http: int) -> None:
        """The last line."""


class _Lines(_Sink):
    """Newline-delimited JSON in a chunked body that begins with its first line."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response = web.StreamResponse()
        self._response.content_type = JSON

    async def line(self, text: str) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)
        await self._response.write(text.encode() + b"\n")

    async def fail(self, text: str, http: int) -> None:
        if not self._response.prepared:
            self._response.set_status(http)
        await self.line(text)

    async def ended(self) -> web.StreamResponse:
        if not self._response.prepared:
            await self._response.prepare(self._request)
        with contextlib.suppress(OSError):
            await self._response.write_eof()
        return self._response


class _Messages(_Sink):
    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def line(self, text: str) -> None:
        await self._socket.send_str(text)

    async def fail(self, text: str, http: int) -> None:
        await self._socket.send_str(text)


async def _fail(sink: _Sink, status: int, text: str) -> None:
    with contextlib.suppress(OSError):
        await sink.fail(stream_error(status, text), http_status(status))


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    async for chunk in request.content.iter_any():
        yield chunk


async def _messages(socket: web.WebSocketResponse) -> AsyncIterator[bytes]:
    """Raises ClientGone at the end: a websocket has no half-close."""
    async for message in socket:
        if message.type in (web.WSMsgType.TEXT, web.WSMsgType.BINARY):
            text = message.data
            yield (text.encode() if isinstance(text, str) else bytes(text)) + b"\n"
    raise ClientGone


def metadata_of(request: web.Request) -> Mapping[str, str]:
    """What a gRPC client would send as metadata: the token, and every Grpc-Metadata-<name>."""
    metadata: dict[str, str] = {}
    for name, value in request.headers.items():
        lowered = name.lower()
        if lowered.startswith(METADATA_PREFIX):
            metadata[lowered[len(METADATA_PREFIX) :]] = value
    given = request.headers.get("Authorization", "")
    protocol = request.headers.get("Sec-WebSocket-Protocol", "")
    if not given and "Bearer" in protocol:
        given = protocol.partition("Bearer")[2].lstrip(", ")
    if given:
        metadata["authorization"] = given
        metadata.setdefault("token", given.removeprefix("Bearer ").strip())
    return metadata


def _deadline(request: web.Request) -> float | None:
    given = request.headers.get("Grpc-Timeout")
    if not given:
        return None
    try:
        return asyncio.get_running_loop().time() + timeout_s(given)
    except ValueError as problem:
        raise Refused(Status.INVALID_ARGUMENT, str(problem)) from None


def _guarded(call: Callable[[], T]) -> T:
    try:
        return call()
    except Exception as problem:
        log.error("a call over HTTP failed", error=repr(problem))
        raise Refused(Status.INTERNAL, "internal error") from problem


def _refusal(refusal: Refused) -> web.Response:
    text = error_body(refusal.status, refusal.text)
    return web.Response(text=text, status=refusal.http, content_type=JSON)
