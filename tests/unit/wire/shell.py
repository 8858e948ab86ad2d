"""What drives a protocol in tests: a loop whose time is moved by hand, and a transport that keeps what it gets."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(order=True)
class Handle:
    at: float
    order: int
    call: Callable[..., object] = field(compare=False)
    arguments: tuple[Any, ...] = field(compare=False)
    is_cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """The part of an event loop that a protocol uses."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._handles: list[Handle] = []
        self._order = 0

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, call: Callable[..., object], *arguments: Any) -> Handle:
        self._order += 1
        handle = Handle(at, self._order, call, arguments)
        heapq.heappush(self._handles, handle)
        return handle

    def call_later(self, delay_s: float, call: Callable[..., object], *arguments: Any) -> Handle:
        return self.call_at(self.now + delay_s, call, *arguments)

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> Handle:
        return self.call_at(self.now, call, *arguments)

    def run(self, seconds: float = 0.0) -> None:
        """Lets so much time pass, and all that is due in it happen."""
        until = self.now + seconds
        while self._handles and self._handles[0].at <= until:
            handle = heapq.heappop(self._handles)
            if not handle.is_cancelled:
                self.now = max(self.now, handle.at)
                handle.call(*handle.arguments)
        self.now = until

    @property
    def waiting(self) -> int:
        return sum(not handle.is_cancelled for handle in self._handles)


class Transport(asyncio.Transport):
    """Takes writes. `unsent` is what it says it could not send yet; its protocol is told of its end."""

    def __init__(self, loop: Loop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self.protocol = protocol
        self.writes: list[bytes] = []
        self.unsent = 0
        self.end: str | None = None
        self.reading = True
        self.high_bytes: int | None = None
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert self.end is None, "written to after its end"
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.end is not None

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high_bytes = high

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def close(self) -> None:
        """Like a real one: what it could not send yet keeps it from ending."""
        self._finish("closed")

    def abort(self) -> None:
        self.unsent = 0
        self._finish("aborted")

    def _finish(self, how: str) -> None:
        if self.end is None or how == "aborted":
            self.end = how
        if not self.unsent:
            self._loop.call_soon(self.protocol.connection_lost, None)

    def taken(self) -> bytes:
        data = b"".join(self.writes)
        self.writes.clear()
        return data
