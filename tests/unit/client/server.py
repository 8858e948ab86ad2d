"""A server of HTTP/2 on a real socket that does what a test tells it, for better or worse."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from hpack import Decoder

from kvstore.wire import frames as h2
from kvstore.wire.frames import frame
from tests.unit.client.wire import HEAD, TRAILERS, Frame, framed


class Peer:
    """One connection of a client, its preface and settings read and answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._decoder = Decoder()

    async def greet(self, settings: bytes = b"") -> None:
        assert await self.reader.readexactly(len(h2.PREFACE)) == h2.PREFACE
        self.say(frame(h2.SETTINGS, 0, 0, settings))

    async def frame(self) -> Frame:
        head = await self.reader.readexactly(h2.FRAME_BYTES)
        high, low, kind, flags, stream = h2.FRAME.unpack(head)
        return Frame(kind, flags, stream, await self.reader.readexactly(high << 8 | low))

    async def next(self, *kinds: int) -> Frame:
        """The next frame of one of these kinds."""
        while True:
            found = await self.frame()
            if found.kind in kinds and not (found.kind in (h2.PING, h2.SETTINGS) and found.flags & h2.ACK):
                return found

    async def request(self) -> tuple[int, dict[str, str], bytes]:
        """The next call of one message: its stream, headers and DATA."""
        head = await self.next(h2.HEADERS)
        fields = {str(name): str(value) for name, value in self._decoder.decode(head.payload)}
        data = await self.next(h2.DATA)
        assert data.stream == head.stream
        return head.stream, fields, data.payload

    def say(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    def head(self, stream: int) -> None:
        self.say(frame(h2.HEADERS, h2.END_HEADERS, stream, HEAD))

    def message(self, stream: int, data: bytes) -> None:
        self.say(frame(h2.DATA, 0, stream, framed(data)))

    def end(self, stream: int, block: bytes = TRAILERS) -> None:
        self.say(frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, block))

    def answer(self, stream: int, data: bytes = b"") -> None:
        self.head(stream)
        self.message(stream, data)
        self.end(stream)

    def goaway(self, last: int, code: int = h2.NO_ERROR, why: bytes = b"") -> None:
        self.say(frame(h2.GOAWAY, 0, 0, h2.U32.pack(last) + h2.U32.pack(code) + why))

    async def until_gone(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class Running:
    endpoint: str
    connections: int = 0


@contextlib.asynccontextmanager
async def serving(
    *scripts: Script, host: str = "127.0.0.1", path: str = "", context: ssl.SSLContext | None = None
) -> AsyncIterator[Running]:
    """The first connection meets the first script, and so on; the last is for all that follow. A connection ends
    when its script does. What a script raises, the test raises. path: of a Unix socket to listen at instead."""
    running = Running("")
    tasks: set[asyncio.Task[None]] = set()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = scripts[min(running.connections, len(scripts) - 1)]
        running.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client left
        finally:
            writer.close()

    if path:
        server = await asyncio.start_unix_server(meet, path)
        running.endpoint = f"unix://{path}"
    else:
        server = await asyncio.start_server(meet, host, 0, ssl=context)
        address = server.sockets[0].getsockname()
        running.endpoint = f"[{address[0]}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
    try:
        yield running
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
