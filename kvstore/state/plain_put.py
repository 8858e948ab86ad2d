"""The put that most puts are: a key, a value and nothing else, read without building a message.

benchmarks.micro, one core: 0.37 us instead of 0.77 us for PutRequest.FromString and its seven fields, once at the
front door and once on every member that applies it. Whatever is not exactly this shape is left to protobuf.
"""

from __future__ import annotations

_KEY, _VALUE = 0x0A, 0x12  # PutRequest's fields 1 and 2, length-delimited


def plain_put(payload: bytes) -> tuple[bytes, bytes] | None:
    """(key, value) of an encoded PutRequest with a key of 1 to 127 bytes, a value below 16 KiB, and no other field.

    None: it is something else, or nothing that can be read; protobuf says which.
    """
    size = len(payload)
    if size < 5 or payload[0] != _KEY:
        return None
    at = payload[1] + 2
    if not 2 < at < 0x82 or at + 2 >= size or payload[at] != _VALUE:
        return None
    length, start = payload[at + 1], at + 2
    if length >= 0x80:
        high = payload[start]
        if high >= 0x80:
            return None
        length += (high << 7) - 0x80
        start += 1
    if start + length != size:
        return None
    return payload[2:at], payload[start:]
