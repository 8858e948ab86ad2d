"""One call on one stream: the server's half, as the service sees it (kvstore/rpc.py), and its send queue.

    open ── END_STREAM from the client ──► half closed ── reply/finish ──► closed
    open or half closed ── RST_STREAM, deadline, connection lost ──► closed, cancelled

A finished or reset stream is forgotten by its connection; its object stays usable and does nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kvstore.rpc import StreamHandler
from kvstore.wire.headers import Head
from kvstore.wire.messages import PREFIX, MessageReader

if TYPE_CHECKING:
    from kvstore.wire.connection import Connection


CONGESTED = 1 << 62  # more bytes than any handler's mark


class _Waiting:
    """What hears that a unary call is gone. Its one message has been taken before."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.cancelled = tell

    def message(self, data: bytes) -> None:
        raise AssertionError("a unary call has one message")

    def half_closed(self) -> None: ...

    def drained(self) -> None: ...


class Stream:
    """Both UnaryCall and StreamCall. Slots, because one is made for every call."""

    __slots__ = (
        "cancelled",
        "connection",
        "deadline",
        "handler",
        "head",
        "headers_sent",
        "message",
        "number",
        "open_bytes",
        "opened_at",
        "pending",
        "pending_bytes",
        "reader",
        "remote_closed",
        "timed_from",
        "trailers",
        "window",
    )

    def __init__(
        self, connection: Connection, number: int, head: Head, window: int, opened_at: float
    ) -> None:
        self.connection = connection
        self.number = number
        self.head = head
        self.opened_at = opened_at  # LOOKED_AT: one of those whose time is taken, by a finer clock
        self.timed_from: float  # of those alone
        self.window = window  # what the client lets us send on this stream
        self.open_bytes = 0  # received since the last window update
        self.deadline: float | None = None
        self.cancelled = False
        self.remote_closed = False
        self.headers_sent = False
        self.reader: MessageReader | None = None
        self.message: bytes | None = None  # a unary request that is complete, before END_STREAM
        self.handler: StreamHandler | None = None
        self.pending: deque[bytes | memoryview] | None = None  # framed messages that no window has taken yet
        self.pending_bytes = 0
        self.trailers: bytes | None = None  # to be sent after what is pending

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.head.metadata

    @property
    def common_name(self) -> str:
        return self.connection.common_name

    @property
    def buffered_bytes(self) -> int:
        """Where the connection as a whole is behind, nothing more is made for a stream that has something left."""
        if self.pending_bytes and self.connection.is_congested:
            return CONGESTED
        return self.pending_bytes

    # UnaryCall

    def when_cancelled(self, tell: Callable[[], None]) -> None:
        self.handler = _Waiting(tell)

    @property
    def congested(self) -> bool:
        return not self.connection.has_room

    def when_room(self, go_on: Callable[[], None]) -> None:
        self.connection.when_room(self, go_on)

    def reply(self, message: bytes) -> None:
        if not self.cancelled:
            self.connection.reply(self, message)

    def fail(self, status: int, message: str) -> None:
        if not self.cancelled:
            self.connection.finish(self, status, message)

    # StreamCall

    def send(self, message: bytes) -> None:
        if not self.cancelled and self.trailers is None:
            self.head.counts.sent += 1
            self.connection.send_message(self, PREFIX.pack(0, len(message)) + message)

    def finish(self, status: int = 0, message: str = "") -> None:
        if not self.cancelled and self.trailers is None:
            self.connection.finish(self, status, message)
