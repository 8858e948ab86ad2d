"""kvstore/wire/protocol.py: the shell around a connection, with a loop whose time is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from kvstore.rpc import Status
from kvstore.wire import frames as h2
from kvstore.wire.calm import FAULTS_BURST, Calm
from kvstore.wire.limits import Limits
from kvstore.wire.protocol import MUCH_BYTES, RESTING_BYTES_MAX, WireProtocol
from tests.unit.wire.peer import CHAT, ECHO, HOLD, Peer, Service, framed
from tests.unit.wire.shell import Loop, Transport

START = h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0)


class Http1(asyncio.Protocol):
    """Keeps what an HTTP/1.1 server would have read."""

    def __init__(self) -> None:
        self.data = b""
        self.is_lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True


class Side:
    """One protocol on its transport, and a client's encoder for it."""

    def __init__(
        self, loop: Loop, limits: Limits | None, *, http1: bool, greet: bool, calm: Calm | None = None
    ) -> None:
        self.loop = loop
        self.service = Service()
        self.connections: set[WireProtocol] = set()
        self.http1 = Http1()
        self.protocol = WireProtocol(
            self.service.methods(),
            limits or Limits(),
            self.connections,
            (lambda: self.http1) if http1 else None,
            calm=calm,
        )
        self.transport = Transport(self.loop, self.protocol)
        self.client = Peer()
        if greet:
            self.receive(START)
            self.loop.run()
            self.transport.writes.clear()

    def receive(self, data: bytes) -> None:
        self.transport.protocol.data_received(data)

    def request(self, stream: int, path: str, message: bytes = b"x", **extra: str) -> bytes:
        head = h2.frame(h2.HEADERS, h2.END_HEADERS, stream, self.client.head(path, **extra))
        return head + h2.frame(h2.DATA, h2.END_STREAM, stream, framed(message))

    def kinds(self) -> list[int]:
        """Of the frames written since the last look."""
        data, at, found = self.transport.taken(), 0, []
        while at < len(data):
            high, low, kind, _, _ = h2.FRAME.unpack_from(data, at)
            at += h2.FRAME_BYTES + (high << 8 | low)
            found.append(kind)
        return found


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Side]:
    """Makes sides, each with a loop of its own in place of a running one."""

    def make(
        limits: Limits | None = None, *, http1: bool = True, greet: bool = False, after: Side | None = None
    ) -> Side:
        """after: of the same server and address."""
        loop = Loop() if after is None else after.loop
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "get_running_loop", lambda: loop)
            calm = None if after is None else after.protocol._calm
            return Side(loop, limits, http1=http1, greet=greet, calm=calm)

    return make


# Who is there


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 23, 24, 25])
def test_http2_however_its_beginning_is_cut(sides: Callable[..., Side], size: int) -> None:
    side = sides()
    data = START + side.request(1, ECHO)
    for at in range(0, len(data), size):
        side.receive(data[at : at + size])
    side.loop.run()
    assert side.kinds() == [h2.SETTINGS, h2.WINDOW_UPDATE, h2.SETTINGS, h2.HEADERS, h2.DATA, h2.HEADERS]


@pytest.mark.parametrize(
    "request_line", [b"GET /health HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b"PUT / H", b"G", b"PATCH"]
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_http1_gets_every_byte_from_the_first(
    sides: Callable[..., Side], request_line: bytes, size: int
) -> None:
    """POST, PUT and PATCH begin as the preface does."""
    side = sides()
    for at in range(0, len(request_line), size):
        side.receive(request_line[at : at + size])
    assert side.http1.data == request_line
    assert side.connections == set()
    assert side.loop.waiting == 0  # the preface's timer is not HTTP/1.1's
    side.transport.close()
    side.loop.run()
    assert side.http1.is_lost


@pytest.mark.parametrize("data", [b"\x16\x03\x01", b"get / HTTP/1.1", b"PRX", b"\0", b"GOT"])
def test_neither_is_closed_without_a_word(sides: Callable[..., Side], data: bytes) -> None:
    side = sides()
    side.receive(data)
    side.loop.run()
    assert (side.transport.end, side.transport.writes) == ("closed", [])
    assert side.connections == set()


def test_http1_where_nobody_serves_it_is_closed(sides: Callable[..., Side]) -> None:
    side = sides(http1=False)
    side.receive(b"GET / HTTP/1.1\r\n\r\n")
    assert side.transport.end == "closed"


def test_a_preface_that_goes_wrong_late_is_told_so(sides: Callable[..., Side]) -> None:
    side = sides()
    side.receive(b"PRI * HT")
    side.receive(b"TP/1.1\r\n\r\n")
    assert side.kinds()[-1] == h2.GOAWAY
    assert side.transport.end == "closed"


@pytest.mark.parametrize("beginning", [b"", b"P", h2.PREFACE[:-1]])
def test_a_preface_that_does_not_come(sides: Callable[..., Side], beginning: bytes) -> None:
    side = sides(Limits(preface_timeout_s=10.0))
    if beginning:
        side.receive(beginning)
    side.loop.run(9.9)
    assert side.transport.end is None
    side.loop.run(0.2)
    assert side.transport.end == "closed"
    assert side.loop.waiting == 0


# Writing


def test_a_turns_replies_are_one_write(sides: Callable[..., Side]) -> None:
    side = sides(greet=True)
    side.receive(b"".join(side.request(number, HOLD) for number in range(1, 21, 2)))
    assert side.transport.writes == []
    for call, message in side.service.held:
        call.reply(message)
    assert side.transport.writes == []
    side.loop.run()
    assert len(side.transport.writes) == 1
    assert side.kinds() == [h2.HEADERS, h2.DATA, h2.HEADERS] * 10


def test_replies_given_at_once_are_written_before_the_next_read(sides: Callable[..., Side]) -> None:
    side = sides(greet=True)
    side.receive(side.request(1, ECHO) + side.request(3, ECHO))
    assert len(side.transport.writes) == 1


def test_a_full_socket_holds_messages_back(sides: Callable[..., Side]) -> None:
    side = sides(greet=True)
    assert side.transport.high_bytes == 4 << 20
    side.protocol.pause_writing()
    side.receive(side.request(1, ECHO))
    assert h2.DATA not in side.kinds()
    side.protocol.resume_writing()
    side.loop.run()
    assert side.kinds() == [h2.DATA, h2.HEADERS]


def test_a_peer_that_asks_and_does_not_read_is_cut_off(sides: Callable[..., Side]) -> None:
    """Refusals, statuses and acknowledgements obey no window: only what the socket holds can bound them."""
    side = sides(Limits(queued_bytes=1000), greet=True)
    side.protocol.pause_writing()
    side.transport.unsent = 1000
    side.receive(side.request(1, "/no/such"))
    assert side.transport.end is None
    side.transport.unsent = 1001
    side.receive(side.request(3, "/no/such"))
    assert side.transport.end == "aborted"
    side.loop.run()
    assert side.connections == set()


def test_a_connection_above_its_bound_of_replies_is_cut_off(sides: Callable[..., Side]) -> None:
    side = sides(Limits(queued_bytes=1000), greet=True)
    side.protocol.pause_writing()
    side.receive(side.request(1, ECHO, b"x" * 900))
    assert side.transport.end is None
    side.receive(side.request(3, ECHO, b"x" * 900))
    side.loop.run()
    assert side.transport.end == "aborted"
    assert side.loop.waiting == 0


def test_a_fault_is_told_and_ends_the_connection(sides: Callable[..., Side]) -> None:
    side = sides(greet=True)
    side.receive(side.request(1, HOLD) + h2.frame(h2.PUSH_PROMISE, 0, 1))
    assert side.kinds() == [h2.GOAWAY]
    assert side.transport.end == "closed"
    call, message = side.service.held[0]
    assert call.cancelled
    call.reply(message)
    side.loop.run()
    assert side.transport.writes == [] and side.loop.waiting == 0


def test_a_lost_connection_takes_its_timers_and_calls_along(sides: Callable[..., Side]) -> None:
    side = sides(greet=True)
    side.receive(side.request(1, HOLD, grpc_timeout="5S"))
    side.protocol.connection_lost(None)
    side.service.held[0][0].reply(b"late")
    side.loop.run()
    assert side.service.held[0][0].cancelled
    assert side.loop.waiting == 0
    assert side.connections == set()


# Time


def test_deadlines_are_kept_by_one_timer(sides: Callable[..., Side]) -> None:
    side = sides(greet=True)
    waiting = side.loop.waiting
    for number, seconds in ((1, 3), (3, 1), (5, 2)):
        side.receive(side.request(number, HOLD, grpc_timeout=f"{seconds}S"))
    assert side.loop.waiting == waiting + 1
    seen = []
    for _ in range(4):
        side.loop.run(0.999)
        assert side.kinds() == []
        side.loop.run(0.001)
        seen.append(side.kinds())
        assert side.loop.waiting <= waiting + 1
    assert seen == [[h2.HEADERS]] * 3 + [[]]
    assert all(call.cancelled for call, _ in side.service.held)


KEEPALIVE = Limits(keepalive_interval_s=60.0, keepalive_timeout_s=20.0)


def test_a_silent_client_is_asked_and_one_that_stays_silent_is_gone(sides: Callable[..., Side]) -> None:
    side = sides(KEEPALIVE, greet=True)
    side.loop.run(10.0 + 60.0 - 0.1)
    assert side.kinds() == []
    side.loop.run(0.2)
    assert side.kinds() == [h2.PING]
    side.loop.run(20.0)
    assert side.transport.end == "aborted"
    assert side.loop.waiting == 0


def test_a_client_that_answers_stays_and_one_that_speaks_is_not_asked(sides: Callable[..., Side]) -> None:
    side = sides(KEEPALIVE, greet=True)
    for number in range(1, 21, 2):
        side.loop.run(50.0)
        side.receive(side.request(number, ECHO))
    assert h2.PING not in side.kinds()
    for _ in range(5):
        side.loop.run(75.0)
        if h2.PING in side.kinds():
            side.receive(h2.frame(h2.PING, h2.ACK, 0, b"kvstore\0"))
    assert side.transport.end is None


# Floods


@pytest.mark.parametrize(
    ("flood", "is_read_at_once"),
    [
        (h2.frame(h2.PRIORITY, 0, 1, b"\0" * 5) * 9, False),
        (h2.frame(h2.PING, 0, 0, b"12345678") * 5, True),  # too often, but not much
        (h2.frame(h2.PUSH_PROMISE, 0, 1), True),
    ],
    ids=["flood", "pings", "fault"],
)
def test_who_connects_again_after_a_flood_is_not_read_for_a_while(
    sides: Callable[..., Side], flood: bytes, is_read_at_once: bool
) -> None:
    side = sides(Limits(control_frames_burst=8), greet=True)
    side.receive(flood)
    assert (side.kinds()[-1], side.transport.end) == (h2.GOAWAY, "closed")
    again = sides(after=side)
    again.receive(START + again.request(1, ECHO))  # uvloop reads once, whatever it was asked for
    side.loop.run()
    assert again.transport.reading == is_read_at_once
    assert bool(again.transport.writes) == is_read_at_once
    side.loop.run(Limits().calm_s + 0.1)
    assert again.transport.reading
    again.receive(again.request(3, ECHO))
    side.loop.run()
    assert again.kinds().count(h2.DATA) == 2


def test_who_breaks_the_protocol_again_and_again_is_not_read_for_a_while(sides: Callable[..., Side]) -> None:
    side = sides(greet=True)
    side.receive(h2.frame(h2.PUSH_PROMISE, 0, 1))
    for _ in range(int(FAULTS_BURST)):
        again = sides(after=side)
        again.receive(START + h2.frame(h2.PUSH_PROMISE, 0, 1))
        assert again.transport.writes
    again = sides(after=side)
    again.receive(START + again.request(1, ECHO))
    side.loop.run()
    assert (again.transport.reading, again.transport.writes) == (False, [])
    side.loop.run(Limits().calm_s + 0.1)
    assert again.transport.reading
    assert h2.DATA in again.kinds()


def test_of_who_waits_only_the_first_words_are_kept(sides: Callable[..., Side]) -> None:
    side = sides(Limits(control_frames_burst=8), greet=True)
    side.receive(h2.frame(h2.PRIORITY, 0, 1, b"\0" * 5) * 9)
    again = sides(after=side)
    again.receive(START + b"x" * RESTING_BYTES_MAX)
    side.loop.run(Limits().calm_s + 0.1)
    assert (again.transport.end, again.transport.writes) == ("closed", [])


def test_who_sends_much_is_read_on_when_others_have_had_their_turn(sides: Callable[..., Side]) -> None:
    side = sides(greet=True)
    large = b"x" * MUCH_BYTES
    request = side.request(1, ECHO)[: -len(framed(b"x")) - h2.FRAME_BYTES]
    message = framed(large)
    for at in range(0, len(message), h2.MAX_FRAME_BYTES):
        piece = message[at : at + h2.MAX_FRAME_BYTES]
        last = at + len(piece) == len(message)
        request += h2.frame(h2.DATA, h2.END_STREAM if last else 0, 1, piece)
    side.receive(request[: len(request) - 100])
    assert not side.transport.reading
    side.loop.run()
    assert side.transport.reading
    side.receive(request[len(request) - 100 :])
    assert side.transport.reading
    side.loop.run()
    assert h2.DATA in side.kinds()


# Ending


def test_closing_an_idle_connection(sides: Callable[..., Side]) -> None:
    side = sides(greet=True)
    side.protocol.begin_close()
    side.loop.run()
    assert (side.kinds(), side.transport.end) == ([h2.GOAWAY], "closed")


def test_closing_one_that_has_not_spoken(sides: Callable[..., Side]) -> None:
    side = sides()
    side.protocol.begin_close()
    assert side.transport.end == "closed"


@pytest.mark.parametrize("end", ["reply", "fail", "reset", "deadline"])
def test_closing_waits_for_the_last_call_however_it_ends(sides: Callable[..., Side], end: str) -> None:
    side = sides(greet=True)
    side.receive(side.request(1, HOLD, grpc_timeout="1S"))
    side.protocol.begin_close()
    side.loop.run(0.5)
    assert side.transport.end is None
    call, message = side.service.held[0]
    if end == "reply":
        call.reply(message)
    elif end == "fail":
        call.fail(Status.UNAVAILABLE, "etcdserver: server stopped")
    elif end == "reset":
        side.receive(h2.frame(h2.RST_STREAM, 0, 1, h2.U32.pack(h2.CANCEL)))
    else:
        side.loop.run(0.5)
    side.loop.run()
    assert side.transport.end == "closed"


def test_closing_waits_for_replies_that_wait_for_the_client(sides: Callable[..., Side]) -> None:
    side = sides(greet=True)
    side.receive(h2.frame(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 0)))
    side.receive(side.request(1, CHAT))
    side.protocol.begin_close()
    side.loop.run(1.0)
    assert side.transport.end is None
    side.receive(h2.frame(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(100)))
    assert side.transport.end == "closed"
    assert side.kinds()[-2:] == [h2.DATA, h2.HEADERS]


def test_a_client_that_hangs_up_is_hung_up_on(sides: Callable[..., Side]) -> None:
    """A half-closed socket carries no HTTP/2: every answer needs the client's window."""
    assert not sides(greet=True).protocol.eof_received()
