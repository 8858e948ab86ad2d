"""Writes a bbolt database in one pass, from items in key order: constant memory, whatever its size.

A tree is built from below. Each of its levels holds the one page it is filling; a page that is full goes to the
file at once, and its first key and page id to the level above. So pages lie in the order in which they became
full, no page is ever changed, and equal items make equal bytes. The metas are written last: until then the file
is no database.

Leaves are filled to the brim, unlike bbolt's, which leave room for what may come: a snapshot is read, not grown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, Union

from kvstore.etcd_db.pages import (
    BUCKET,
    ELEMENT_BYTES,
    HEADER,
    INLINE_BYTES_MAX,
    IS_BUCKET,
    KEY_BYTES_MAX,
    PAGE_BYTES,
    Meta,
    encode_branch,
    encode_freelist,
    encode_leaf,
    encode_meta,
    page_span,
)

Items = Iterable[tuple[bytes, Union[bytes, "Items"]]]
"""Ascending by key. A value that is not bytes is a bucket within this one."""

BRANCH_KEYS_MIN = 2  # bbolt would merge a branch of one child away
_FIRST_FREE_PAGE = 3  # after two metas and the freelist
_FREELIST_PAGE = 2


def write_database(file: BinaryIO, buckets: Items) -> int:
    """Writes a whole database at the beginning of an empty file; its size in bytes. Does not sync.
    Raises ValueError where keys do not ascend or are not to bbolt's measure."""
    pages = _Pages(file)
    root, _ = _tree(pages, buckets, may_be_inline=False)
    for transaction in (1, 2):
        meta = Meta(PAGE_BYTES, root, _FREELIST_PAGE, pages.next_id, transaction)
        file.seek(PAGE_BYTES * (transaction % 2))
        file.write(encode_meta(meta, transaction % 2))
    file.seek(PAGE_BYTES * _FREELIST_PAGE)
    file.write(encode_freelist(_FREELIST_PAGE).ljust(PAGE_BYTES, b"\0"))
    file.seek(0, 2)
    return pages.next_id * PAGE_BYTES


class _Pages:
    """Where the next page goes. Pages are written in the order of their ids."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.next_id = _FIRST_FREE_PAGE
        file.seek(PAGE_BYTES * _FIRST_FREE_PAGE)

    def write(self, page: bytes) -> None:
        span = page_span(len(page))
        self._file.write(page)
        self._file.write(bytes(span * PAGE_BYTES - len(page)))
        self.next_id += span


class _Branches:
    """One level of branch pages, and by `above` those over it."""

    def __init__(self, pages: _Pages) -> None:
        self._pages = pages
        self._keys: list[bytes] = []
        self._children: list[int] = []
        self._size = HEADER.size
        self._fitting = 0  # how many of the keys make a full page; 0 while more fit
        self._above: _Branches | None = None

    def add(self, key: bytes, child: int) -> None:
        """A page is only written when two keys are left over for the next, so that none ends up with one."""
        self._size += ELEMENT_BYTES + len(key)
        if not self._fitting and self._size > PAGE_BYTES and len(self._keys) >= BRANCH_KEYS_MIN:
            self._fitting = len(self._keys)
        self._keys.append(key)
        self._children.append(child)
        if self._fitting and len(self._keys) == self._fitting + BRANCH_KEYS_MIN:
            self._write(self._fitting)

    def finish(self) -> int:
        """Writes what is left; the page id of the tree's root."""
        if self._above is None and len(self._children) == 1:
            return self._children[0]
        if self._fitting > BRANCH_KEYS_MIN:
            self._write(len(self._keys) - BRANCH_KEYS_MIN)
        if self._above is None:
            return self._write_page(len(self._keys))[1]
        self._write(len(self._keys))
        return self._above.finish()

    @property
    def empty(self) -> bool:
        return self._above is None and not self._keys

    def _write(self, count: int) -> None:
        first, page_id = self._write_page(count)
        if self._above is None:
            self._above = _Branches(self._pages)
        self._above.add(first, page_id)

    def _write_page(self, count: int) -> tuple[bytes, int]:
        page_id = self._pages.next_id
        keys, self._keys = self._keys[:count], self._keys[count:]
        children, self._children = self._children[:count], self._children[count:]
        self._pages.write(encode_branch(page_id, keys, children))
        self._fitting = 0
        self._size = HEADER.size + sum(ELEMENT_BYTES + len(key) for key in self._keys)
        return keys[0], page_id


def _tree(pages: _Pages, items: Items, *, may_be_inline: bool) -> tuple[int, bytes]:
    """Writes one bucket: (its root's page id, b""), or (0, the page itself) where it is small enough."""
    flags: list[int] = []
    keys: list[bytes] = []
    values: list[bytes] = []
    size, before, nested = HEADER.size, b"", False
    branches = _Branches(pages)
    for key, content in items:
        if not before < key or len(key) > KEY_BYTES_MAX:
            raise ValueError(f"key {key[:64]!r} of {len(key)} bytes after {before[:64]!r}")
        before, flag = key, 0
        if isinstance(content, bytes):
            value = content
        else:
            root, inline = _tree(pages, content, may_be_inline=True)
            value, flag, nested = BUCKET.pack(root, 0) + inline, IS_BUCKET, True
        needed = ELEMENT_BYTES + len(key) + len(value)
        if keys and size + needed > PAGE_BYTES:
            page_id = pages.next_id
            pages.write(encode_leaf(page_id, flags, keys, values))
            branches.add(keys[0], page_id)
            flags, keys, values, size = [], [], [], HEADER.size
        flags.append(flag)
        keys.append(key)
        values.append(value)
        size += needed
    page_id = pages.next_id
    if branches.empty:
        if may_be_inline and not nested and size <= INLINE_BYTES_MAX:
            return 0, encode_leaf(0, flags, keys, values)
        pages.write(encode_leaf(page_id, flags, keys, values))
        return page_id, b""
    pages.write(encode_leaf(page_id, flags, keys, values))
    branches.add(keys[0], page_id)
    return branches.finish(), b""
