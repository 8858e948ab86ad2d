"""One TLS connection whose handshake is over: the transport its protocol writes to, the protocol its socket feeds.

asyncio has this too. Ours begins with a handshake that was made elsewhere (door.py), which asyncio's cannot.
Records go straight to the socket's transport, so that transport's buffer and its limits are the only ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from typing import Any, cast

_READ_BYTES = 256 << 10
_WRITE_BYTES = 256 << 10  # encrypted at once: what is held twice is no more than this


class TlsStream(asyncio.Transport, asyncio.Protocol):
    """Reading begins with attach()."""

    def __init__(
        self,
        under: asyncio.Transport,
        ssl_object: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        super().__init__()
        self._under = under
        self._ssl = ssl_object
        self._incoming = incoming
        self._outgoing = outgoing
        self._protocol: asyncio.Protocol | None = None
        self._paused = False
        self._ended = False  # nothing more will come: the other side has said so
        self._closing = False
        self._lost = False

    def attach(self, protocol: asyncio.Protocol) -> None:
        """Takes the socket over, and gives the protocol its connection and what has come already."""
        self._protocol = protocol
        self._under.set_protocol(self)
        protocol.connection_made(self)
        self._deliver()
        self._under.resume_reading()

    # From the socket

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._incoming.write(data)
        self._deliver()

    def _deliver(self) -> None:
        """Hands on what is there, unless the protocol has paused."""
        while not (self._paused or self._closing or self._ended):
            if not (self._incoming.pending or self._ssl.pending()):
                break
            try:
                data = self._ssl.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError:  # a record that was tampered with, or no record at all
                self._flush()  # the alert that says so
                self.abort()
                return
            if data:
                assert self._protocol is not None, "data before anybody reads"
                self._protocol.data_received(data)
            else:
                self._end()
        self._flush()  # reading may answer: a key update

    def _end(self) -> None:
        if self._ended or self._protocol is None:
            return
        self._ended = True
        if not self._protocol.eof_received():
            self.close()

    def eof_received(self) -> bool:
        """Without TLS's own goodbye; who is on top checks lengths, as HTTP and gRPC do."""
        if not self._closing:
            self._end()
        return not self._closing

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        if not self._lost and self._protocol is not None:
            self._lost = True
            self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    # To the socket

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        size = len(data)
        if size <= _WRITE_BYTES:
            self._encrypt(data)
            return
        view = memoryview(data).cast("B")
        for at in range(0, len(view), _WRITE_BYTES):
            self._encrypt(view[at : at + _WRITE_BYTES])

    def _encrypt(self, data: bytes | bytearray | memoryview) -> None:
        try:
            written = self._ssl.write(data)
        except ssl.SSLError:
            self.abort()
            return
        assert written == len(data), f"{written} of {len(data)} bytes, where memory takes all"
        self._under.write(self._outgoing.read())

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._under.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        return False

    # Both ways

    def close(self) -> None:
        """What was written still goes, and then TLS's goodbye; the other side's is not waited for."""
        if self._closing:
            return
        self._closing = True
        with contextlib.suppress(ssl.SSLError):  # as nearly always: the other side has not said goodbye yet
            self._ssl.unwrap()
        self._flush()
        self._under.close()

    def abort(self) -> None:
        self._closing = True
        self._under.abort()

    def is_closing(self) -> bool:
        return self._closing or self._under.is_closing()

    def pause_reading(self) -> None:
        self._paused = True
        self._under.pause_reading()

    def resume_reading(self) -> None:
        if not self._paused:
            return
        self._paused = False
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._paused or self._closing:
            return
        self._deliver()
        if not self._paused and not self._closing:
            self._under.resume_reading()

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._under.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._under.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._under.get_write_buffer_limits()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None, "asked before attach()"
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._ssl
        if name == "sslcontext":
            return self._ssl.context
        if name == "peercert":
            return self._ssl.getpeercert()
        if name == "cipher":
            return self._ssl.cipher()
        return self._under.get_extra_info(name, default)
