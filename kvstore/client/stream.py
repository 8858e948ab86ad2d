"""One call of many messages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic

from google.protobuf.message import DecodeError

from kvstore.client.channel import Channel, Metadata
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import ClientError, ConnectionLost, RequestTimeout, from_ending
from kvstore.client.methods import Method, Request, Response
from kvstore.client.replies import Ending
from kvstore.rpc import Status


class Stream(Generic[Request, Response]):
    """One reader and one writer at a time. A read that its caller gives up on loses nothing: what comes is kept for
    the next. Messages that nobody reads hold the server back, so that memory stays bounded."""

    def __init__(
        self,
        endpoint: Endpoint,
        channel: Channel,
        method: Method[Request, Response],
        metadata: Metadata,
        request: Request | None = None,
    ) -> None:
        """Opens the call, on a channel that is connected. request: the only one from this side. Raises Unreachable."""
        self.endpoint = endpoint
        self._parse: Callable[[bytes], Response] = method.response.FromString
        self._messages: deque[bytes] = deque()
        self._ending: Ending | None = None
        self._cancelled = False
        self._waiter: asyncio.Future[None] | None = None  # of who reads
        self._may_wake = False
        self._writer: asyncio.Future[None] | None = None  # of who writes more than may go
        message = None if request is None else request.SerializeToString()
        self._connection, self._call = channel.open(method.path, metadata, self, message)

    async def write(self, request: Request) -> None:
        """Returns once it is on its way. Raises what ended the call."""
        self._raise_if_over()
        connection, call = self._connection, self._call
        connection.send(call, request.SerializeToString())
        while connection.is_clogged(call):
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await self._writer
            finally:
                self._writer = None
            self._raise_if_over()

    async def read(self, timeout_s: float | None) -> Response:
        """The next response. Raises ConnectionLost or another ClientError when there will be none."""
        response = await self.next(timeout_s)
        if response is None:
            raise ConnectionLost("the server ended the stream")
        return response

    async def next(self, timeout_s: float | None) -> Response | None:
        """As read(), but None where the server ended the call with OK."""
        if not await self._readable(timeout_s):
            raise RequestTimeout(f"no answer from {self.endpoint.name} within {timeout_s} s")
        if self._messages and not self._cancelled:
            message = self._messages.popleft()
            self._connection.taken(self._call, message)
            try:
                return self._parse(message)
            except DecodeError as problem:
                raise ClientError(f"the answer cannot be read: {problem}", code=Status.INTERNAL) from None
        if self._ending is not None and self._ending.status is Status.OK:
            return None
        raise self._error()

    async def wait(self, timeout_s: float | None) -> bool:
        """Until there is something to read, a message or the end: True. False when the time is up, or at wake()."""
        self._may_wake = True
        try:
            return await self._readable(timeout_s)
        finally:
            self._may_wake = False

    def wake(self) -> None:
        """Ends the wait() under way, if there is one; a read goes on."""
        if self._may_wake:
            _release(self._waiter)

    async def _readable(self, timeout_s: float | None) -> bool:
        if self._is_readable:
            return True
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, _release, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        return self._is_readable

    def cancel(self) -> None:
        if self._ending is None and not self._cancelled:
            self._connection.cancel(self._call)
        self._cancelled = True
        _release(self._waiter)
        _release(self._writer)

    async def close(self) -> None:
        self.cancel()

    @property
    def _is_readable(self) -> bool:
        return bool(self._messages) or self._ending is not None or self._cancelled

    def _raise_if_over(self) -> None:
        if self._ending is not None or self._cancelled:
            raise self._error()

    def _error(self) -> ClientError:
        if self._cancelled or self._ending is None:
            return ConnectionLost("the stream was cancelled")
        if self._ending.status is Status.OK:
            return ConnectionLost("the server ended the stream")
        return from_ending(self._ending, write=False)

    # What the connection tells

    def message(self, data: bytes) -> None:
        self._messages.append(data)
        _release(self._waiter)

    def ended(self, ending: Ending) -> None:
        self._ending = ending
        _release(self._waiter)
        _release(self._writer)

    def drained(self) -> None:
        _release(self._writer)


def _release(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
