"""Where one websocket frame ends and the next begins (RFC 6455 5.2), and a close frame to put there. Pure.

A proxy that passes bytes on needs no more of the protocol than this: between two frames, and nowhere else, it may put
in one of its own, also between the fragments of a message.
"""

from __future__ import annotations

import struct

GOING_AWAY = 1001
_CLOSE = 0x88  # final, opcode 8
_MASKED = 0x80


class Frames:
    """Follows one direction. at_boundary: all that was fed so far are whole frames."""

    def __init__(self) -> None:
        self._head = b""  # of a frame whose length is not known yet
        self._left = 0  # bytes of payload to come

    @property
    def at_boundary(self) -> bool:
        return not self._head and not self._left

    def feed(self, data: bytes) -> None:
        self._run(data, stop_at_boundary=False)

    def cut(self, data: bytes) -> int | None:
        """How many bytes of data come before the next boundary, 0 when it is here; None: it is not in data.
        What comes after the boundary is as good as never fed."""
        if self.at_boundary:
            return 0
        end = self._run(data, stop_at_boundary=True)
        return end if self.at_boundary else None

    def _run(self, data: bytes, *, stop_at_boundary: bool) -> int:
        at, size = 0, len(data)
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
            else:
                before = len(self._head)
                head = self._head + data[at : at + 14 - before]
                length = _head_length(head)
                if length is None or len(head) < length:
                    self._head = head
                    return size
                self._left = _payload_length(head)
                self._head = b""
                at += length - before
            if stop_at_boundary and self.at_boundary:
                return at
        return at


def _head_length(head: bytes) -> int | None:
    """None when that cannot be told yet."""
    if len(head) < 2:
        return None
    return 2 + {126: 2, 127: 8}.get(head[1] & 0x7F, 0) + (4 if head[1] & _MASKED else 0)


def _payload_length(head: bytes) -> int:
    short = head[1] & 0x7F
    if short == 126:
        return int.from_bytes(head[2:4], "big")
    return int.from_bytes(head[2:10], "big") if short == 127 else short


def close_frame(code: int, *, is_masked: bool) -> bytes:
    """is_masked: as a client sends it. The mask is zero: what it protects from is text that the sender chose."""
    payload = struct.pack("!H", code)
    if is_masked:
        return bytes((_CLOSE, _MASKED | len(payload))) + bytes(4) + payload
    return bytes((_CLOSE, len(payload))) + payload
