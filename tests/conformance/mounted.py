"""A member whose calls grpc.aio serves: python -m tests.conformance.mounted with kvstore's own flags.

Services stand on kvstore/rpc.py and know no transport. To show that, and that what our own wire/ answers is what the
services say, the conformance suite runs against this server too: grpcio's HTTP/2, the same handlers. HTTP/1.1 is not
served on this port; probes are on --listen-metrics-urls.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from kvstore import __main__ as program
from kvstore import member
from kvstore.http.calls import UnaryHttpCall
from kvstore.rpc import Methods, StreamHandler, StreamMethod, UnaryMethod
from kvstore.wire.limits import Limits

CODES = {code.value[0]: code for code in grpc.StatusCode}
Context = grpc.aio.ServicerContext[bytes, bytes]


def metadata_of(context: Context) -> dict[str, str]:
    pairs = context.invocation_metadata() or ()
    return {str(key): value if isinstance(value, str) else value.decode("latin-1") for key, value in pairs}


def deadline_of(context: Context) -> float | None:
    remaining = context.time_remaining()
    # grpcio says a thousand years where the client named no time.
    return None if remaining is None or remaining > 1e8 else asyncio.get_running_loop().time() + remaining


def unary(method: UnaryMethod) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def serve(request: bytes, context: Context) -> bytes:
        call = UnaryHttpCall(metadata_of(context), deadline_of(context))
        method.handler(call, request)
        answer = await call.answer()
        if answer.status:
            await context.abort(CODES[answer.status], answer.text)
        return answer.message

    return serve


class StreamCall:
    """kvstore.rpc.StreamCall over a ServicerContext."""

    common_name = ""

    def __init__(self, context: Context) -> None:
        self.metadata = metadata_of(context)
        self.deadline = deadline_of(context)
        self.cancelled = False
        self.buffered_bytes = 0
        self.ending: tuple[int, str] | None = None
        self._queue: deque[bytes] = deque()
        self._news = asyncio.Event()

    def send(self, message: bytes) -> None:
        if not self.cancelled and self.ending is None:
            self._queue.append(message)
            self.buffered_bytes += len(message)
            self._news.set()

    def finish(self, status: int = 0, message: str = "") -> None:
        if self.ending is None:
            self.ending = status, message
            self._news.set()

    async def run(self, context: Context, handler: StreamHandler) -> None:
        """Writes what the service sends, until it finishes."""
        while True:
            was_full = bool(self._queue)
            while self._queue:
                message = self._queue.popleft()
                await context.write(message)
                self.buffered_bytes -= len(message)
            if self.ending is not None:
                return
            self._news.clear()
            if was_full:
                handler.drained()
            await self._news.wait()


def stream(method: StreamMethod) -> Callable[[AsyncIterator[bytes], Context], Awaitable[None]]:
    async def serve(requests: AsyncIterator[bytes], context: Context) -> None:
        call = StreamCall(context)
        handler = method.opener(call)

        async def listen() -> None:
            async for request in requests:
                if call.ending is None:
                    handler.message(request)
            if call.ending is None:
                handler.half_closed()

        listening = asyncio.ensure_future(listen())
        try:
            await call.run(context, handler)
        finally:
            listening.cancel()
            if call.ending is None:
                call.cancelled = True
                handler.cancelled()
        if call.ending is not None and call.ending[0]:
            await context.abort(CODES[call.ending[0]], call.ending[1])

    return serve


class Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic for mypy alone
    def __init__(self, methods: Methods) -> None:
        self._methods = methods

    def service(self, details: Any) -> Any:
        method = self._methods.get(details.method)
        if isinstance(method, UnaryMethod):
            return grpc.unary_unary_rpc_method_handler(unary(method))
        if isinstance(method, StreamMethod):
            return grpc.stream_stream_rpc_method_handler(stream(method))
        return None


class Server:
    """What kvstore/wire/server.py's is to a member."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.sockets: Sequence[socket.socket] = ()
        self.connection_count = 0

    async def close(self, grace_s: float = 1.0) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._server.stop(grace_s)


async def serve(sock: socket.socket, methods: Methods, *, limits: Limits, **_: object) -> Server:
    host, port = sock.getsockname()[:2]
    sock.close()
    options = [
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((Handler(methods),))
    server.add_insecure_port(f"{host}:{port}")
    await server.start()
    return Server(server)


if __name__ == "__main__":
    setattr(member, "serve", serve)  # noqa: B010 (it is no name that member gives to others)
    sys.exit(program.main())
