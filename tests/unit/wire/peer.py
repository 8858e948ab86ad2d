"""The other end of a sans-I/O connection: writes frames, reads what comes back, all in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hpack import Decoder, Encoder

from kvstore.rpc import Methods, StreamCall, StreamMethod, UnaryCall, UnaryMethod
from kvstore.wire import frames as h2
from kvstore.wire.connection import Connection
from kvstore.wire.limits import Limits
from kvstore.wire.messages import PREFIX
from kvstore.wire.traffic import Traffic

ECHO, HOLD, CHAT = "/test.Test/Echo", "/test.Test/Hold", "/test.Test/Chat"


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


def framed(message: bytes, compressed: int = 0) -> bytes:
    return PREFIX.pack(compressed, len(message)) + message


class Chat:
    """Echoes each message; remembers how the call ended."""

    def __init__(self, call: StreamCall, ends: list[str]) -> None:
        self.call = call
        self.ends = ends
        self.on_cancel: Callable[[], None] = lambda: None
        self.on_drain: Callable[[], object] = lambda: None

    def message(self, data: bytes) -> None:
        self.call.send(data)

    def half_closed(self) -> None:
        self.ends.append("half closed")
        self.call.finish()

    def cancelled(self) -> None:
        self.ends.append("cancelled")
        self.on_cancel()

    def drained(self) -> None:
        self.ends.append("drained")
        self.on_drain()


@dataclass
class Service:
    """Echo answers at once, Hold when told, Chat is a stream."""

    held: list[tuple[UnaryCall, bytes]] = field(default_factory=list)
    chats: list[Chat] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def methods(self) -> Methods:
        return {
            ECHO: UnaryMethod(lambda call, data: call.reply(data)),
            HOLD: UnaryMethod(lambda call, data: self.held.append((call, data))),
            CHAT: StreamMethod(self._open),
        }

    def _open(self, call: StreamCall) -> Chat:
        self.chats.append(Chat(call, self.ends))
        return self.chats[-1]


class Peer:
    """A client of one connection. `now` is its clock."""

    def __init__(
        self, limits: Limits | None = None, *, greet: bool = True, traffic: Traffic | None = None
    ) -> None:
        self.service = Service()
        self.now = 100.0
        self.encoder, self.decoder = Encoder(), Decoder()
        self.outputs = 0  # how often the connection asked to be written
        self.connection = Connection(
            self.service.methods(),
            limits or Limits(),
            now=self.now,
            on_output=self._has_output,
            traffic=traffic,
        )
        self.received: list[Frame] = []
        self.greeting = self.take()
        if greet:
            self.feed(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0))
            self.take()

    def _has_output(self) -> None:
        self.outputs += 1

    def feed(self, data: bytes) -> None:
        self.connection.receive(data, self.now)
        while self.connection.has_more:
            self.connection.receive(b"", self.now)

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self.feed(h2.frame(kind, flags, stream, payload))

    def head(self, path: str = ECHO, **extra: str) -> bytes:
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "test"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *((name.replace("_", "-"), value) for name, value in extra.items()),
        ]
        return self.encoder.encode(fields)

    def open(self, stream: int, path: str = ECHO, **extra: str) -> None:
        self.send(h2.HEADERS, h2.END_HEADERS, stream, self.head(path, **extra))

    def call(self, stream: int, message: bytes, path: str = ECHO, **extra: str) -> None:
        self.open(stream, path, **extra)
        data = framed(message)
        while len(data) > h2.MAX_FRAME_BYTES:
            self.send(h2.DATA, 0, stream, data[: h2.MAX_FRAME_BYTES])
            data = data[h2.MAX_FRAME_BYTES :]
        self.send(h2.DATA, h2.END_STREAM, stream, data)

    def take(self) -> list[Frame]:
        """The frames written since the last call."""
        data = b"".join(self.connection.take_output())
        frames, at = [], 0
        while len(data) - at >= h2.FRAME_BYTES:
            high, low, kind, flags, stream = h2.FRAME.unpack_from(data, at)
            begin, at = at + h2.FRAME_BYTES, at + h2.FRAME_BYTES + (high << 8 | low)
            assert len(data) >= at, "the connection writes whole frames"
            frames.append(Frame(kind, flags, stream, data[begin:at]))
        assert at == len(data), "and nothing but frames"
        self.received += frames
        return frames

    def headers_of(self, frame: Frame) -> dict[str, str]:
        return {str(name): str(value) for name, value in self.decoder.decode(frame.payload)}

    def replies(self) -> dict[int, tuple[bytes, dict[str, str]]]:
        """By stream: the DATA, and headers and trailers in one, of what was written since the last call."""
        found: dict[int, tuple[list[bytes], dict[str, str]]] = {}
        for frame in self.take():
            if frame.kind in (h2.DATA, h2.HEADERS):
                data, headers = found.setdefault(frame.stream, ([], {}))
                if frame.kind == h2.DATA:
                    data.append(frame.payload)
                else:
                    headers |= self.headers_of(frame)
        return {stream: (b"".join(data), headers) for stream, (data, headers) in found.items()}


Action = Callable[[Peer], None]
