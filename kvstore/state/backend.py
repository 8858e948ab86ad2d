"""The two ways to have frames committed: a process of its own, or here and now.

Both write through storage_process.commit(), so the bytes are the same. submit() takes one frame at a time;
the caller waits for `committed` before the next.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import lmdb

from kvstore.state.reader import Reader
from kvstore.state.storage_process import (
    OK,
    REPLY,
    SIZE,
    commit,
    open_environment,
    open_tables,
    sync_directory,
)

DATABASE = "state.mdb"
START_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 60.0
ALIVE_CHECK_S = 1.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Committed = Callable[[int], None]
Failed = Callable[[Exception], None]
CallSoon = Callable[[Callable[[], None]], object]


class StorageFailed(Exception):
    """LMDB's writer could not commit, or is gone. What was applied since is in the write-ahead log only, so
    the member must stop; after a restart it replays."""


class Backend(Protocol):
    reader: Reader

    def submit(self, frame: bytes) -> None:
        """Starts committing the frame. `committed(generation)` follows, from poll or drain or by itself."""

    def poll(self) -> None:
        """Reports what has been committed meanwhile. Does not block."""

    def drain(self) -> None:
        """Blocks until the frame under way is committed, and reports it. Raises StorageFailed."""

    def close(self) -> None:
        """Lets go of the database. A frame under way is still committed."""


class OpenBackend(Protocol):
    """How a machine opens or creates its database: open_backend(), or the simulator's own."""

    def __call__(
        self,
        directory: str,
        *,
        in_process: bool,
        map_bytes: int,
        sync: bool,
        inherit_fds: Sequence[int],
        call_soon: CallSoon,
        committed: Committed,
        failed: Failed,
    ) -> Backend: ...


class SyncBackend:
    """Commits inside submit(). For tests, the simulator and short-lived tools."""

    def __init__(self, path: str, *, map_bytes: int, sync: bool, committed: Committed) -> None:
        self._env = open_environment(path, map_bytes=map_bytes, sync=sync)
        self._tables = open_tables(self._env, create=True)
        self._committed = committed
        self.reader = Reader(self._env, self._tables)

    def submit(self, frame: bytes) -> None:
        self._committed(commit(self._env, self._tables, memoryview(frame)))

    def poll(self) -> None:
        """submit() has reported it already."""

    def drain(self) -> None:
        """Nothing is ever under way."""

    def close(self) -> None:
        self.reader.close()
        self._env.close()


class ProcessBackend:
    """The storage process, and the thread that talks to it.

    The thread makes two system calls a frame, both without the GIL, and hands the reply to the loop through
    call_soon. committed and failed run on the loop's thread only.
    """

    def __init__(
        self,
        path: str,
        *,
        map_bytes: int,
        sync: bool,
        inherit_fds: Sequence[int],
        call_soon: CallSoon,
        committed: Committed,
        failed: Failed,
    ) -> None:
        self._committed = committed
        self._failed = failed
        self._call_soon = call_soon
        self._channel, self._process = _start(path, map_bytes, sync, inherit_fds)
        try:
            self._await_open()
            self._env = open_environment(path, map_bytes=map_bytes, sync=sync, read_only=True)
            self.reader = Reader(self._env, open_tables(self._env, create=False))
        except BaseException:
            self._channel.close()
            self._process.kill()
            self._process.wait()
            raise
        self._frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
        self._under_way = False
        self._broken = False
        self._closed = False
        self._worker = threading.Thread(target=self._talk, name="storage", daemon=True)
        self._worker.start()

    @property
    def process_id(self) -> int:
        return self._process.pid

    def submit(self, frame: bytes) -> None:
        assert not self._under_way, "a frame is under way already"
        self._under_way = True
        self._frames.put(frame)

    def poll(self) -> None:
        """In every turn: an exception for nothing would cost more than the rest of it."""
        while not self._closed and not self._replies.empty():  # it may be called after close()
            self._report(self._replies.get_nowait())

    def drain(self) -> None:
        if self._under_way:
            self._report(self._replies.get())
        if self._broken:
            raise StorageFailed("the storage process failed")

    def close(self) -> None:
        self._closed = True
        self._frames.put(None)
        self._worker.join(CLOSE_TIMEOUT_S)  # until the frame under way was answered
        if self._worker.is_alive():
            self._process.kill()  # a disk that hangs must not hang the member's stop
            self._worker.join()
        self._channel.close()
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.reader.close()
        self._env.close()

    def _report(self, reply: int | Exception) -> None:
        self._under_way = False
        if isinstance(reply, Exception):
            self._broken = True
            self._failed(reply)
        else:
            self._committed(reply)

    def _talk(self) -> None:
        """The thread: a frame out, its reply in; and a look now and then whether the process still lives."""
        while True:
            try:
                frame = self._frames.get(timeout=ALIVE_CHECK_S)
            except queue.Empty:
                if self._process.poll() is None:
                    continue
                frame = b""  # sending fails now, and says so
            if frame is None:
                return
            try:
                self._channel.sendall(SIZE.pack(len(frame)))
                self._channel.sendall(frame)
                del frame
                reply: int | Exception = _read_reply(self._channel)
            except (OSError, StorageFailed) as problem:
                reply = problem
            self._replies.put(reply)
            with contextlib.suppress(RuntimeError):  # a closed loop; drain() still gets the reply
                self._call_soon(self.poll)
            if isinstance(reply, Exception):
                return

    def _await_open(self) -> None:
        self._channel.settimeout(START_TIMEOUT_S)
        _read_reply(self._channel)
        self._channel.settimeout(None)


def _start(
    path: str, map_bytes: int, sync: bool, inherit_fds: Sequence[int]
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Starts Python bare (-I -S: no site, no environment, no user packages), told where its two imports are."""
    near, far = socket.socketpair()
    root = os.path.abspath(__file__ + "/../../..")
    roots = [root, os.path.abspath(lmdb.__file__ + "/../..")]
    program = f"import sys; sys.path[:0] = {roots!r}; from kvstore.state.storage_process import main; main()"
    command = [sys.executable, "-I", "-S", "-c", program]
    command += [str(far.fileno()), path, str(map_bytes), "1" if sync else "0"]
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, STOP_SIGNALS
    )  # inherited: it has them blocked from birth
    try:
        with far:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(far.fileno(), *inherit_fds)
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return near, process


def _read_reply(channel: socket.socket) -> int:
    status, generation, size = REPLY.unpack(_read(channel, REPLY.size))
    if status != OK:
        raise StorageFailed(_read(channel, size).decode(errors="replace"))
    return int(generation)


def _read(channel: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        more = channel.recv(size - len(parts))
        if not more:
            raise StorageFailed("the storage process ended")
        parts += more
    return parts


def open_backend(
    directory: str,
    *,
    in_process: bool,
    map_bytes: int,
    sync: bool,
    inherit_fds: Sequence[int],
    call_soon: CallSoon,
    committed: Committed,
    failed: Failed,
) -> SyncBackend | ProcessBackend:
    """Opens or creates the database in `directory`, whose own entry is made durable."""
    path = os.path.join(directory, DATABASE)
    if in_process:
        backend: Any = SyncBackend(path, map_bytes=map_bytes, sync=sync, committed=committed)
        if sync:
            sync_directory(directory)
        return backend  # type: ignore[no-any-return]
    return ProcessBackend(
        path,
        map_bytes=map_bytes,
        sync=sync,
        inherit_fds=inherit_fds,
        call_soon=call_soon,
        committed=committed,
        failed=failed,
    )
