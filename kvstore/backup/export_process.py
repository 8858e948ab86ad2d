"""The child process that makes a snapshot, or a hash of everything: beside the member, never inside it.

A process and not a thread, because building the file is Python's work, and a thread of it would take turns with
the event loop for as long as it lasts. It reads LMDB through a transaction of its own, which keeps pages from
being used again: so it writes to the local disk, however slowly a client may read afterwards, and gives up after
PATIENCE_S. It ends when its parent does.

    argv: snapshot DATABASE MAP_BYTES FILE  ->  writes FILE, prints its size
          hash     DATABASE MAP_BYTES       ->  prints the hash
Exit status 0, or 1 with one line on stderr.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from kvstore.backup.outward import Bucket, buckets
from kvstore.etcd_db.status import hash_of
from kvstore.etcd_db.writer import write_database
from kvstore.state.reader import Reader
from kvstore.state.storage_process import open_environment, open_tables

PATIENCE_S = 1800.0
NICENESS = 5
_LOOK_EVERY = 4096
_BUFFER_BYTES = 1 << 20


class Ended(Exception):
    """No reason to go on. One line."""


class Watchdog:
    """Looks now and then whether anybody still waits for the outcome, and whether it has taken too long."""

    def __init__(self, patience_s: float) -> None:
        self._parent = os.getppid()
        self._deadline = time.monotonic() + patience_s
        self._left = _LOOK_EVERY

    def guard(self, items: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for item in items:
            yield item
            self._left -= 1
            if not self._left:
                self._left = _LOOK_EVERY
                self.look()

    def look(self) -> None:
        if os.getppid() != self._parent:
            raise Ended("the member has ended")
        if time.monotonic() > self._deadline:
            raise Ended("reading the state took too long: its pages would be kept from use")


def run(arguments: Sequence[str], *, patience_s: float = PATIENCE_S) -> int:
    """Does what main() says; returns what it prints."""
    kind, database, map_bytes, *rest = arguments
    watchdog = Watchdog(patience_s)
    env = open_environment(database, map_bytes=int(map_bytes), sync=False, read_only=True)
    try:
        reader = Reader(env, open_tables(env, create=False))
        try:
            guarded: Iterator[Bucket] = ((name, watchdog.guard(items)) for name, items in buckets(reader))
            if kind == "hash":
                return hash_of(guarded)
            with open(rest[0], "xb", buffering=_BUFFER_BYTES) as file:
                return write_database(file, guarded)
        finally:
            reader.close()
    finally:
        env.close()


def main() -> None:
    os.nice(NICENESS)
    try:
        print(run(sys.argv[1:]))
    except Exception as problem:  # whatever it is, the member is told in one line
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
