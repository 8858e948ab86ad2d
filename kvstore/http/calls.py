"""Calls over HTTP/1.1 as the services see them (kvstore/rpc.py): the half that knows no HTTP library.

A unary call is a future. A stream is a queue that one writer empties: it turns a message into a line, waits until
the socket takes it, and only then counts it as gone, so that buffered_bytes tells a service how slow its client is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from google.protobuf.message import Message

from kvstore.http.json_mapping import reply_json
from kvstore.http.status import DEADLINE_TEXT
from kvstore.rpc import Status, StreamHandler

INLINE_BYTES_MAX = 16 << 10  # of a reply; what takes longer to turn into JSON goes to a thread
UNREAD_BYTES_MAX = 4 << 20  # replies that the client does not read: no more requests are heard above it


class Answer(NamedTuple):
    status: int
    text: str
    message: bytes


class UnaryHttpCall:
    common_name = ""  # etcd's gateway never passes a certificate's name on either

    def __init__(self, metadata: Mapping[str, str], deadline: float | None) -> None:
        self.metadata = metadata
        self.deadline = deadline
        self.cancelled = False
        self._tell: Callable[[], None] | None = None
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def when_cancelled(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    congested = False  # one answer a request, and requests one after the other

    def when_room(self, go_on: Callable[[], None]) -> None:
        go_on()

    def reply(self, message: bytes) -> None:
        self._end(Answer(Status.OK, "", message))

    def fail(self, status: int, message: str) -> None:
        self._end(Answer(status, message, b""))

    def _end(self, answer: Answer) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

    async def answer(self) -> Answer:
        """What the service said, or DEADLINE_EXCEEDED. Cancelled where the client has gone."""
        try:
            async with asyncio.timeout_at(self.deadline):
                return await self._answer
        except TimeoutError:
            self._gone()
            return Answer(Status.DEADLINE_EXCEEDED, DEADLINE_TEXT, b"")
        except asyncio.CancelledError:
            self._gone()
            raise

    def _gone(self) -> None:
        self.cancelled = True
        if self._tell is not None:
            self._tell()


class Sink(Protocol):
    """Where the lines of a stream go."""

    async def line(self, text: str) -> None:
        """Returns when there is room for more. Raises OSError where the client has gone."""


class StreamHttpCall:
    common_name = ""

    def __init__(self, metadata: Mapping[str, str], deadline: float | None) -> None:
        self.metadata = metadata
        self.deadline = deadline
        self.cancelled = False
        self.ending: Answer | None = None  # set by finish(), and by nothing else
        self.buffered_bytes = 0
        self._queue: deque[bytes] = deque()
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    # From the service

    def send(self, message: bytes) -> None:
        if self.cancelled or self.ending is not None:
            return
        self._queue.append(message)
        self.buffered_bytes += len(message)
        if self.buffered_bytes > UNREAD_BYTES_MAX:
            self._room.clear()
        self._work.set()

    def finish(self, status: int = 0, message: str = "") -> None:
        if self.ending is None:
            self.ending = Answer(status, message, b"")
            self._work.set()

    # From the transport

    def abandon(self) -> None:
        """The client has gone: run() returns without having been finished."""
        self.cancelled = True
        self._queue.clear()
        self._room.set()
        self._work.set()

    async def room(self) -> None:
        """Waits until the client has read some of what it has been sent."""
        await self._room.wait()

    async def run(self, handler: StreamHandler, reply: type[Message], sink: Sink) -> None:
        """Writes what the service sends, until it finishes or the call is abandoned."""
        while not self.cancelled:
            was_full = bool(self._queue)
            while self._queue and not self.cancelled:
                message = self._queue[0]
                await sink.line(f'{{"result":{await encoded(reply, message)}}}')
                if self._queue:
                    self._queue.popleft()
                self.buffered_bytes -= len(message)
                if self.buffered_bytes <= UNREAD_BYTES_MAX:
                    self._room.set()
            if self.ending is not None or self.cancelled:
                return
            self._work.clear()
            if was_full:
                handler.drained()  # which may send, and so set the event again
            await self._work.wait()


async def encoded(kind: type[Message], data: bytes) -> str:
    """A reply as JSON; a large one is made in a thread, so that other calls go on."""
    if len(data) <= INLINE_BYTES_MAX:
        return reply_json(kind, data)
    return await asyncio.get_running_loop().run_in_executor(None, reply_json, kind, data)
