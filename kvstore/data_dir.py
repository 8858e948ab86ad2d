"""The member's directory: private, locked by one process, and laid out the same everywhere.

DATA_DIR/lock            held by the member and by its storage process, as long as either lives
DATA_DIR/member/wal/     the write-ahead log
DATA_DIR/member/db/      LMDB
DATA_DIR/member/snap/    a snapshot on its way in or out; emptied at start
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from dataclasses import dataclass

LOCK_PATIENCE_S = 5.0


class DataDirError(Exception):
    """One line: what is wrong with which directory."""


@dataclass(frozen=True)
class DataDir:
    path: str
    lock_fd: int

    @property
    def wal(self) -> str:
        return os.path.join(self.path, "member", "wal")

    @property
    def db(self) -> str:
        return os.path.join(self.path, "member", "db")

    @property
    def snap(self) -> str:
        return os.path.join(self.path, "member", "snap")

    @property
    def has_log(self) -> bool:
        return os.path.isdir(self.wal) and any(name.endswith(".wal") for name in os.listdir(self.wal))

    def create(self) -> None:
        """Makes what is missing below the directory and empties snap/; every new name is made durable."""
        if os.path.isdir(self.snap) and os.listdir(self.snap):
            import shutil  # and with it the compression libraries

            shutil.rmtree(self.snap, ignore_errors=True)
        for folder in (os.path.join(self.path, "member"), self.wal, self.db, self.snap):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            sync_directory(os.path.dirname(folder))


def acquire(path: str) -> DataDir:
    """Locks the directory, made if it is not there. The lock outlives a killed member until its storage
    process has finished, so this waits a little. Raises DataDirError."""
    path = os.path.abspath(path)
    try:
        if not os.path.isdir(path):
            os.makedirs(path, mode=0o700)
            sync_directory(os.path.dirname(path))
        fd = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise DataDirError(f"cannot use data directory {path}: {problem.strerror}") from None
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return DataDir(path, fd)
        except OSError as problem:
            if problem.errno not in (errno.EAGAIN, errno.EACCES):
                raise DataDirError(f"cannot lock data directory {path}: {problem.strerror}") from None
        if time.monotonic() > deadline:
            os.close(fd)
            raise DataDirError(f"data directory {path} is in use by another member")
        time.sleep(0.01)


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
