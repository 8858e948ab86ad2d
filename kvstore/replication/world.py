"""The world as node code sees it: time, chance and disk, handed in at the constructor and never looked up.

Production has one thin implementation of each (time and random from the standard library, RealDisk in disk.py);
tests and the simulator have others. The network is not here: the driver is given its own small Transport.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""


class Entropy(Protocol):
    """random.Random as it is: seeded in tests, from the system in production."""

    def random(self) -> float:
        """0.0 <= x < 1.0."""

    def getrandbits(self, k: int, /) -> int: ...


class Disk(Protocol):
    """The calls the write-ahead log and snapshots make, and what each one promises after a power cut.

    Every failure is an OSError with errno and path. Nothing is durable before the call that says so: contents by
    fdatasync, fsync or write_durably; names (create, rename, unlink) by fsync_directory.
    """

    def make_directory(self, path: str) -> None:
        """The directory exists, durably, readable by its owner only. Its parent must exist."""

    def lock(self, directory: str) -> int:
        """A handle that keeps other processes from locking the directory; close() gives it up.
        Raises BlockingIOError where another process holds it."""

    def list(self, directory: str) -> list[str]:
        """Names in order."""

    def exists(self, path: str) -> bool: ...

    def size(self, path: str) -> int: ...

    def open(self, path: str, *, create: bool = False) -> int:
        """A handle for reading and writing. create makes it anew, empty."""

    def close(self, handle: int) -> None: ...

    def read(self, handle: int, *, offset: int, size: int) -> bytes:
        """Fewer bytes than size only at the end of the file."""

    def write(self, handle: int, buffers: Sequence[bytes], *, offset: int) -> None:
        """All of the buffers, one after another, or an error with any part of them written."""

    def write_durably(self, handle: int, buffers: Sequence[bytes], *, offset: int) -> None:
        """write() and fdatasync() in one."""

    def preallocate(self, handle: int, size: int) -> None:
        """The file is size bytes long, reads as zeros where nothing was written, and has its blocks."""

    def truncate(self, handle: int, size: int) -> None: ...

    def fdatasync(self, handle: int) -> None: ...

    def fsync(self, handle: int) -> None: ...

    def rename(self, source: str, target: str) -> None: ...

    def unlink(self, path: str) -> None: ...

    def fsync_directory(self, path: str) -> None: ...


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()


def system_entropy() -> Entropy:
    """Chance from the operating system: no two members draw alike, whatever they were started with."""
    return random.SystemRandom()
