"""bbolt's file format: what a page, an element and the file's own description look like. Pure.

    file    := meta | meta | page *                                        (little-endian; pages of one size)
    page    := header | content                      and `overflow` whole pages more, where that is not enough
    header  := page id u64 | kind u16 | count u16 | overflow u32
    leaf    := (flags u32 | position u32 | key length u32 | value length u32) * count | (key | value) * count
    branch  := (position u32 | key length u32 | page id u64) * count | key * count
    bucket  := root page id u64 | sequence u64 | page where the id is 0     the value of a leaf's bucket element
    meta    := header | magic u32 | version u32 | page size u32 | flags u32 | root bucket | freelist's page id u64
               | page count u64 | transaction u64 | FNV-1a of the 56 bytes before u64

A position counts from the beginning of its own element. Of the two metas the valid one with the higher
transaction counts. A freelist's page id may be all ones: then the file has none, and what no bucket reaches
is free.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PAGE_BYTES = 4096
BRANCH, LEAF, META, FREELIST = 0x01, 0x02, 0x04, 0x10
IS_BUCKET = 0x01
MAGIC, VERSION = 0xED0CDAED, 2
NO_FREELIST = 0xFFFF_FFFF_FFFF_FFFF
LONG_FREELIST = 0xFFFF  # the count is the first of the page ids instead
KEY_BYTES_MAX = 32768
INLINE_BYTES_MAX = PAGE_BYTES // 4

HEADER = struct.Struct("<QHHI")
ELEMENT_BYTES = 16
BRANCH_ELEMENT = struct.Struct("<IIQ")
BUCKET = struct.Struct("<QQ")
_META = struct.Struct("<IIIIQQQQQ")
META_BYTES = HEADER.size + _META.size + 8


class BadDatabase(ValueError):
    """The file is no bbolt database, or a damaged one. Says what, and at which page."""


@dataclass(frozen=True)
class Meta:
    page_bytes: int
    root: int
    freelist: int
    page_count: int
    transaction: int


def fnv1a(data: bytes) -> int:
    """FNV-1a of 64 bits (http://www.isthe.com/chongo/tech/comp/fnv)."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFF_FFFF_FFFF_FFFF
    return value


def encode_meta(meta: Meta, page_id: int) -> bytes:
    body = _META.pack(
        MAGIC,
        VERSION,
        meta.page_bytes,
        0,
        meta.root,
        0,
        meta.freelist,
        meta.page_count,
        meta.transaction,
    )
    page = HEADER.pack(page_id, META, 0, 0) + body + fnv1a(body).to_bytes(8, "little")
    return page.ljust(meta.page_bytes, b"\0")


def decode_meta(data: bytes) -> Meta | None:
    """What the beginning of a meta page says; None where it is not one, or fails its checksum."""
    if len(data) < META_BYTES:
        return None
    _, kind, _, _ = HEADER.unpack_from(data)
    body = data[HEADER.size : HEADER.size + _META.size]
    magic, version, page_bytes, _, root, _, freelist, page_count, transaction = _META.unpack(body)
    if not kind & META or (magic, version) != (MAGIC, VERSION):
        return None
    if int.from_bytes(data[META_BYTES - 8 : META_BYTES], "little") != fnv1a(body):
        return None
    if page_bytes & (page_bytes - 1) or not 512 <= page_bytes <= 1 << 16:
        return None
    return Meta(page_bytes, root, freelist, page_count, transaction)


def encode_leaf(page_id: int, flags: list[int], keys: list[bytes], values: list[bytes]) -> bytes:
    """A leaf's bytes without padding; the header counts the overflow of PAGE_BYTES pages."""
    numbers: list[int] = []
    position = ELEMENT_BYTES * len(keys)
    for flag, key, value in zip(flags, keys, values):
        numbers += (flag, position, len(key), len(value))
        position += len(key) + len(value) - ELEMENT_BYTES
    parts: list[bytes] = [b"", struct.pack(f"<{len(numbers)}I", *numbers)]
    for key, value in zip(keys, values):
        parts.append(key)
        parts.append(value)
    return _headed(page_id, LEAF, len(keys), parts)


def encode_branch(page_id: int, keys: list[bytes], children: list[int]) -> bytes:
    position = ELEMENT_BYTES * len(keys)
    parts: list[bytes] = [b""]
    for key, child in zip(keys, children):
        parts.append(BRANCH_ELEMENT.pack(position, len(key), child))
        position += len(key) - ELEMENT_BYTES
    return _headed(page_id, BRANCH, len(keys), parts + keys)


def encode_freelist(page_id: int) -> bytes:
    """Of a file in which every page is in use."""
    return HEADER.pack(page_id, FREELIST, 0, 0)


def page_span(size: int) -> int:
    """How many pages hold that many bytes."""
    return -(-size // PAGE_BYTES)


def _headed(page_id: int, kind: int, count: int, parts: list[bytes]) -> bytes:
    """parts[0] is empty and becomes the header."""
    size = HEADER.size + sum(map(len, parts))
    parts[0] = HEADER.pack(page_id, kind, count, page_span(size) - 1)
    return b"".join(parts)
