"""Protobuf's varints, for replies and events that are spliced from stored bytes instead of built anew."""

from __future__ import annotations

_SMALL = [bytes((value,)) for value in range(0x80)] + [
    bytes((value & 0x7F | 0x80, value >> 7)) for value in range(0x80, 0x1000)
]
_SMALL_END = len(_SMALL)


def varint(value: int) -> bytes:
    """A negative number takes ten bytes, as an int64 does."""
    if 0 <= value < _SMALL_END:
        return _SMALL[value]
    if value < 0:
        value += 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(tag: bytes, content: bytes) -> bytes:
    """A length-delimited field."""
    return b"".join((tag, varint(len(content)), content))
