"""Any bytes at all into a connection: it answers, or ends with a declared fault; it never breaks or grows.

A failure names its seed; the same seed makes the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from kvstore.rpc import Status, StreamCall, UnaryCall
from kvstore.wire import frames as h2
from kvstore.wire.frames import ConnectionFault
from kvstore.wire.limits import Limits
from tests.unit.wire.invariants import check
from tests.unit.wire.peer import CHAT, ECHO, HOLD, Frame, Peer, framed

SMALL = Limits(
    max_concurrent_streams=6,
    stream_window_bytes=8_000,
    max_message_bytes=20_000,
    header_block_bytes=2_000,
    header_list_bytes=2_000,
    partial_bytes=30_000,
    queued_bytes=60_000,
)


def conversation(random: Random) -> bytes:
    """A valid one, of several calls."""
    peer = Peer(SMALL, greet=False)
    parts = [h2.PREFACE, h2.frame(h2.SETTINGS, 0, 0)]
    for number in range(1, random.randrange(4, 20), 2):
        path = random.choice((ECHO, HOLD, CHAT, "/no/such"))
        data = framed(random.randbytes(random.randrange(2000)))
        cut = random.randrange(len(data))
        extra = {"note": str(random.randrange(3))}
        if random.random() < 0.2:
            extra["grpc-timeout"] = "1S"
        parts += [
            h2.frame(h2.HEADERS, h2.END_HEADERS, number, peer.head(path, **extra)),
            h2.frame(h2.DATA, 0, number, data[:cut]),
            h2.frame(h2.DATA, h2.END_STREAM, number, data[cut:]),
        ]
        if random.random() < 0.3:
            parts.append(h2.frame(h2.RST_STREAM, 0, number, h2.U32.pack(h2.CANCEL)))
        if random.random() < 0.3:
            parts.append(h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(random.randrange(1, 1 << 20))))
        if random.random() < 0.3:
            window = h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, random.choice((0, 10, 500, 70_000)))
            parts.append(h2.frame(h2.SETTINGS, 0, 0, window))
    return b"".join(parts)


def damaged(data: bytes, random: Random) -> bytes:
    """With some bytes changed, a piece missing, doubled or foreign."""
    changed = bytearray(data)
    for _ in range(random.randrange(1, 6)):
        at = random.randrange(len(h2.PREFACE), len(changed))
        kind = random.randrange(4)
        if kind == 0:
            changed[at] = random.randrange(256)
        elif kind == 1:
            del changed[at : at + random.randrange(30)]
        elif kind == 2:
            changed[at:at] = changed[at : at + random.randrange(30)]
        else:
            changed[at:at] = h2.frame(
                random.randrange(12), random.randrange(256), random.randrange(9), random.randbytes(8)
            )
    return bytes(changed)


def fed(data: bytes, random: Random) -> Peer:
    """In pieces. A fault is said in a GOAWAY, as the last thing."""
    peer = Peer(SMALL, greet=False)
    faulted = False
    try:
        while data:
            size = random.randrange(1, 3000)
            peer.feed(data[:size])
            check(peer.connection)
            data = data[size:]
    except ConnectionFault as fault:
        faulted = True
        peer.connection.fail(fault)
    frames = peer.take()  # whole frames, and nothing but frames
    assert not faulted or frames[-1].kind == h2.GOAWAY
    return peer


def ended(peer: Peer) -> None:
    peer.connection.lost()
    assert peer.connection.is_idle
    check(peer.connection)
    for call, _ in peer.service.held:
        call.reply(b"too late")
    assert peer.connection.is_overfull or not peer.take()


@pytest.mark.parametrize("seed", range(20))
def test_damaged_conversations(seed: int) -> None:
    random = Random(seed)
    for _ in range(100):
        ended(fed(damaged(conversation(random), random), random))


@pytest.mark.parametrize("seed", range(10))
def test_arbitrary_bytes_behind_the_preface(seed: int) -> None:
    random = Random(seed)
    for _ in range(150):
        ended(fed(h2.PREFACE + random.randbytes(random.randrange(400)), random))


@pytest.mark.parametrize("seed", range(10))
def test_arbitrary_frames(seed: int) -> None:
    """Bytes at random hardly get past a frame's length: whole frames of every kind and flag do."""
    random = Random(seed)
    for _ in range(60):
        peer = Peer(SMALL, greet=False)
        parts = [h2.PREFACE]
        for _ in range(random.randrange(40)):
            kind, stream = random.randrange(11), random.choice((0, 0, 1, 3, 5, 7, 9))
            flags = random.choice((0, 1, 4, 5, 8, 12, 13, 0x20, 0x25))
            if kind == h2.HEADERS and random.random() < 0.7:
                payload = peer.head(random.choice((ECHO, HOLD, CHAT, "/no/such")))
            else:
                payload = random.choice(
                    (b"", b"\0\0\0\1", b"\0\4\0\0\0\1", framed(b"abc"), random.randbytes(8))
                )
            parts.append(h2.frame(kind, flags, stream, payload))
        ended(fed(b"".join(parts), random))


@pytest.mark.parametrize("seed", range(5))
def test_a_valid_conversation_is_the_same_however_it_is_cut(seed: int) -> None:
    """What it writes, but for window updates of the connection, and what its services see."""
    random = Random(seed)
    for _ in range(10):
        data = conversation(random)
        whole = Peer(SMALL, greet=False)
        whole.feed(data)
        expected = [frame for frame in whole.take() if frame.kind != h2.WINDOW_UPDATE]
        cut = fed(data, random)
        assert [frame for frame in cut.received if frame.kind != h2.WINDOW_UPDATE][1:] == expected
        assert cut.service.ends == whole.service.ends
        assert [message for _, message in cut.service.held] == [message for _, message in whole.service.held]
        for connection in (cut.connection, whole.connection):
            check(connection)


# A client that keeps to the rules, with everything else at random


@dataclass
class Told:
    """What a client knows of one of its calls."""

    expected: bytes = b""  # what the service has sent
    got: bytearray = field(default_factory=bytearray)
    window: int = 0
    is_ended: bool = False
    was_cut_short: bool = False  # reset, or out of time: what arrived is a beginning of what was sent
    half_closed: bool = False
    call: StreamCall | UnaryCall | None = None


class Client:
    """Opens and shuts windows, resets, waits; and holds the server to every window it has given."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.peer = Peer(
            Limits(queued_bytes=1 << 26, partial_bytes=1 << 20, resets_burst=1e9, control_frames_burst=1e9)
        )
        self.window = self.initial = h2.DEFAULT_WINDOW
        self.calls: dict[int, Told] = {}
        self.next_stream = 1

    def look(self) -> None:
        """Reads what was written. Always before the next window changes, so that both ends mean the same one."""
        for frame in self.peer.take():
            if frame.stream:
                self.look_at(frame, self.calls[frame.stream])
        check(self.peer.connection)

    def look_at(self, frame: Frame, told: Told) -> None:
        if frame.kind == h2.RST_STREAM:
            assert told.is_ended and frame.payload == h2.U32.pack(h2.NO_ERROR)
            return
        if frame.kind == h2.WINDOW_UPDATE:
            return
        assert not told.is_ended, f"{frame} after the end"
        if frame.kind == h2.DATA:
            size = len(frame.payload)
            assert size <= min(told.window, self.window, h2.MAX_FRAME_BYTES), (frame.stream, size)
            told.window -= size
            self.window -= size
            told.got += frame.payload
            assert told.expected.startswith(told.got)
        else:
            headers = self.peer.headers_of(frame)
            told.is_ended = bool(frame.flags & h2.END_STREAM)
            assert told.is_ended == ("grpc-status" in headers)
            if told.is_ended and headers["grpc-status"] in ("0", "10"):
                assert told.got == told.expected
            elif told.is_ended:
                told.was_cut_short = True

    def open(self) -> None:
        number, path = self.next_stream, self.random.choice((ECHO, HOLD, CHAT, CHAT))
        self.next_stream += 2
        told = self.calls[number] = Told(window=self.initial)
        message = self.random.randbytes(self.random.choice((0, 10, 1_000, 60_000)))
        extra = {"grpc-timeout": f"{self.random.randrange(1, 9)}S"} if self.random.random() < 0.2 else {}
        if path == CHAT:
            self.peer.open(number, path, **extra)
            told.call = self.peer.service.chats[-1].call
            return
        told.expected = framed(message)
        told.half_closed = True
        self.peer.call(number, message, path, **extra)
        if path == HOLD:
            told.call = self.peer.service.held[-1][0]

    def a_call(self) -> tuple[int, Told] | None:
        live = [(number, told) for number, told in self.calls.items() if not told.is_ended]
        return self.random.choice(live) if live else None

    def answer(self) -> None:
        """The service says something, or ends a call."""
        chosen = self.a_call()
        if chosen is None or (call := chosen[1].call) is None or call.cancelled:
            return
        number, told = chosen
        if number in self.held_numbers():
            told.call = None
            self.finish_unary(told, call)
        elif self.random.random() < 0.2:
            told.call = None
            self.finish_stream(call)
        else:
            message = self.random.randbytes(self.random.choice((0, 100, 30_000)))
            told.expected += framed(message)
            self.stream(call).send(message)

    def held_numbers(self) -> set[int]:
        held = {id(call) for call, _ in self.peer.service.held}
        return {number for number, told in self.calls.items() if id(told.call) in held}

    def stream(self, call: StreamCall | UnaryCall) -> StreamCall:
        return next(chat.call for chat in self.peer.service.chats if chat.call is call)

    def finish_unary(self, told: Told, call: StreamCall | UnaryCall) -> None:
        unary, message = next(pair for pair in self.peer.service.held if pair[0] is call)
        if self.random.random() < 0.3:
            told.expected = b""
            unary.fail(Status.ABORTED, "ü")
        else:
            unary.reply(message)

    def finish_stream(self, call: StreamCall | UnaryCall) -> None:
        self.stream(call).finish(self.random.choice((Status.OK, Status.ABORTED)), "")

    def reset(self) -> None:
        chosen = self.a_call()
        if chosen is not None:
            chosen[1].is_ended = chosen[1].was_cut_short = True
            self.peer.send(h2.RST_STREAM, 0, chosen[0], h2.U32.pack(h2.CANCEL))

    def widen(self) -> None:
        more = self.random.choice((1, 50, 5_000, 100_000))
        chosen = self.a_call()
        if chosen is None or self.random.random() < 0.5:
            self.window += more
            self.peer.send(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(more))
        else:
            chosen[1].window += more
            self.peer.send(h2.WINDOW_UPDATE, 0, chosen[0], h2.U32.pack(more))

    def change_settings(self, value: int | None = None) -> None:
        """Twice in one frame: the last one counts, for the streams that are open and for those to come."""
        new = value if value is not None else self.random.choice((0, 1, 700, 65_535, 200_000))
        for told in self.calls.values():
            told.window += new - self.initial
        self.initial = new
        both = h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 7) + h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, new)
        self.peer.send(h2.SETTINGS, 0, 0, both)

    def socket(self) -> None:
        if self.random.random() < 0.5:
            self.peer.connection.socket_full()
        else:
            self.peer.connection.socket_ready()

    def wait(self) -> None:
        self.peer.now += self.random.random()
        self.peer.connection.check_deadlines(self.peer.now)

    def settle(self) -> None:
        """Everything is opened and everything answered: now every call has its end and all of its bytes."""
        self.peer.connection.socket_ready()
        self.look()
        self.change_settings(1 << 30)
        self.look()
        self.window += 1 << 30
        self.peer.send(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(1 << 30))
        self.look()
        for call, message in self.peer.service.held:
            if not call.cancelled:
                call.reply(message)
        for chat in self.peer.service.chats:
            chat.call.finish()
        self.look()
        for number, told in self.calls.items():
            assert told.is_ended, f"{number} never ended"
            assert told.was_cut_short or bytes(told.got) == told.expected, number
        assert self.peer.connection.is_idle
        check(self.peer.connection)


@pytest.mark.parametrize("seed", range(40))
def test_windows_are_kept_and_nothing_is_lost(seed: int) -> None:
    client = Client(seed)
    acts = (client.open, client.answer, client.answer, client.widen, client.widen, client.change_settings)
    rare = (client.reset, client.socket, client.wait)
    for _ in range(150):
        act = client.random.choice(rare if client.random.random() < 0.2 else acts)
        act()
        client.look()
    client.settle()
