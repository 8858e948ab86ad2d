"""The command that is run as a child, and everything a first process of a container owes its children.

The command gets a process group of its own: Ctrl-C at a terminal reaches only us, so that the instance can be
withdrawn first and the command stopped afterwards. Orphans that end up with us are reaped when we are process 1.
All children are started through Children: one SIGCHLD handler asks for each of them, and knows within a turn of
the event loop that one has died. asyncio's own child watcher would need a thread per child on Python 3.11 and
would fight with the reaping of orphans.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any

# Passed on to the command as they come. SIGTERM and SIGINT are not here: they mean "withdraw, then stop it".
PASSED_ON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGWINCH)


class CommandNotStarted(Exception):
    """exit_status is what a shell would give: 127 when there is no such program, 126 when it cannot be run."""

    def __init__(self, program: str, reason: str, exit_status: int) -> None:
        super().__init__(f"cannot run {program!r}: {reason}")
        self.exit_status = exit_status


class Child:
    """One started command. exited: resolved with its exit status, 128 + N when signal N ended it."""

    def __init__(self, popen: subprocess.Popen[bytes], exited: asyncio.Future[int]) -> None:
        self._popen = popen
        self.pid = popen.pid
        self.exited = exited

    def signal(self, number: int) -> None:
        """To the command itself, not to its group: what becomes of its own children is its business."""
        if not self.exited.done():  # not reaped yet, so the pid is still its own
            os.kill(self.pid, number)

    def kill_group(self) -> None:
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def reaped(self, wait_status: int) -> None:
        code = os.waitstatus_to_exitcode(wait_status)
        self._popen.returncode = code
        if not self.exited.done():
            self.exited.set_result(code if code >= 0 else 128 - code)


class Children:
    """Starts commands and reaps them. One at a time per process: it owns the handler of SIGCHLD."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Children:
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in list(self._children.values()):
            child.kill_group()
        if self._children:
            await asyncio.wait([child.exited for child in self._children.values()], timeout=5)
        assert self._loop is not None
        self._loop.remove_signal_handler(signal.SIGCHLD)

    def start(self, command: Sequence[str], **options: Any) -> Child:
        """options: as for subprocess.Popen. Raises CommandNotStarted."""
        assert self._loop is not None, "enter the context first"
        try:
            popen = subprocess.Popen(list(command), process_group=0, **options)
        except FileNotFoundError:
            raise CommandNotStarted(command[0], "no such program", 127) from None
        except OSError as problem:
            raise CommandNotStarted(command[0], problem.strerror or str(problem), 126) from None
        child = Child(popen, self._loop.create_future())
        self._children[popen.pid] = child
        return child

    def _reap(self) -> None:
        for pid, child in list(self._children.items()):
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # somebody else waited for it; its status is lost
                found, status = pid, 255 << 8
            if found:
                del self._children[pid]
                child.reaped(status)
        if os.getpid() == 1:
            self._reap_orphans()

    def _reap_orphans(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if child := self._children.pop(pid, None):
                child.reaped(status)
