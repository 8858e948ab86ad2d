"""Header fields as constants: HPACK literals that touch no table (RFC 7541 6.2.2), for both ends of a connection."""

from __future__ import annotations


def literal(name: str, value: str) -> bytes:
    """One header field, not indexed and with its name in full, which every decoder takes at any time."""
    encoded_name, encoded_value = name.encode("latin-1"), value.encode("latin-1")
    return b"\x00" + _length(len(encoded_name)) + encoded_name + _length(len(encoded_value)) + encoded_value


def _length(size: int) -> bytes:
    """An HPACK integer with a 7-bit prefix (RFC 7541 5.1)."""
    if size < 0x7F:
        return bytes((size,))
    out, size = bytearray((0x7F,)), size - 0x7F
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)
