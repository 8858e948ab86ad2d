"""Reads a bbolt database in key order through a map of the file: memory does not grow with it.

Nothing the file says is believed: every page id, position and length is checked before it is followed, keys must
ascend (which also ends any circle of pages), and a full walk finds pages used twice. Raises BadDatabase.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from kvstore.etcd_db.pages import (
    BRANCH,
    BRANCH_ELEMENT,
    BUCKET,
    ELEMENT_BYTES,
    FREELIST,
    HEADER,
    IS_BUCKET,
    LEAF,
    LONG_FREELIST,
    META_BYTES,
    NO_FREELIST,
    BadDatabase,
    Meta,
    decode_meta,
)

DEPTH_MAX = 64
_RELEASE_EVERY_BYTES = 64 << 20
_PAGE_SIZES = [512 << shift for shift in range(8)]


class Database:
    """An open file. `size` is what bbolt calls the database's: the file may be longer."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115  closed by close()
        try:
            length = os.fstat(self._file.fileno()).st_size
            if not length:
                raise BadDatabase(f"{path} is empty")
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except BaseException:
            self._file.close()
            raise
        try:
            self.meta = self._find_meta(path)
            self.size = self.meta.page_count * self.meta.page_bytes
            if self.size > length:
                raise BadDatabase(f"{path} is cut off: {length} bytes of {self.size}")
        except BaseException:
            self.close()
            raise
        self._touched_bytes = 0
        self.claimed: bytearray | None = None  # a byte a page, while verify() walks

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._map.close()
        self._file.close()

    @property
    def root(self) -> Bucket:
        return Bucket(self, self.meta.root, b"", 0)

    def bucket(self, name: bytes) -> Bucket | None:
        """A bucket at the top."""
        for key, found in self.root:
            if key == name and isinstance(found, Bucket):
                return found
        return None

    def page(self, page_id: int) -> tuple[int, int, int, int]:
        """(kind, count, where the page begins, where it ends) of a page in the file."""
        page_bytes, count = self.meta.page_bytes, self.meta.page_count
        if not 2 <= page_id < count:
            raise BadDatabase(f"page {page_id} is not among the file's {count}")
        start = page_id * page_bytes
        own_id, kind, elements, overflow = HEADER.unpack_from(self._map, start)
        end = page_id + 1 + overflow
        if own_id != page_id or end > count:
            raise BadDatabase(f"page {page_id} calls itself {own_id} and ends at {end} of {count}")
        if self.claimed is not None:
            self._claim(page_id, end)
        self._touched_bytes += (1 + overflow) * page_bytes
        if self._touched_bytes >= _RELEASE_EVERY_BYTES:
            self._touched_bytes = 0
            self._map.madvise(mmap.MADV_DONTNEED)  # clean pages: whoever wants them again finds them cached
        return kind, elements, start, end * page_bytes

    @property
    def bytes_(self) -> mmap.mmap:
        return self._map

    def begin_verify(self) -> None:
        """From here on every page that is read counts as used, and none may be used twice."""
        self.claimed = bytearray(self.meta.page_count)
        self.claimed[:2] = b"\1\1"

    def end_verify(self) -> None:
        """After everything was read once: what nobody uses must be in the freelist, if there is one, and nothing
        else may be."""
        claimed, self.claimed = self.claimed, None
        assert claimed is not None, "end_verify() without begin_verify()"
        if self.meta.freelist == NO_FREELIST:
            return
        kind, count, start, end = self.page(self.meta.freelist)
        for page_id in range(start // self.meta.page_bytes, end // self.meta.page_bytes):
            _mark(claimed, page_id, "the freelist's own")
        at = start + HEADER.size
        if count == LONG_FREELIST:
            (count,) = struct.unpack_from("<Q", self._map, at)
            at += 8
        if kind != FREELIST or at + 8 * count > end:
            raise BadDatabase(f"page {self.meta.freelist} is no freelist")
        for page_id in struct.unpack_from(f"<{count}Q", self._map, at):
            _mark(claimed, page_id, "in the freelist")
        unreached = claimed.find(0)
        if unreached >= 0:
            raise BadDatabase(f"page {unreached} is neither used nor free")

    def _claim(self, first: int, end: int) -> None:
        assert self.claimed is not None
        for page_id in range(first, end):
            _mark(self.claimed, page_id, "used")

    def _find_meta(self, path: str) -> Meta:
        """The newest valid one. Where the first is damaged, the page size says where the second is."""
        found = [decode_meta(self._map[:META_BYTES])]
        sizes = [found[0].page_bytes] if found[0] is not None else _PAGE_SIZES
        found += [decode_meta(self._map[size : size + META_BYTES]) for size in sizes]
        valid = [meta for meta in found if meta is not None]
        if not valid:
            raise BadDatabase(f"{path} is not a bbolt database")
        return max(valid, key=lambda meta: meta.transaction)


class Bucket:
    """Iterates (key, value) in key order; the value of a bucket within it is a Bucket."""

    def __init__(self, database: Database, root: int, inline: bytes, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise BadDatabase("buckets within buckets without end")
        self._database = database
        self._root = root
        self._inline = inline
        self._depth = depth

    def __iter__(self) -> Iterator[tuple[bytes, Element]]:
        if self._root:
            return self._walk()
        if len(self._inline) < HEADER.size:
            raise BadDatabase(f"an inline bucket of {len(self._inline)} bytes")
        _, kind, count, _ = HEADER.unpack_from(self._inline)
        if kind != LEAF:
            raise BadDatabase(f"an inline bucket of kind {kind}")
        return self._leaf(self._inline, 0, len(self._inline), count, b"")

    def _walk(self) -> Iterator[tuple[bytes, Element]]:
        """Depth first, with a stack: each entry is what is left of one branch page."""
        database, before = self._database, b""
        stack: list[Iterator[int]] = [iter((self._root,))]
        while stack:
            page_id = next(stack[-1], None)
            if page_id is None:
                stack.pop()
                continue
            kind, count, start, end = database.page(page_id)
            if kind == BRANCH and count and len(stack) <= DEPTH_MAX:
                stack.append(self._children(page_id, start, end, count))
            elif kind == LEAF and (count or page_id == self._root):
                for key, value in self._leaf(database.bytes_, start, end, count, before):
                    yield key, value
                    before = key
            else:
                raise BadDatabase(f"page {page_id} of kind {kind} with {count} elements in a tree")

    def _children(self, page_id: int, start: int, end: int, count: int) -> Iterator[int]:
        if start + HEADER.size + count * ELEMENT_BYTES > end:
            raise BadDatabase(f"page {page_id} is too small for {count} elements")
        data, at = self._database.bytes_, start + HEADER.size
        return iter([BRANCH_ELEMENT.unpack_from(data, at + 16 * i)[2] for i in range(count)])

    def _leaf(
        self, data: bytes | mmap.mmap, start: int, end: int, count: int, before: bytes
    ) -> Iterator[tuple[bytes, Element]]:
        at = start + HEADER.size
        if at + count * ELEMENT_BYTES > end:
            raise BadDatabase(f"the leaf at byte {start} is too small for {count} elements")
        numbers = iter(struct.unpack_from(f"<{4 * count}I", data, at))
        for flags, position, key_size, value_size in zip(numbers, numbers, numbers, numbers):
            middle = at + position + key_size
            if middle + value_size > end:
                raise BadDatabase(f"an element of the leaf at byte {start} ends behind it")
            key: bytes = data[middle - key_size : middle]
            if not before < key:
                raise BadDatabase(f"keys do not ascend in the leaf at byte {start}: {key[:64]!r}")
            before = key
            value: bytes = data[middle : middle + value_size]
            yield key, self._nested(value) if flags & IS_BUCKET else value
            at += ELEMENT_BYTES

    def _nested(self, value: bytes) -> Bucket:
        if len(value) < BUCKET.size:
            raise BadDatabase(f"a bucket's value of {len(value)} bytes")
        root, _ = BUCKET.unpack_from(value)
        return Bucket(self._database, root, value[BUCKET.size :], self._depth + 1)


Element = bytes | Bucket


def _mark(claimed: bytearray, page_id: int, as_what: str) -> None:
    if not page_id < len(claimed) or claimed[page_id]:
        raise BadDatabase(f"page {page_id} is {as_what} and something else too")
    claimed[page_id] = 1
