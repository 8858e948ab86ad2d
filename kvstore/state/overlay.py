"""Revisions that are applied and not yet in LMDB: a short queue of generations, newest last.

A generation is what the writer stores in one transaction. The first may be under way; the last is being
filled; those between are full and wait. When one is committed and the read transaction renewed, it is dropped
whole, which costs nothing per key. Pure.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

RECORD_OVERHEAD_BYTES = 256  # what the dictionaries and lists hold for one record besides its bytes
INSERT_ONE_BY_ONE_MAX = 64


class Latest(NamedTuple):
    """The newest version of a key. Of a tombstone everything but `record` is zero or empty.

    head: how its KeyValue begins, and that of its next version will: key, create_revision, mod_revision's tag.
    """

    record: bytes
    create_revision: int
    version: int
    lease: int
    head: bytes


class Generation:
    __slots__ = (
        "_sorted",
        "_unsorted",
        "applied_index",
        "drops",
        "forgets",
        "last_revision",
        "latest",
        "number",
        "operations",
        "record_bytes",
        "records",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.records: list[bytes] = []  # ascending: a record begins with its revision
        self.latest: dict[bytes, Latest] = {}
        self.operations: dict[tuple[int, bytes], bytes | None] = {}
        self.drops: list[bytes] = []
        self.forgets: list[tuple[bytes, bytes]] = []
        self.record_bytes = 0
        self.applied_index = 0
        self.last_revision = 0
        self._sorted: list[bytes] = []
        self._unsorted: list[bytes] = []

    def add(self, key: bytes, latest: Latest) -> None:
        record = latest.record
        self.records.append(record)
        if key not in self.latest:
            self._unsorted.append(key)
        self.latest[key] = latest
        self.record_bytes += len(record)

    def keys(self, start: bytes, end: bytes | None) -> list[bytes]:
        """The keys written in this generation, start <= key < end, in order. Sorted when first asked for."""
        ordered, fresh = self._sorted, self._unsorted
        if fresh:
            if len(fresh) <= INSERT_ONE_BY_ONE_MAX:
                for key in fresh:
                    bisect.insort(ordered, key)
            else:
                ordered += fresh
                ordered.sort()
            self._unsorted = []
        low = bisect.bisect_left(ordered, start)
        high = len(ordered) if end is None else bisect.bisect_left(ordered, end)
        return ordered[low:high]

    def version(self, position: bytes) -> bytes | None:
        at = bisect.bisect_left(self.records, position)
        if at < len(self.records) and self.records[at].startswith(position):
            return self.records[at]
        return None

    @property
    def empty(self) -> bool:
        return not (self.records or self.operations or self.drops or self.forgets or self.applied_index)


class Overlay:
    def __init__(self) -> None:
        self._last_number = 1
        self.filling = Generation(1)
        self.generations: deque[Generation] = deque([self.filling])

    def seal(self) -> None:
        """What comes from here on belongs to a new generation."""
        self._last_number += 1
        self.filling = Generation(self._last_number)
        self.generations.append(self.filling)

    def drop_first(self, number: int) -> Generation:
        """The first generation is in LMDB now."""
        first = self.generations.popleft()
        assert first.number == number, f"generation {number} committed, {first.number} expected"
        return first

    def latest(self, key: bytes) -> Latest | None:
        for generation in reversed(self.generations):
            found = generation.latest.get(key)
            if found is not None:
                return found
        return None

    def keys(self, start: bytes, end: bytes | None) -> dict[bytes, bytes]:
        """key -> latest record, in key order."""
        found: dict[bytes, bytes] = {}
        several = False
        for generation in self.generations:
            if generation.latest:
                several = several or bool(found)
                for key in generation.keys(start, end):
                    found[key] = generation.latest[key].record
        return dict(sorted(found.items())) if several else found

    def version(self, position: bytes) -> bytes | None:
        for generation in self.generations:
            records = generation.records
            if records and records[-1][:12] >= position:
                return generation.version(position)
        return None

    def history(self, position: bytes) -> Iterator[bytes]:
        for generation in self.generations:
            records = generation.records
            if records and records[-1][:12] >= position:
                for at in range(bisect.bisect_left(records, position), len(records)):
                    yield records[at]

    @property
    def record_count(self) -> int:
        return sum(len(generation.records) for generation in self.generations)

    @property
    def byte_count(self) -> int:
        return sum(
            generation.record_bytes + RECORD_OVERHEAD_BYTES * len(generation.records)
            for generation in self.generations
        )
