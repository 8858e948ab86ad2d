"""HashKV, in slices: a checksum of every version, equal on all members at equal revisions and compaction points.

Over versions, not over how they are stored, and over none that physical compaction may have removed. A million
versions take a second to read, which the loop must not wait for: step() reads some of them and comes back. Pure.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from kvstore import errors
from kvstore.state.mvcc import Keyspace
from kvstore.state.records import FLAGS_AT, main_of

SLICE_RECORDS = 2_000  # about 2 ms


class KvHash(NamedTuple):
    """CRC-32 of every version in (compact_revision, revision]."""

    value: int
    compact_revision: int
    revision: int


class HashTask:
    def __init__(self, keyspace: Keyspace, revision: int = 0) -> None:
        """revision 0 or less: the present one. Raises FutureRevision, Compacted."""
        revision = max(0, revision)
        if revision > keyspace.revision:
            raise errors.FutureRevision
        if revision and revision < keyspace.compact_revision:
            raise errors.Compacted(keyspace.compact_revision)
        self.revision = revision or keyspace.revision
        self._keyspace = keyspace
        self._begin()

    def _begin(self) -> None:
        self._compact_revision = self._keyspace.compact_revision
        self._next = self._compact_revision + 1
        self._value = 0

    def step(self, records: int = SLICE_RECORDS) -> KvHash | None:
        """Reads at least so many versions, up to the end of a revision; the result once all are read. Where a
        compaction came in between it begins anew. Raises Compacted."""
        keyspace = self._keyspace
        if keyspace.compact_revision != self._compact_revision:
            if self.revision < keyspace.compact_revision:
                raise errors.Compacted(keyspace.compact_revision)
            self._begin()
        value, read, last = self._value, 0, 0
        for record in keyspace.history(self._next):
            main = main_of(record)
            if main > self.revision:
                break
            if read >= records and main != last:
                self._value, self._next = value, main
                return None
            value = zlib.crc32(record[FLAGS_AT:], zlib.crc32(record[:12], value))
            read, last = read + 1, main
        return KvHash(value, self._compact_revision, self.revision)

    def finish(self) -> KvHash:
        """All of it at once."""
        while (result := self.step()) is None:
            pass
        return result
