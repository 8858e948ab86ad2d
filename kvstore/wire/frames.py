"""HTTP/2 frames as numbers (RFC 9113), and the errors that end a connection or a stream."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME = struct.Struct(">HBBBI")  # length (its upper 16 and lower 8 bits), type, flags, stream
FRAME_BYTES = FRAME.size
U32 = struct.Struct(">I")
SETTING = struct.Struct(">HI")
MAX_FRAME_BYTES = 16_384
WINDOW_MAX = 0x7FFF_FFFF
DEFAULT_WINDOW = 65_535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 0x1, 0x1, 0x4, 0x8, 0x20
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 3, 4, 5, 6

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11
TOO_MANY_PINGS = "too_many_pings"
"""The reason that gRPC's clients know, and ping less often for."""


class ConnectionFault(Exception):
    """The peer broke the protocol, or a bound: GOAWAY with this code, then the connection ends."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason

    @property
    def is_flood(self) -> bool:
        """Too much of what costs more to read than to send. Pings are not, but for very many: gRPC clients that are
        set to ping too often mean well."""
        return self.code == ENHANCE_YOUR_CALM and self.reason != TOO_MANY_PINGS


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def unpadded(payload: bytes, flags: int) -> bytes:
    """A DATA or HEADERS payload without its padding."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "padding is longer than the frame")
    return payload[1 : len(payload) - payload[0]]
