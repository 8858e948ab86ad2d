"""One call as its connection sees it, and who hears of it. Pure.

waiting (number 0) ── the server allows one more ──► open ── trailers, a reset, the connection's end ──► ended
      └───────────────── cancel(), deadline ──────────┴─────────────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from kvstore.client.replies import Ending, Head
from kvstore.wire.messages import MessageReader


class Sink(Protocol):
    """Who waits for a call's answer."""

    def message(self, data: bytes) -> None: ...

    def ended(self, ending: Ending) -> None: ...

    def drained(self) -> None:
        """All that was given to send() is on its way, after some of it had to wait."""


class Call:
    """One stream. number: 0 while it waits for the server to allow one more."""

    __slots__ = (
        "block",
        "deadline",
        "end_sent",
        "ends",
        "has_ended",
        "head",
        "held",
        "holds",
        "number",
        "pending",
        "reader",
        "sink",
        "unreturned",
        "window",
    )

    def __init__(self, block: bytes, sink: Sink, deadline: float | None, holds: bool) -> None:
        self.block = block
        self.sink = sink
        self.deadline = deadline
        self.holds = holds
        self.number = 0
        self.window = 0  # the server's, for what we send
        self.pending: deque[memoryview] = deque()
        self.ends = False  # no message comes after those that are pending
        self.end_sent = False
        self.head: Head | None = None
        self.reader: MessageReader | None = None
        self.held = 0  # bytes of messages that the owner has not taken
        self.unreturned = 0  # bytes received and not given back to the stream's window, held ones included
        self.has_ended = False
