"""systemd's notify protocol: the command says itself when it is ready, and nobody has to ask (sd_notify(3)).

    READY=1          ready from now on           RELOADING=1      not, until READY=1 comes again
    STOPPING=1       not any more                WATCHDOG=1       alive; when it is late, not ready until it comes
    STATUS=text      for the log                 WATCHDOG=trigger not ready until WATCHDOG=1 comes
    WATCHDOG_USEC=n  from now on so often        BARRIER=1        the descriptor that comes with it is closed

Taken from the command and its process group, and else from our own user and root. Everything else that systemd knows
is ignored, as the protocol wants it.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MESSAGE_BYTES_MAX = 8192
DESCRIPTORS_MAX = 64
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Word:
    """What a command has said of itself. Pure: `now` in seconds is passed in.

    is_ready() is that it said so, and that its watchdog, where it has one, is not late.
    """

    watchdog_s: float = 0.0  # 0: none
    said_ready: bool = False
    why_not: str = "READY=1 has not come yet"
    _fed_at: float = 0.0
    _triggered: bool = False

    def take(self, message: bytes, now: float) -> list[str]:
        """One datagram; what of it is for the log."""
        told = []
        for line in message.decode("utf-8", "replace").splitlines():
            name, _, value = line.partition("=")
            if name == "READY" and value == "1":
                self.said_ready, self._triggered, self._fed_at = True, False, now
            elif name in ("STOPPING", "RELOADING") and value == "1":
                self.said_ready, self.why_not = False, f"the command said {line}"
            elif name == "WATCHDOG" and value == "1":
                self._triggered, self._fed_at = False, now
            elif name == "WATCHDOG" and value == "trigger":
                self._triggered = True
            elif name == "WATCHDOG_USEC" and value.isascii() and value.isdigit():
                self.watchdog_s, self._fed_at = int(value) / 1e6, now
            elif name == "STATUS":
                told.append(value)
        return told

    def reason(self, now: float) -> str:
        """Why it is not ready; "" when it is."""
        if not self.said_ready:
            return self.why_not
        if self._triggered:
            return "the command said WATCHDOG=trigger"
        if (late_at := self.late_at) is not None and now >= late_at:
            return f"no WATCHDOG=1 for {self.watchdog_s:g} s"
        return ""

    @property
    def late_at(self) -> float | None:
        """When it stops being ready unless it is heard of."""
        is_watched = self.said_ready and self.watchdog_s > 0 and not self._triggered
        return self._fed_at + self.watchdog_s if is_watched else None


class NotifySocket:
    """The socket that the command is told of in NOTIFY_SOCKET, and what has come on it."""

    def __init__(self, *, watchdog_s: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._word = Word(watchdog_s)
        self._changed = asyncio.Event()
        self.is_theirs: Callable[[int], bool] = lambda pid: False
        """Whether a process is the command's: set when it has been started."""
        self._folder = tempfile.mkdtemp(prefix="kvctl-notify-")
        os.chmod(self._folder, 0o711)  # the command may be of another user
        path = os.path.join(self._folder, "socket")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(path)
        os.chmod(path, 0o666)
        self._loop.add_reader(self._socket, self._readable)
        self.environment: Mapping[str, str] = {"NOTIFY_SOCKET": path}
        if watchdog_s:
            self.environment = {**self.environment, "WATCHDOG_USEC": str(round(watchdog_s * 1e6))}

    async def differs_from(self, was_ready: bool) -> str:
        """Waits until it is ready and was not, or is not and was: the reason, "" when it is."""
        while True:
            self._changed.clear()
            now = self._loop.time()
            reason = self._word.reason(now)
            if was_ready == bool(reason):
                return reason
            late_at = self._word.late_at
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, late_at - now) if late_at is not None else None):
                    await self._changed.wait()

    def _readable(self) -> None:
        space = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * DESCRIPTORS_MAX)
        try:
            message, ancillary, _, _ = self._socket.recvmsg(MESSAGE_BYTES_MAX, space)
        except (BlockingIOError, InterruptedError):
            return
        pid = uid = -1
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid, uid, _ = _CREDENTIALS.unpack_from(data)
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors = array.array("i", data[: len(data) - len(data) % 4])
                for descriptor in descriptors:  # of a BARRIER: that it is closed is the answer
                    os.close(descriptor)
        if not self.is_theirs(pid) and uid not in (0, os.getuid()):
            log.warning(
                "a notification of process %d, user %d, is ignored: it is not the command's", pid, uid
            )
            return
        for status in self._word.take(message, self._loop.time()):
            log.info("status: %s", status)
        self._changed.set()

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)
