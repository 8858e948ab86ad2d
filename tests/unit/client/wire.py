"""The server's end of a client's state machine, all in memory; and a sink that remembers what it was told."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpack import Decoder, Encoder

from kvstore.client.calls import Call
from kvstore.client.http2 import Http2
from kvstore.client.replies import Ending
from kvstore.wire import frames as h2
from kvstore.wire.literals import literal
from kvstore.wire.messages import PREFIX

REQUEST = literal(":path", "/test.Test/Echo")
HEAD = b"\x88" + literal("content-type", "application/grpc")
TRAILERS = literal("grpc-status", "0")
MAX_MESSAGE_BYTES = 20 << 20


def framed(message: bytes, compressed: int = 0) -> bytes:
    return PREFIX.pack(compressed, len(message)) + message


def setting(key: int, value: int) -> bytes:
    return h2.SETTING.pack(key, value)


@dataclass
class Heard:
    """A sink. endings: how often it was told so is part of what tests look at."""

    messages: list[bytes] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    drains: int = 0

    def message(self, data: bytes) -> None:
        self.messages.append(data)

    def ended(self, ending: Ending) -> None:
        self.endings.append(ending)

    def drained(self) -> None:
        self.drains += 1

    @property
    def ending(self) -> Ending:
        [only] = self.endings
        return only


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


class Wire:
    """A server that says what a test has it say."""

    def __init__(self, settings: bytes | None = b"", *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.machine = Http2(max_message_bytes)
        self.decoder, self.encoder = Decoder(), Encoder()
        self.greeting = b"".join(self.machine.output)
        self.machine.output.clear()
        if settings is not None:
            self.send(h2.SETTINGS, 0, 0, settings)
            self.take()

    def open(
        self, message: bytes | None = b"ask", *, ends: bool = True, **options: object
    ) -> tuple[Call, Heard]:
        heard = Heard()
        return self.machine.open(REQUEST, heard, message=message, ends=ends, **options), heard  # type: ignore[arg-type]

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self.machine.receive(h2.frame(kind, flags, stream, payload))

    def head(self, stream: int, block: bytes = HEAD) -> None:
        self.send(h2.HEADERS, h2.END_HEADERS, stream, block)

    def data(self, stream: int, payload: bytes) -> None:
        for at in range(0, len(payload), h2.MAX_FRAME_BYTES):
            self.send(h2.DATA, 0, stream, payload[at : at + h2.MAX_FRAME_BYTES])

    def end(self, stream: int, block: bytes = TRAILERS) -> None:
        self.send(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, block)

    def window(self, stream: int, more: int) -> None:
        self.send(h2.WINDOW_UPDATE, 0, stream, h2.U32.pack(more))

    def goaway(self, last: int, code: int = h2.NO_ERROR, why: bytes = b"") -> None:
        self.send(h2.GOAWAY, 0, 0, h2.U32.pack(last) + h2.U32.pack(code) + why)

    def take(self) -> list[Frame]:
        """The frames put out since the last call."""
        data, found, at = b"".join(self.machine.output), [], 0
        self.machine.output.clear()
        while at < len(data):
            high, low, kind, flags, stream = h2.FRAME.unpack_from(data, at)
            begin, at = at + h2.FRAME_BYTES, at + h2.FRAME_BYTES + (high << 8 | low)
            found.append(Frame(kind, flags, stream, data[begin:at]))
        assert at == len(data), "whole frames, and nothing but frames"
        return found

    def sent(self, stream: int) -> tuple[bytes, bool]:
        """The DATA put out on a stream since the last take(), and whether it ended the stream."""
        frames = [each for each in self.take() if (each.kind, each.stream) == (h2.DATA, stream)]
        return b"".join(each.payload for each in frames), any(each.flags & h2.END_STREAM for each in frames)
