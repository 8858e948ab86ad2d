"""A gRPC client that costs little, the same for every server: HTTP/2 frames read and written by hand.

grpcio takes some 50 µs a message, which would hide what a server needs to tell a thousand watchers. This one
sends constant header blocks, asks for no header compression, opens every window wide and never refuses, so that
a message costs it a few µs. It is no client for anything but loopback and servers that mean well.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

from hpack import Decoder

from kvstore.wire.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    FRAME_BYTES,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_BYTES,
    PING,
    PREFACE,
    RST_STREAM,
    SETTING,
    SETTINGS,
    U32,
    WINDOW_MAX,
    WINDOW_UPDATE,
    frame,
)

HEADER_TABLE_SIZE = 1
WINDOW_AGAIN = 1 << 28
_PREFIX = struct.Struct(">BI")


class RawFailed(Exception):
    """The server ended a call with a status that is not OK, or the connection."""


OnMessage = Callable[[bytes], None]
OnEnd = Callable[[str], None]


class Call:
    """One stream. on_message: a message's bytes, each as it comes; on_end: "" for status OK, or the status."""

    __slots__ = ("buffer", "on_end", "on_message", "status")

    def __init__(self, on_message: OnMessage | None, on_end: OnEnd | None) -> None:
        self.on_message = on_message
        self.on_end = on_end
        self.buffer = b""
        self.status = ""


class RawConnection(asyncio.Protocol):
    """One connection; connect() makes it. Everything runs on the loop's thread."""

    def __init__(self, host: str) -> None:
        self._authority = host
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._next = 1
        self._buffer = b""
        self._blocks: dict[str, bytes] = {}
        self._statuses: dict[bytes, str] = {}
        self._decoder = Decoder()
        self._decoder.header_table_size = 0
        self._block = b""
        self._block_flags = 0
        self._window = 65_535
        self._waiting: deque[tuple[int, bytes, bool]] = deque()
        self._received = 0
        self._metadata: tuple[tuple[str, str], ...] = ()
        self.scheme = "http"
        self.failure: str | None = None

    @classmethod
    async def connect(
        cls, endpoint: str, tls: ssl.SSLContext | None = None, metadata: tuple[tuple[str, str], ...] = ()
    ) -> RawConnection:
        host, port = endpoint.rsplit(":", 1)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(endpoint), host, int(port), ssl=tls)
        connection.scheme = "http" if tls is None else "https"
        connection._metadata = metadata
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by type
        settings = SETTING.pack(HEADER_TABLE_SIZE, 0) + SETTING.pack(INITIAL_WINDOW_SIZE, WINDOW_MAX)
        more = U32.pack(WINDOW_MAX - 65_535)
        self._transport.write(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, more))

    def connection_lost(self, error: Exception | None) -> None:
        self.failure = self.failure or f"connection lost: {error}"
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if call.on_end is not None:
                call.on_end(self.failure)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def open(
        self,
        path: str,
        on_message: OnMessage | None = None,
        on_end: OnEnd | None = None,
        message: bytes = b"",
    ) -> int:
        """A stream that stays open for more; message: the first one."""
        stream = self._begin(path, on_message, on_end)
        if message:
            self.send(stream, message)
        return stream

    def send(self, stream: int, message: bytes, end: bool = False) -> None:
        self._send(stream, _PREFIX.pack(0, len(message)) + message, end)

    def call(self, path: str, message: bytes, on_message: OnMessage | None, on_end: OnEnd | None) -> None:
        """A call with one request, which ends the stream on our side."""
        self.send(self._begin(path, on_message, on_end), message, end=True)

    async def ask(self, path: str, message: bytes) -> bytes:
        """A unary call's reply. Raises RawFailed."""
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        replies: list[bytes] = []

        def ended(status: str) -> None:
            if not done.done():
                done.set_result(status)

        self.call(path, message, replies.append, ended)
        if status := await done:
            raise RawFailed(f"{path}: {status}")
        return replies[0]

    def reset(self, stream: int) -> None:
        self._calls.pop(stream, None)
        self._write(frame(RST_STREAM, 0, stream, U32.pack(8)))

    def _begin(self, path: str, on_message: OnMessage | None, on_end: OnEnd | None) -> int:
        if self.failure is not None:
            raise RawFailed(self.failure)
        stream, self._next = self._next, self._next + 2
        self._calls[stream] = Call(on_message, on_end)
        block = self._blocks.get(path)
        if block is None:
            block = self._blocks[path] = self._headers(path)
        self._write(frame(HEADERS, END_HEADERS, stream, block))
        return stream

    def _headers(self, path: str) -> bytes:
        fields = [
            *(
                (":method", "POST"),
                (":scheme", self.scheme),
                (":path", path),
                (":authority", self._authority),
            ),
            *(("content-type", "application/grpc"), ("te", "trailers")),
            *self._metadata,
        ]
        return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)

    def _send(self, stream: int, data: bytes, end: bool) -> None:
        while len(data) > MAX_FRAME_BYTES:
            self._data(stream, data[:MAX_FRAME_BYTES], False)
            data = data[MAX_FRAME_BYTES:]
        self._data(stream, data, end)

    def _data(self, stream: int, data: bytes, end: bool) -> None:
        """The connection's window is kept; a stream's is never less than what one request takes here."""
        if self._waiting or len(data) > self._window:
            self._waiting.append((stream, data, end))
            return
        self._window -= len(data)
        self._write(frame(DATA, END_STREAM if end else 0, stream, data))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and self.failure is None:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        at, size = 0, len(data)
        while size - at >= FRAME_BYTES:
            high, low, kind, flags, stream = FRAME.unpack_from(data, at)
            end = at + FRAME_BYTES + (high << 8 | low)
            if end > size:
                break
            self._frame(kind, flags, stream, data[at + FRAME_BYTES : end])
            at = end
        self._buffer = data[at:]
        if self._received > WINDOW_AGAIN:
            self._write(frame(WINDOW_UPDATE, 0, 0, U32.pack(self._received)))
            self._received = 0

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._received += len(payload)  # and nothing else: no window may grow above what it was
            self._messages(stream, payload)
            if flags & END_STREAM:
                self._ended(stream)
        elif kind in (HEADERS, CONTINUATION):
            self._header_block(kind, flags, stream, payload)
        elif kind == SETTINGS and not flags & ACK:
            self._write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += U32.unpack(payload)[0]
            while self._waiting and len(self._waiting[0][1]) <= self._window:
                waiting_stream, data, end = self._waiting.popleft()
                self._window -= len(data)
                self._write(frame(DATA, END_STREAM if end else 0, waiting_stream, data))
        elif kind == RST_STREAM:
            self._end(stream, f"reset with {U32.unpack(payload)[0]}")
        elif kind == GOAWAY:
            self.failure = f"GOAWAY: {payload[8:].decode(errors='replace')}"

    def _messages(self, stream: int, payload: bytes) -> None:
        call = self._calls.get(stream)
        if call is None:
            return
        data = call.buffer + payload if call.buffer else payload
        at = 0
        while len(data) - at >= 5:
            end = at + 5 + _PREFIX.unpack_from(data, at)[1]
            if end > len(data):
                break
            if call.on_message is not None:
                call.on_message(data[at + 5 : end])
            at = end
        call.buffer = data[at:]

    def _header_block(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._block, self._block_flags = payload, flags
        else:
            self._block += payload
        if not flags & END_HEADERS:
            return
        status = self._statuses.get(self._block)
        if status is None:
            # Without a dynamic table a block means the same each time.
            fields = {
                str(name): str(value) for name, value, *_ in self._decoder.decode(self._block, raw=False)
            }
            code = fields.get("grpc-status", "0")
            if fields.get(":status", "200") != "200":
                code = f"HTTP {fields[':status']}"
            status = "" if code == "0" else f"status {code}: {fields.get('grpc-message', '')}"
            self._statuses[self._block] = status
        call = self._calls.get(stream)
        if call is not None and status:
            call.status = status
        if self._block_flags & END_STREAM:
            self._ended(stream)

    def _ended(self, stream: int) -> None:
        call = self._calls.get(stream)
        self._end(stream, "" if call is None else call.status)

    def _end(self, stream: int, status: str) -> None:
        call = self._calls.pop(stream, None)
        if call is not None and call.on_end is not None:
            call.on_end(status)


def _text(value: str) -> bytes:
    """A string literal of HPACK (RFC 7541, 5.2), not Huffman-coded."""
    data = value.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, size = len(data) - 127, bytearray((127,))
    while rest >= 128:
        size.append(rest & 127 | 128)
        rest >>= 7
    size.append(rest)
    return bytes(size) + data
