"""What a transport would be: one unary call, one stream, as services and as clients see them (kvstore/rpc.py)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from kvstore.api.errors import TABLE
from kvstore.errors import PrefixQuotaExceeded
from kvstore.rpc import StreamHandler
from tests.whole_member.options import Options
from tests.whole_member.world import Life, World

UNKNOWN = "unknown"
CLIENT_DELAY_S = 0.002
NOTICE_S = 0.05  # how long until a client knows that the other end is gone


class Answer(NamedTuple):
    """error: a class of kvstore/errors.py by name, "unknown", or "" where there is a message."""

    message: bytes
    error: str = ""


def error_named(status: int, text: str) -> str:
    """Which error a client is told, as it can tell: by its text. "" for none; indefinite ones are "unknown"."""
    for kind, (code, known) in TABLE.items():
        if known == text and code == status:
            return kind.__name__ if kind.definite else UNKNOWN
    if text.startswith("kvstore: quota on "):
        return PrefixQuotaExceeded.__name__
    return f"{status} {text}"


class UnaryCallHere:
    """kvstore.rpc.UnaryCall. Whoever calls reply() or fail() a second time is found out."""

    deadline: float | None = None
    common_name = ""

    def __init__(self, metadata: Mapping[str, str], answered: Callable[[Answer], None]) -> None:
        self.metadata = metadata
        self.cancelled = False
        self._answered = answered
        self._ended = False

    def when_cancelled(self, tell: Callable[[], None]) -> None:
        """No client here waits for its turn, and goes while it waits."""

    congested = False

    def when_room(self, go_on: Callable[[], None]) -> None:
        go_on()

    def reply(self, message: bytes) -> None:
        self._end(Answer(message))

    def fail(self, status: int, message: str) -> None:
        self._end(Answer(b"", error_named(status, message)))

    def _end(self, answer: Answer) -> None:
        assert not self._ended, f"a call was answered twice, the second time with {answer}"
        self._ended = True
        if not self.cancelled:
            self._answered(answer)


class Listener:
    """The client's half of a stream; a client sets what it wants to hear."""

    def __init__(self) -> None:
        self.on_message: Callable[[bytes, int], None] = lambda data, order: None
        self.on_end: Callable[[str], None] = lambda error: None


class StreamHere:
    """kvstore.rpc.StreamCall, and the connection below it: in order in both directions, with a reader of a
    certain speed, gone when either end is."""

    deadline: float | None = None
    common_name = ""

    def __init__(
        self, world: World, options: Options, life: Life, listener: Listener, *, read_s: float, scale: int
    ) -> None:
        """read_s: how long the client takes for a message. scale: what each byte counts for in
        buffered_bytes, so that a few are much."""
        self.metadata: Mapping[str, str] = {}
        self.cancelled = False
        self.handler: StreamHandler | None = None
        self.read_s = read_s
        self._world = world
        self._life = life
        self._listener = listener
        self._scale = scale
        self._unread: deque[tuple[bytes, int]] = deque()
        self._unread_bytes = 0
        self._reading = False
        self._ending: str | None = None
        self._last_arrival = 0.0

    # The server's half

    @property
    def buffered_bytes(self) -> int:
        return self._unread_bytes * self._scale

    def send(self, message: bytes) -> None:
        if self.cancelled:
            return
        assert self._ending is None, "a message after finish()"
        self._unread.append((message, self._world.order()))
        self._unread_bytes += len(message)
        self._read_on()

    def finish(self, status: int = 0, message: str = "") -> None:
        """The service hears of nothing more once the client has been sent everything (kvstore/wire)."""
        if not self.cancelled and self._ending is None:
            self._ending = error_named(status, message) if status else "finished"
            self._read_on()

    def _read_on(self) -> None:
        if not self._reading:
            self._reading = True
            self._world.at(self.read_s + CLIENT_DELAY_S, self._read)

    def _read(self) -> None:
        self._reading = False
        if self.cancelled:
            return
        if not self._unread:
            if self._ending is not None:
                self.cancelled = True
                self._listener.on_end(self._ending)
            return
        message, order = self._unread.popleft()
        self._unread_bytes -= len(message)
        self._listener.on_message(message, order)
        if self._unread or self._ending is not None:
            self._read_on()
        if not self._unread and self.handler is not None:
            handler = self.handler
            self._life.later(0.0, lambda: None if self.cancelled else handler.drained())

    # The client's half

    def tell(self, message: bytes) -> None:
        """Sends one message to the service."""
        self._arrive(lambda handler: handler.message(message))

    def close(self) -> None:
        """The client goes away."""
        if not self.cancelled:
            self.cancelled = True
            self._arrive(lambda handler: handler.cancelled())

    def lose(self) -> None:
        """The member is gone: the client hears so a little later."""
        if not self.cancelled:
            self.cancelled = True
            self._world.at(NOTICE_S, lambda: self._listener.on_end("lost"))

    def _arrive(self, deliver: Callable[[StreamHandler], None]) -> None:
        handler = self.handler
        if handler is None:
            return
        at = max(self._last_arrival, self._world.now + CLIENT_DELAY_S)
        self._last_arrival = at
        self._life.later(at - self._world.now, lambda: None if self._is_over else deliver(handler))

    @property
    def _is_over(self) -> bool:
        return self._ending is not None and not self._unread
