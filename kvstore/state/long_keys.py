"""Where a key lives in LMDB, whose own keys end at 511 bytes. Standard library only.

A key of up to 500 bytes is its own place. Longer keys share a bucket at their first 500 bytes and one zero
byte, in order. That keeps the order of the whole key space: the key of exactly those 500 bytes sorts before
the bucket, and any other key of up to 500 bytes differs within them. A place of 501 bytes is always a bucket.

    bucket := (length u32 | record) *
"""

from __future__ import annotations

import bisect
import struct

from kvstore.state.records import Buffer, key_of

TYPE_CHECKING = False  # typing's own would cost the import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHORT_MAX = 500
_LENGTH = struct.Struct(">I")


class LongKeys(Exception):
    """A bucket is in the way of what only knows short keys."""


def place_of(key: bytes) -> bytes:
    return key if len(key) <= SHORT_MAX else key[:SHORT_MAX] + b"\0"


def is_bucket(place: Buffer) -> bool:
    return len(place) > SHORT_MAX


def records_in(bucket: Buffer) -> Iterator[Buffer]:
    """Each record, in key order, as slices of `bucket`."""
    at, end = 0, len(bucket)
    while at < end:
        (size,) = _LENGTH.unpack_from(bucket, at)
        at += _LENGTH.size
        yield bucket[at : at + size]
        at += size


def find(bucket: Buffer, key: bytes) -> Buffer | None:
    for record in records_in(bucket):
        if key_of(record) == key:
            return record
    return None


def changed(bucket: Buffer, changes: Mapping[bytes, Buffer | None]) -> bytes:
    """The bucket with those keys' records replaced, added, or (None) removed."""
    records = {key_of(record): record for record in records_in(bucket)}
    keys = list(records)
    for key in sorted(changes):
        record = changes[key]
        if record is None:
            if records.pop(key, None) is not None:
                del keys[bisect.bisect_left(keys, key)]
        else:
            if key not in records:
                bisect.insort(keys, key)
            records[key] = record
    parts: list[Buffer] = []
    for key in keys:
        parts.append(_LENGTH.pack(len(records[key])))
        parts.append(records[key])
    return b"".join(parts)
