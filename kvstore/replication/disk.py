"""The real disk: os calls, with their short writes and partial failures made whole.

Nothing here is buffered in the process, so there is nothing to flush; durable means fsync or fdatasync returned.
After any of these failed, the caller must stop: Linux marks the lost pages clean and the next fsync says yes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence

from kvstore.replication.world import Disk

__all__ = ["Disk", "RealDisk"]

_BUFFERS_MAX = 1024  # IOV_MAX
_DSYNC: int = getattr(os, "RWF_DSYNC", 0)


class RealDisk:
    def make_directory(self, path: str) -> None:
        if os.path.isdir(path):
            return
        os.mkdir(path, 0o700)
        self.fsync_directory(os.path.dirname(path) or ".")

    def lock(self, directory: str) -> int:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle

    def list(self, directory: str) -> list[str]:
        return sorted(os.listdir(directory))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def open(self, path: str, *, create: bool = False) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        return os.open(path, flags | os.O_CREAT | os.O_TRUNC if create else flags, 0o600)

    def close(self, handle: int) -> None:
        os.close(handle)

    def read(self, handle: int, *, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            part = os.pread(handle, min(size, 1 << 26), offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, handle: int, buffers: Sequence[bytes], *, offset: int) -> None:
        _write_all(handle, buffers, offset, 0)

    def write_durably(self, handle: int, buffers: Sequence[bytes], *, offset: int) -> None:
        """One system call where the kernel can (RWF_DSYNC is write + fdatasync): each return from a call waits
        for the interpreter's lock, up to a switch interval when the loop is busy, so one return less counts."""
        if _DSYNC:
            _write_all(handle, buffers, offset, _DSYNC)
        else:
            _write_all(handle, buffers, offset, 0)
            os.fdatasync(handle)

    def preallocate(self, handle: int, size: int) -> None:
        os.posix_fallocate(handle, 0, size)

    def truncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)

    def fdatasync(self, handle: int) -> None:
        os.fdatasync(handle)

    def fsync(self, handle: int) -> None:
        os.fsync(handle)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def fsync_directory(self, path: str) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _write_all(handle: int, buffers: Sequence[bytes], offset: int, flags: int) -> None:
    """A short write is continued; when the disk is full the continuation is what raises ENOSPC."""
    if len(buffers) > _BUFFERS_MAX:
        buffers = [b"".join(buffers)]
    total = sum(map(len, buffers))
    written = os.pwritev(handle, buffers, offset, flags)
    if written == total:
        return
    rest = memoryview(b"".join(buffers))
    while written < total:
        count = os.pwritev(handle, [rest[written:]], offset + written, flags)
        if count == 0:
            raise OSError(5, "write made no progress")
        written += count
