"""A disk in memory that keeps only what was synced, and breaks in the ways disks break.

Every call that changes something is one step. `crash_at` ends the run with PowerCut at that step, which may have
done any part of its work; crash() then decides what is found after the restart: of each file's unsynced writes
any subset of 512-byte sectors, of each directory's unsynced names any subset.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

T = TypeVar("T")
SECTOR = 512


class PowerCut(BaseException):
    """Not an Exception: nothing in the program may catch it."""


@dataclass(slots=True)
class Inode:
    content: bytearray = field(default_factory=bytearray)  # as the program reads it
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(
        default_factory=list
    )  # (offset, data) or (new size, None)


@dataclass(slots=True)
class NameChange:
    removed: str | None
    added: str | None
    inode: Inode | None


def _apply(target: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        if offset < len(target):
            del target[offset:]
        else:
            target.extend(bytes(offset - len(target)))
        return
    if len(target) < offset:
        target.extend(bytes(offset - len(target)))
    target[offset : offset + len(data)] = data


class SimulatedDisk:
    def __init__(self, *, capacity: int = 1 << 40, crash_at: int | None = None) -> None:
        self.capacity = capacity
        self.crash_at = crash_at
        self.steps = 0
        self.story: list[str] = []
        self.fail_at: dict[int, int] = {}  # step -> errno
        self.fsync_broken = False
        self._names: dict[str, Inode] = {}
        self._durable_names: dict[str, Inode] = {}
        self._changes: dict[str, list[NameChange]] = {}
        self._directories: set[str] = set()
        self._handles: dict[int, Inode | str] = {}
        self._next_handle = 100
        self._locked: set[str] = set()

    # Faults

    def crash(self, rng: Random, mode: str = "random") -> None:
        """The power comes back. mode: none, all, prefix or random, of what was not synced."""
        inodes = {id(i): i for i in [*self._names.values(), *self._durable_names.values()]}
        for inode in inodes.values():
            self._crash_file(inode, rng, mode)
        for changes in self._changes.values():
            for change in _survivors(changes, rng, mode):
                self._rename_durably(change)
        self._names = dict(self._durable_names)
        self._changes.clear()
        self._handles.clear()
        self._locked.clear()
        self.crash_at = None
        self.fail_at.clear()

    def _crash_file(self, inode: Inode, rng: Random, mode: str) -> None:
        for offset, data in _survivors(_sectors(inode.pending), rng, mode):
            _apply(inode.durable, offset, data)
        inode.pending.clear()
        inode.content = bytearray(inode.durable)

    def _rename_durably(self, change: NameChange) -> None:
        if change.removed is not None:
            self._durable_names.pop(change.removed, None)
        if change.added is not None and change.inode is not None:
            self._durable_names[change.added] = change.inode

    def flip(self, path: str, offset: int, bit: int = 0) -> None:
        """Bit rot in what is stored."""
        for content in (self._names[path].content, self._names[path].durable):
            content[offset] ^= 1 << bit

    def contents(self, path: str) -> bytes:
        return bytes(self._names[path].content)

    def copy(self) -> SimulatedDisk:
        """As after a clean restart of the machine: everything current is durable."""
        other = SimulatedDisk()
        for path, inode in self._names.items():
            twin = Inode(bytearray(inode.content), bytearray(inode.content))
            other._names[path] = other._durable_names[path] = twin
        other._directories = set(self._directories)
        return other

    def _step(self, what: str, partly: Callable[[], None] | None = None) -> None:
        self.steps += 1
        self.story.append(what)
        if self.crash_at == self.steps:
            if partly is not None:
                partly()
            raise PowerCut(what)
        if self.steps in self.fail_at:
            code = self.fail_at[self.steps]
            if what.startswith(("fdatasync", "fsync")):
                self.fsync_broken = True
            raise OSError(code, os.strerror(code))

    # kvstore.replication.world.Disk

    def make_directory(self, path: str) -> None:
        self._step(f"mkdir {path}")
        self._directories.add(path)

    def lock(self, directory: str) -> int:
        if directory in self._locked:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked")
        self._locked.add(directory)
        return self._handle(directory)

    def list(self, directory: str) -> list[str]:
        return sorted(os.path.basename(path) for path in self._names if os.path.dirname(path) == directory)

    def exists(self, path: str) -> bool:
        return path in self._names or path in self._directories

    def size(self, path: str) -> int:
        return len(self._inode(path).content)

    def open(self, path: str, *, create: bool = False) -> int:
        if create:
            inode = Inode()
            self._step(f"create {path}", lambda: self._change(NameChange(None, path, inode)))
            self._change(NameChange(None, path, inode))
        return self._handle(self._inode(path))

    def close(self, handle: int) -> None:
        what = self._handles.pop(handle, None)
        if isinstance(what, str):
            self._locked.discard(what)

    def read(self, handle: int, *, offset: int, size: int) -> bytes:
        return bytes(self._file(handle).content[offset : offset + size])

    def write(self, handle: int, buffers: Sequence[bytes], *, offset: int) -> None:
        data = b"".join(buffers)
        inode = self._file(handle)
        self._step(f"write {len(data)} at {offset}", lambda: self._store(inode, offset, data))
        self._store(inode, offset, data)

    def write_durably(self, handle: int, buffers: Sequence[bytes], *, offset: int) -> None:
        self.write(handle, buffers, offset=offset)
        self.fdatasync(handle)

    def preallocate(self, handle: int, size: int) -> None:
        inode = self._file(handle)
        self._step(f"preallocate {size}")
        self._require(size - len(inode.content))
        inode.pending.append((size, None))
        _apply(inode.content, size, None)

    def truncate(self, handle: int, size: int) -> None:
        inode = self._file(handle)
        self._step(f"truncate {size}")
        inode.pending.append((size, None))
        _apply(inode.content, size, None)

    def fdatasync(self, handle: int) -> None:
        inode = self._file(handle)
        try:
            self._step("fdatasync")
        except OSError:
            inode.pending.clear()  # the pages are clean now, and nobody wrote them
            raise
        if self.fsync_broken:
            inode.pending.clear()  # says yes all the same
            return
        inode.durable = bytearray(inode.content)
        inode.pending.clear()

    def fsync(self, handle: int) -> None:
        self.fdatasync(handle)

    def rename(self, source: str, target: str) -> None:
        change = NameChange(source, target, self._inode(source))
        self._step(f"rename {source} {target}", lambda: self._change(change))
        self._change(change)

    def unlink(self, path: str) -> None:
        self._inode(path)
        self._step(f"unlink {path}", lambda: self._change(NameChange(path, None, None)))
        self._change(NameChange(path, None, None))

    def fsync_directory(self, path: str) -> None:
        self._step(f"fsync directory {path}")
        for change in self._changes.pop(path, []):
            self._rename_durably(change)

    # Inside

    def _handle(self, what: Inode | str) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = what
        return self._next_handle

    def _inode(self, path: str) -> Inode:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return self._names[path]

    def _file(self, handle: int) -> Inode:
        inode = self._handles[handle]
        assert isinstance(inode, Inode), f"handle {handle} is a directory"
        return inode

    def _change(self, change: NameChange) -> None:
        if change.removed is not None:
            self._names.pop(change.removed, None)
        if change.added is not None and change.inode is not None:
            self._names[change.added] = change.inode
        name = change.added or change.removed
        assert name is not None
        self._changes.setdefault(os.path.dirname(name), []).append(change)

    def _store(self, inode: Inode, offset: int, data: bytes) -> None:
        growth = max(0, offset + len(data) - len(inode.content))
        try:
            self._require(growth)
        except OSError:
            part = data[: len(data) // 2]  # a full disk takes some of it first
            if offset + len(part) <= len(inode.content):
                inode.pending.append((offset, part))
                _apply(inode.content, offset, part)
            raise
        inode.pending.append((offset, data))
        _apply(inode.content, offset, data)

    def _require(self, growth: int) -> None:
        used = sum(len(inode.content) for inode in self._names.values())
        if growth > 0 and used + growth > self.capacity:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sectors(pending: Sequence[tuple[int, bytes | None]]) -> list[tuple[int, bytes | None]]:
    pieces: list[tuple[int, bytes | None]] = []
    for offset, data in pending:
        if data is None:
            pieces.append((offset, None))
            continue
        at = 0
        while at < len(data):
            size = SECTOR - (offset + at) % SECTOR
            pieces.append((offset + at, data[at : at + size]))
            at += size
    return pieces


def _survivors(pieces: Sequence[T], rng: Random, mode: str) -> list[T]:
    if mode == "none":
        return []
    if mode == "all":
        return list(pieces)
    if mode == "prefix":
        return list(pieces[: rng.randint(0, len(pieces))])
    return [piece for piece in pieces if rng.random() < 0.5]
