"""A websocket through the proxy: after the handshake its bytes are passed on as they are, both ways.

So subprotocols, extensions, fragments, pings and close codes are the business of the two ends. Each side is read only
as fast as the other takes it. Only when the proxy has to end it does it speak itself: between two frames it puts a
close frame with 1001 (going away) to each side, and waits a little for them to close.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.http import StreamWriter

from kvstore.routing.frames import GOING_AWAY, Frames, close_frame
from kvstore.routing.headers import WEBSOCKET, for_client

READ_BYTES = 64 * 1024
CLOSE_WAIT_S = 1.0


class _Raw:
    """In the place of aiohttp's websocket parser: everything goes into a reader, which has flow control."""

    def __init__(self, reader: aiohttp.StreamReader) -> None:
        self._reader = reader

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._reader.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self._reader.feed_eof()


class _Way:
    """One direction. After the close frame nothing more is passed on: nothing may follow it."""

    def __init__(
        self, reader: aiohttp.StreamReader, write: Callable[[bytes], Awaitable[None]], *, is_masked: bool
    ) -> None:
        self._reader = reader
        self._write = write
        self._farewell = close_frame(GOING_AWAY, is_masked=is_masked)
        self._frames = Frames()
        self._is_leaving = False
        self._has_left = False

    async def run(self) -> None:
        """Until the side that is read has closed, or the other can take no more."""
        with contextlib.suppress(ConnectionError):
            while piece := await self._reader.readany():
                if not self._is_leaving:
                    self._frames.feed(piece)
                    await self._write(piece)
                elif not self._has_left:
                    await self._write_to_boundary(piece)

    async def leave(self) -> None:
        self._is_leaving = True
        if self._frames.at_boundary:
            await self._write_to_boundary(b"")

    async def _write_to_boundary(self, piece: bytes) -> None:
        end = self._frames.cut(piece)
        self._has_left = end is not None
        await self._write(piece if end is None else piece[:end] + self._farewell)


class Tunnel:
    """Of one handshake that the instance answered with 101."""

    def __init__(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> None:
        self._request = request
        self._answer = answer
        self._is_to_leave = asyncio.Event()

    def leave(self) -> None:
        self._is_to_leave.set()

    async def run(self) -> web.StreamResponse:
        """Returns when either side has closed; what it had sent before is with the other."""
        headers = for_client(self._answer)
        headers.update(WEBSOCKET)
        response = web.StreamResponse(status=101, reason=self._answer.reason, headers=headers)
        response.force_close()
        with contextlib.suppress(ConnectionError):
            await response.prepare(self._request)
            connection = self._answer.connection
            if connection is not None and connection.protocol is not None:
                await self._pass_on(response, connection.protocol)
        return response

    async def _pass_on(self, response: web.StreamResponse, instance: Any) -> None:
        loop = asyncio.get_running_loop()
        client: Any = self._request.protocol
        instance.read_timeout = None  # a websocket may be silent for as long as its ends like
        from_client = aiohttp.StreamReader(client, READ_BYTES, loop=loop)
        from_instance = aiohttp.StreamReader(instance, READ_BYTES, loop=loop)
        client.set_parser(_Raw(from_client))
        instance.set_parser(_Raw(from_instance), from_instance)
        ways = (
            _Way(from_client, StreamWriter(instance, loop).write, is_masked=True),
            _Way(from_instance, response.write, is_masked=False),
        )
        tasks = [asyncio.ensure_future(way.run()) for way in ways]
        tasks.append(asyncio.ensure_future(self._leave_when_told(ways)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave_when_told(self, ways: tuple[_Way, ...]) -> None:
        await self._is_to_leave.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WAIT_S):
                await asyncio.gather(*(way.leave() for way in ways), return_exceptions=True)
                await asyncio.Event().wait()
        transport = self._request.transport
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()  # it takes nothing, and would be waited for for ever
