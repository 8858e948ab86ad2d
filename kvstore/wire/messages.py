"""gRPC's framing of messages in a stream: one flag byte, four bytes of length, the message."""

from __future__ import annotations

import struct
import zlib

from kvstore.rpc import Status

PREFIX = struct.Struct(">BI")
PREFIX_BYTES = PREFIX.size


class MessageFault(Exception):
    """The stream fails with this status; the connection goes on."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class MessageReader:
    """Cuts a stream's DATA into messages. Never holds more than one message and what follows in a frame."""

    __slots__ = ("_buffer", "_encoding", "_max_bytes")

    def __init__(self, max_bytes: int, encoding: bytes) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes
        self._encoding = encoding

    @property
    def partial_bytes(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that data completes. Raises MessageFault."""
        buffer = self._buffer
        buffer += data
        found: list[bytes] = []
        at = 0
        while len(buffer) - at >= PREFIX_BYTES:
            compressed, size = PREFIX.unpack_from(buffer, at)
            if size > self._max_bytes:
                raise _too_large(size, self._max_bytes)
            end = at + PREFIX_BYTES + size
            if end > len(buffer):
                break
            message = bytes(buffer[at + PREFIX_BYTES : end])
            found.append(self._plain(message) if compressed else message)
            at = end
        if at:
            del buffer[:at]
        return found

    def _plain(self, message: bytes) -> bytes:
        """Unpacks gzip, and stops one byte past the limit: a small message may claim to be huge."""
        if self._encoding != b"gzip":
            raise MessageFault(Status.INTERNAL, "grpc: compressed flag set with identity or empty encoding")
        unpacker = zlib.decompressobj(wbits=31)
        try:
            plain = unpacker.decompress(message, self._max_bytes + 1)
        except zlib.error as problem:
            raise MessageFault(
                Status.INTERNAL, f"grpc: failed to decompress the message: {problem}"
            ) from None
        if len(plain) > self._max_bytes:
            raise _too_large(len(plain), self._max_bytes)
        if not unpacker.eof:  # or a message cut short, its checksum not seen, would pass for a whole one
            raise MessageFault(Status.INTERNAL, "grpc: failed to decompress the message: unexpected EOF")
        return plain


def _too_large(size: int, limit: int) -> MessageFault:
    reason = f"grpc: received message larger than max ({size} vs. {limit})"
    return MessageFault(Status.RESOURCE_EXHAUSTED, reason)
