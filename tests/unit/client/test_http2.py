"""kvstore/client/http2.py: what a server says, frame by frame, and what becomes of the calls."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.client.http2 import (
    ACKS_UNWRITTEN_MAX,
    GIVE_BACK_BYTES,
    STREAM_WINDOW_BYTES,
    Http2,
)
from kvstore.client.replies import Ending, Fate
from kvstore.rpc import Status
from kvstore.wire import frames as h2
from kvstore.wire.frames import ConnectionFault, frame
from kvstore.wire.limits import Limits
from kvstore.wire.literals import literal
from tests.unit.client.wire import HEAD, REQUEST, TRAILERS, Frame, Heard, Wire, framed, setting
from tests.unit.wire.peer import CHAT, ECHO, Peer

ANSWER = frame(h2.HEADERS, h2.END_HEADERS, 1, HEAD) + frame(h2.DATA, 0, 1, framed(b"answer"))
END = frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, TRAILERS)
SETTINGS = frame(h2.SETTINGS, 0, 0)


def test_the_greeting_opens_wide_windows_and_asks_for_no_table_and_no_pushes() -> None:
    wire = Wire(None)
    assert wire.greeting.startswith(h2.PREFACE + h2.FRAME.pack(0, 24, h2.SETTINGS, 0, 0))
    assert setting(1, 0) + setting(2, 0) + setting(h2.INITIAL_WINDOW_SIZE, 4 << 20) in wire.greeting
    assert wire.greeting.endswith(frame(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack((1 << 30) - 65_535)))
    assert not wire.machine.is_ready
    wire.send(h2.SETTINGS, 0, 0)
    assert wire.machine.is_ready
    assert wire.take() == [Frame(h2.SETTINGS, h2.ACK, 0, b"")]


def test_a_call_is_headers_and_data_in_one_go_and_its_answer_is_told() -> None:
    wire = Wire()
    _, heard = wire.open(b"ask")
    assert wire.take() == [
        Frame(h2.HEADERS, h2.END_HEADERS, 1, REQUEST),
        Frame(h2.DATA, h2.END_STREAM, 1, framed(b"ask")),
    ]
    wire.machine.receive(ANSWER)
    assert (heard.messages, heard.endings) == ([b"answer"], [])
    wire.machine.receive(END)
    assert heard.ending == Ending(Status.OK)
    assert wire.take() == []
    assert not wire.machine.is_busy


@pytest.mark.parametrize("size", [*range(1, 12), len(SETTINGS + ANSWER + END)])
def test_bytes_may_come_in_pieces_of_any_size(size: int) -> None:
    wire = Wire()
    _, heard = wire.open()
    block = HEAD + literal("x-long", "y" * 300)
    said = (
        frame(h2.HEADERS, 0, 1, block[:9])
        + frame(h2.CONTINUATION, 0, 1, block[9:40])
        + frame(h2.CONTINUATION, h2.END_HEADERS, 1, block[40:])
        + frame(h2.DATA, h2.PADDED, 1, b"\x03" + framed(b"one")[:4] + bytes(3))
        + frame(h2.DATA, 0, 1, framed(b"one")[4:] + framed(b"two") + framed(b"")[:2])
        + frame(99, 0, 1, b"unknown")
        + frame(h2.PRIORITY, 0, 1, bytes(5))
        + frame(h2.DATA, 0, 1, framed(b"")[2:])
        + END
    )
    for at in range(0, len(said), size):
        wire.machine.receive(said[at : at + size])
    assert heard.messages == [b"one", b"two", b""]
    assert heard.ending.status is Status.OK


def test_headers_may_have_padding_and_priority_and_come_after_1xx() -> None:
    wire = Wire()
    _, heard = wire.open()
    wire.head(1, literal(":status", "103"))
    payload = b"\x04" + bytes(5) + HEAD + bytes(4)
    wire.send(h2.HEADERS, h2.END_HEADERS | h2.PADDED | h2.PRIORITY_FLAG, 1, payload)
    wire.data(1, framed(b"a"))
    wire.end(1)
    assert (heard.messages, heard.ending.status) == ([b"a"], Status.OK)


def test_a_table_that_was_not_asked_for_is_understood_where_the_server_opens_it() -> None:
    wire = Wire()
    wire.encoder.header_table_size = 256
    fields = [(":status", "200"), ("content-type", "application/grpc"), ("x-note", "a note")]
    for stream, text in ((1, "first"), (3, "second"), (5, "first"), (7, "first")):
        _, heard = wire.open()
        wire.head(stream, wire.encoder.encode(fields))
        ends = [("grpc-status", "5"), ("grpc-message", text)]
        wire.end(stream, wire.encoder.encode(ends))
        assert heard.ending == Ending(Status.NOT_FOUND, text)


def test_the_same_bytes_mean_something_else_once_the_servers_table_has_changed() -> None:
    newest = b"\xbe"  # of the table
    wire = Wire()
    said = []
    for stream, block in (
        (1, b"\x3f\xe1\x01" + b"\x40\x0bgrpc-status\x015"),  # a table of 256 bytes, and an entry
        (3, newest),
        (5, b"\x40\x0bgrpc-status\x017"),
        (7, newest),
    ):
        _, heard = wire.open()
        wire.head(stream)
        wire.end(stream, block)
        said.append(heard.ending.status)
    not_found, denied = Status.NOT_FOUND, Status.PERMISSION_DENIED
    assert said == [not_found, not_found, denied, denied]


# How calls end


@pytest.mark.parametrize(
    ("block", "ending"),
    [
        (literal("grpc-status", "5"), Ending(Status.NOT_FOUND)),
        (
            literal("grpc-status", "9") + literal("grpc-message", "50%25 of gr%C3%B6%C3%9Fe %"),
            Ending(Status.FAILED_PRECONDITION, "50% of größe %"),
        ),
        (literal("grpc-status", "99"), Ending(Status.UNKNOWN)),
        (literal("grpc-status", "x"), Ending(Status.UNKNOWN)),
        (literal("x", "y"), Ending(Status.UNKNOWN, "the server ended the call without a grpc-status")),
    ],
)
@pytest.mark.parametrize("is_alone", [True, False])
def test_trailers(block: bytes, ending: Ending, is_alone: bool) -> None:
    wire = Wire()
    _, heard = wire.open()
    if is_alone:
        wire.end(1, HEAD + block)
    else:
        wire.head(1)
        wire.end(1, block)
    assert heard.ending == ending


@pytest.mark.parametrize(
    ("http", "status"),
    [
        (400, Status.INTERNAL),
        (401, Status.UNAUTHENTICATED),
        (403, Status.PERMISSION_DENIED),
        (404, Status.UNIMPLEMENTED),
        (429, Status.UNAVAILABLE),
        (502, Status.UNAVAILABLE),
        (503, Status.UNAVAILABLE),
        (504, Status.UNAVAILABLE),
        (418, Status.UNKNOWN),
        (204, Status.UNKNOWN),
    ],
)
@pytest.mark.parametrize("ends", [True, False])
def test_statuses_of_http(http: int, status: Status, ends: bool) -> None:
    wire = Wire()
    _, heard = wire.open()
    wire.take()
    block = literal(":status", str(http)) + literal("content-type", "text/html")
    (wire.end if ends else wire.head)(1, block)
    assert heard.ending == Ending(status, f"the server answered with HTTP status {http}")
    assert wire.take() == ([] if ends else [Frame(h2.RST_STREAM, 0, 1, h2.U32.pack(h2.CANCEL))])


def test_an_answer_that_is_not_grpc() -> None:
    wire = Wire()
    _, heard = wire.open()
    wire.head(1, b"\x88" + literal("content-type", "text/html"))
    assert heard.ending.status is Status.UNKNOWN
    assert 'content type "text/html"' in heard.ending.text


@pytest.mark.parametrize(
    ("code", "status", "fate"),
    [
        (h2.NO_ERROR, Status.INTERNAL, Fate.SENT),
        (h2.PROTOCOL_ERROR, Status.INTERNAL, Fate.SENT),
        (h2.INTERNAL_ERROR, Status.INTERNAL, Fate.SENT),
        (h2.FLOW_CONTROL_ERROR, Status.INTERNAL, Fate.SENT),
        (h2.REFUSED_STREAM, Status.UNAVAILABLE, Fate.REFUSED),
        (h2.CANCEL, Status.CANCELLED, Fate.SENT),
        (h2.COMPRESSION_ERROR, Status.INTERNAL, Fate.SENT),
        (h2.ENHANCE_YOUR_CALM, Status.RESOURCE_EXHAUSTED, Fate.SENT),
        (12, Status.PERMISSION_DENIED, Fate.SENT),
        (77, Status.UNKNOWN, Fate.SENT),
    ],
)
def test_resets(code: int, status: Status, fate: Fate) -> None:
    wire = Wire()
    _, heard = wire.open()
    wire.take()
    wire.send(h2.RST_STREAM, 0, 1, h2.U32.pack(code))
    assert (heard.ending.status, heard.ending.fate) == (status, fate)
    assert wire.take() == []
    wire.send(h2.RST_STREAM, 0, 1, h2.U32.pack(code))  # it may have been on its way twice
    wire.end(1)
    assert len(heard.endings) == 1


def test_a_refusal_after_the_answer_began_refuses_nothing() -> None:
    wire = Wire()
    _, heard = wire.open()
    wire.head(1)
    wire.send(h2.RST_STREAM, 0, 1, h2.U32.pack(h2.REFUSED_STREAM))
    assert heard.ending.fate is Fate.SENT


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (lambda wire: wire.data(1, framed(b"a")), "data before headers"),
        (lambda wire: wire.head(1, literal("content-type", "application/grpc")), "no status of HTTP"),
        (lambda wire: (wire.head(1), wire.head(1)), "headers twice"),
        (lambda wire: (wire.head(1), wire.send(h2.DATA, h2.END_STREAM, 1)), "without trailers"),
        (lambda wire: (wire.head(1), wire.data(1, framed(b"abc")[:-1]), wire.end(1)), "within a message"),
        (lambda wire: wire.window(1, 0), "out of bounds"),
        (lambda wire: wire.window(1, h2.WINDOW_MAX), "out of bounds"),
        (lambda wire: (wire.head(1), wire.data(1, framed(b"abc", 1))), "compressed flag"),
    ],
)
def test_a_stream_against_the_rules_costs_one_call(said: Callable[[Wire], object], text: str) -> None:
    wire = Wire()
    _, heard = wire.open()
    _, other = wire.open()
    said(wire)
    assert heard.ending.status is Status.INTERNAL
    assert text in heard.ending.text
    wire.head(3)
    wire.end(3)
    assert other.ending.status is Status.OK


@pytest.mark.parametrize("is_packed", [False, True])
def test_messages_beyond_the_limit(is_packed: bool) -> None:
    wire = Wire(max_message_bytes=100)
    wire.open()
    wire.head(1, HEAD + literal("grpc-encoding", "gzip"))
    wire.data(1, framed(gzip.compress(bytes(100)), 1) if is_packed else framed(bytes(100)))
    _, heard = wire.open()
    wire.take()
    wire.head(3, HEAD + literal("grpc-encoding", "gzip"))
    wire.data(3, framed(gzip.compress(bytes(101)), 1) if is_packed else framed(bytes(101)))
    assert heard.ending.status is Status.RESOURCE_EXHAUSTED
    assert "larger than max (101 vs. 100)" in heard.ending.text
    assert wire.take() == [Frame(h2.RST_STREAM, 0, 3, h2.U32.pack(h2.CANCEL))]


def test_gzip_is_unpacked() -> None:
    wire = Wire()
    _, heard = wire.open()
    wire.head(1, HEAD + literal("grpc-encoding", "gzip"))
    wire.data(1, framed(gzip.compress(b"packed"), 1) + framed(b"plain"))
    assert heard.messages == [b"packed", b"plain"]


def test_an_answer_before_the_request_is_whole_ends_this_side_too() -> None:
    wire = Wire()
    _, heard = wire.open(b"first", ends=False)
    wire.take()
    wire.end(1, HEAD + literal("grpc-status", "12"))
    assert heard.ending.status is Status.UNIMPLEMENTED
    assert wire.take() == [Frame(h2.RST_STREAM, 0, 1, h2.U32.pack(h2.NO_ERROR))]


def test_cancelled_calls_hear_nothing_and_say_so() -> None:
    wire = Wire()
    call, heard = wire.open()
    wire.take()
    wire.machine.cancel(call)
    wire.machine.cancel(call)
    assert wire.take() == [Frame(h2.RST_STREAM, 0, 1, h2.U32.pack(h2.CANCEL))]
    wire.machine.receive(ANSWER + END)
    wire.machine.send(call, b"more")
    assert (heard.messages, heard.endings, wire.take()) == ([], [], [])


def test_deadlines() -> None:
    wire = Wire()
    _, late = wire.open(deadline=20.0)
    _, early = wire.open(deadline=10.0)
    _, never = wire.open()
    assert wire.machine.next_deadline == 10.0
    wire.take()
    wire.machine.expire(10.0)
    assert early.ending == Ending(Status.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert wire.take() == [Frame(h2.RST_STREAM, 0, 3, h2.U32.pack(h2.CANCEL))]
    assert wire.machine.next_deadline == 20.0
    wire.machine.expire(30.0)
    assert late.ending.status is Status.DEADLINE_EXCEEDED
    assert wire.machine.next_deadline is None
    assert never.endings == []


# The limit of streams


def test_calls_wait_for_the_servers_limit_of_streams() -> None:
    wire = Wire(setting(h2.MAX_CONCURRENT_STREAMS, 1))
    first, _ = wire.open()
    wire.take()
    _, second = wire.open(b"second")
    third, _ = wire.open(b"third")
    wire.open(b"fourth")
    assert wire.take() == []
    wire.machine.cancel(third)
    wire.machine.cancel(first)
    frames = wire.take()
    assert [(each.kind, each.stream) for each in frames] == [
        (h2.RST_STREAM, 1),
        (h2.HEADERS, 3),
        (h2.DATA, 3),
    ]
    assert frames[-1].payload == framed(b"second")
    assert frames[-1].flags == h2.END_STREAM
    wire.end(3, HEAD + TRAILERS)
    assert second.ending.status is Status.OK
    assert wire.sent(5) == (framed(b"fourth"), True)
    _, fifth = wire.open(b"fifth")
    wire.send(h2.SETTINGS, 0, 0, setting(h2.MAX_CONCURRENT_STREAMS, 2))
    assert wire.sent(7) == (framed(b"fifth"), True)
    assert fifth.endings == []


@pytest.mark.parametrize("how", ["lost", "goaway", "time"])
def test_a_call_that_waits_for_a_stream_was_certainly_not_sent(how: str) -> None:
    wire = Wire(setting(h2.MAX_CONCURRENT_STREAMS, 0))
    _, heard = wire.open(deadline=5.0)
    if how == "lost":
        wire.machine.lost("gone")
    elif how == "goaway":
        wire.goaway(h2.WINDOW_MAX)
    else:
        wire.machine.expire(5.0)
    assert heard.ending.fate is Fate.UNSENT
    assert wire.take() == []


# Windows, ours and theirs


def test_what_is_sent_obeys_both_windows_and_the_size_of_frames() -> None:
    wire = Wire(setting(h2.INITIAL_WINDOW_SIZE, 100_000))
    message = bytes(range(256)) * 800
    call, heard = wire.open(message)
    whole = framed(message)
    sent, ended = wire.sent(1)
    assert (sent, ended) == (whole[:65_535], False), "the connection's window"
    assert wire.machine.is_clogged(call)
    wire.window(1, 1000)
    assert wire.take() == []
    wire.window(0, 1_000_000)
    more, ended = wire.sent(1)
    assert (sent + more, ended) == (whole[:101_000], False), "the stream's window"
    wire.send(h2.SETTINGS, 0, 0, setting(h2.INITIAL_WINDOW_SIZE, 99_000))
    wire.window(1, 1000)
    assert wire.sent(1) == (b"", False), "it was 1,000 below zero"
    wire.send(
        h2.SETTINGS, 0, 0, setting(h2.INITIAL_WINDOW_SIZE, 100_000) + setting(h2.MAX_FRAME_SIZE, 60_000)
    )
    wire.take()
    wire.window(1, 200_000)
    frames = wire.take()
    assert b"".join(each.payload for each in frames) == whole[102_000:]
    assert [len(each.payload) for each in frames] == [60_000, len(whole) - 162_000]
    assert frames[-1].flags == h2.END_STREAM
    assert heard.drains == 1
    assert not wire.machine.is_clogged(call)


def test_frames_are_of_16_kib_where_the_server_says_nothing_else() -> None:
    wire = Wire()
    wire.open(bytes(40_000))
    assert [len(each.payload) for each in wire.take() if each.kind == h2.DATA] == [
        16_384,
        16_384,
        40_005 - 32_768,
    ]


def test_no_call_starves_another_of_the_connections_window() -> None:
    wire = Wire(setting(h2.INITIAL_WINDOW_SIZE, 1 << 20))
    wire.open(bytes(300_000))
    wire.open(bytes(300_000))
    wire.take()
    wire.window(0, 10_000)
    wire.window(0, 10_000)
    assert [each.stream for each in wire.take()] == [1, 3]


def test_a_full_socket_holds_data_back() -> None:
    wire = Wire()
    wire.machine.socket_full()
    call, heard = wire.open(b"ask")
    assert [each.kind for each in wire.take()] == [h2.HEADERS]
    assert wire.machine.is_clogged(call)
    wire.machine.socket_ready()
    assert wire.sent(1) == (framed(b"ask"), True)
    assert heard.drains == 1


def test_a_large_answer_never_waits_for_our_window() -> None:
    wire = Wire()
    _, heard = wire.open()
    wire.head(1)
    message = bytes(3 * STREAM_WINDOW_BYTES)
    window = STREAM_WINDOW_BYTES
    data = framed(message)
    wire.take()
    for at in range(0, len(data), h2.MAX_FRAME_BYTES):
        piece = data[at : at + h2.MAX_FRAME_BYTES]
        window -= len(piece)
        assert window >= 0
        wire.data(1, piece)
        window += sum(h2.U32.unpack(each.payload)[0] for each in wire.take() if each.stream == 1)
    assert heard.messages == [message]


def test_messages_that_nobody_takes_hold_the_server_back() -> None:
    wire = Wire()
    call, heard = wire.open(holds=True, ends=False)
    wire.head(1)
    wire.take()
    message, count = bytes(16_000), STREAM_WINDOW_BYTES // 16_005
    for _ in range(count):
        wire.data(1, framed(message))
    assert wire.take() == []
    for _ in range(count // 2 + 2):
        wire.machine.taken(call, message)
    [given] = wire.take()
    assert (given.kind, given.stream) == (h2.WINDOW_UPDATE, 1)
    assert STREAM_WINDOW_BYTES // 2 <= h2.U32.unpack(given.payload)[0] <= (count // 2 + 2) * 16_005
    assert len(heard.messages) == count


def test_the_connections_window_is_given_back_for_calls_that_are_gone_too() -> None:
    wire = Wire()
    call, _ = wire.open()
    wire.machine.cancel(call)
    wire.take()
    piece = frame(h2.DATA, 0, 1, bytes(h2.MAX_FRAME_BYTES))
    for _ in range(GIVE_BACK_BYTES // h2.MAX_FRAME_BYTES):
        wire.machine.receive(piece)
    assert wire.take() == [Frame(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(GIVE_BACK_BYTES))]


# GOAWAY and the end


def test_goaway_refuses_what_is_above_and_lets_the_rest_finish() -> None:
    wire = Wire()
    _, below = wire.open()
    _, above = wire.open()
    wire.goaway(h2.WINDOW_MAX)  # as grpc-go: first it says that an end is near ...
    assert wire.machine.is_draining
    assert (below.endings, above.endings) == ([], [])
    wire.goaway(1, h2.NO_ERROR, b"max_age")  # ... and then which was the last
    assert above.ending == Ending(
        Status.UNAVAILABLE, "the server ended the connection: max_age", Fate.REFUSED
    )
    assert wire.machine.is_busy
    wire.machine.receive(ANSWER + END)
    assert (below.messages, below.ending.status) == ([b"answer"], Status.OK)
    assert not wire.machine.is_busy


def test_what_goaway_let_live_is_in_doubt_when_the_connection_breaks() -> None:
    wire = Wire()
    _, heard = wire.open()
    wire.goaway(1, h2.ENHANCE_YOUR_CALM, b"too_many_pings")
    assert wire.machine.too_many_pings
    wire.machine.lost("Connection reset by peer")
    text = "the server ended the connection: too_many_pings"
    assert heard.ending == Ending(Status.UNAVAILABLE, text, Fate.SENT)


def test_a_lost_connection_ends_every_call_once() -> None:
    wire = Wire()
    heards = [wire.open()[1] for _ in range(3)]
    wire.machine.lost("Connection reset by peer")
    wire.machine.lost("twice")
    assert {each.ending for each in heards} == {Ending(Status.UNAVAILABLE, "Connection reset by peer")}


def test_pings_are_answered() -> None:
    wire = Wire()
    wire.send(h2.PING, 0, 0, b"12345678")
    wire.send(h2.PING, h2.ACK, 0, b"87654321")
    assert wire.take() == [Frame(h2.PING, h2.ACK, 0, b"12345678")]


# Servers against the rules


def settings_of(payload: bytes) -> bytes:
    return frame(h2.SETTINGS, 0, 0, payload)


@pytest.mark.parametrize(
    ("said", "code", "text"),
    [
        (frame(h2.DATA, 0, 3, b"x"), h2.PROTOCOL_ERROR, "stream 3, which was never opened"),
        (frame(h2.HEADERS, h2.END_HEADERS, 2, HEAD), h2.PROTOCOL_ERROR, "stream 2, which was never opened"),
        (frame(h2.DATA, 0, 0, b"x"), h2.PROTOCOL_ERROR, "stream 0"),
        (frame(h2.RST_STREAM, 0, 9, bytes(4)), h2.PROTOCOL_ERROR, "stream 9"),
        (frame(h2.RST_STREAM, 0, 1, bytes(3)), h2.FRAME_SIZE_ERROR, "3 bytes where 4 belong"),
        (frame(h2.PING, 0, 0, b"short"), h2.FRAME_SIZE_ERROR, "5 bytes where 8 belong"),
        (frame(h2.PING, 0, 1, bytes(8)), h2.PROTOCOL_ERROR, "wrong stream"),
        (frame(h2.PUSH_PROMISE, 0, 1, bytes(8)), h2.PROTOCOL_ERROR, "push"),
        (frame(h2.SETTINGS, 0, 1), h2.FRAME_SIZE_ERROR, "SETTINGS"),
        (frame(h2.SETTINGS, 0, 0, b"12345"), h2.FRAME_SIZE_ERROR, "SETTINGS"),
        (settings_of(setting(h2.INITIAL_WINDOW_SIZE, 1 << 31)), h2.FLOW_CONTROL_ERROR, "initial window"),
        (settings_of(setting(h2.MAX_FRAME_SIZE, 100)), h2.PROTOCOL_ERROR, "frames of at most 100"),
        (frame(h2.WINDOW_UPDATE, 0, 0, bytes(4)), h2.PROTOCOL_ERROR, "window"),
        (frame(h2.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), h2.FLOW_CONTROL_ERROR, "window"),
        (frame(h2.GOAWAY, 0, 0, bytes(7)), h2.PROTOCOL_ERROR, "GOAWAY"),
        (h2.FRAME.pack(0x7F, 0xFF, h2.DATA, 0, 1), h2.FRAME_SIZE_ERROR, "a frame of 32767 bytes"),
        (frame(h2.CONTINUATION, 0, 1, b"x"), h2.PROTOCOL_ERROR, "CONTINUATION of nothing"),
        (frame(h2.HEADERS, 0, 1, HEAD) + frame(h2.PING, 0, 0, bytes(8)), h2.PROTOCOL_ERROR, "interrupted"),
        (
            frame(h2.HEADERS, 0, 1) + frame(h2.CONTINUATION, 0, 1, bytes(16_384)) * 5,
            h2.ENHANCE_YOUR_CALM,
            "block",
        ),
        (frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff\xff\xff"), h2.COMPRESSION_ERROR, "decoded"),
        (frame(h2.HEADERS, h2.END_HEADERS, 1, literal(":status", "abc")), h2.PROTOCOL_ERROR, ":status"),
        (frame(h2.HEADERS, h2.END_HEADERS | h2.PRIORITY_FLAG, 1, b"x"), h2.FRAME_SIZE_ERROR, "priority"),
        (frame(h2.DATA, h2.PADDED, 1, b"\x05abc"), h2.PROTOCOL_ERROR, "padding"),
    ],
)
def test_a_server_against_the_rules_ends_the_connection_with_a_clear_error(
    said: bytes, code: int, text: str
) -> None:
    wire = Wire()
    _, heard = wire.open()
    wire.take()
    with pytest.raises(ConnectionFault) as fault:
        wire.machine.receive(said)
    assert fault.value.code == code
    assert text in fault.value.reason
    wire.machine.fail(fault.value)
    [goaway] = [each for each in wire.take() if each.kind == h2.GOAWAY]
    assert goaway.payload[4:8] == h2.U32.pack(code)
    assert heard.ending.text == f"the server broke HTTP/2: {fault.value.reason}"


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n", b"\x15\x03\x03\x00\x02\x02\x28..", b"SSH-2.0-x\r\n"]
)
def test_first_bytes_that_are_no_http2(said: bytes) -> None:
    with pytest.raises(ConnectionFault, match="its first bytes are no HTTP/2"):
        Wire(None).machine.receive(said)


def test_more_than_the_window_of_a_stream() -> None:
    wire = Wire()
    wire.open(holds=True)
    wire.head(1)
    with pytest.raises(ConnectionFault, match="window of stream 1"):
        wire.data(1, framed(b"x" * 16_000) * 300)


def test_settings_that_lift_a_window_beyond_all_bounds() -> None:
    wire = Wire()
    wire.open()
    wire.window(1, h2.WINDOW_MAX - 70_000)
    with pytest.raises(ConnectionFault, match="a window beyond all bounds") as fault:
        wire.send(h2.SETTINGS, 0, 0, setting(h2.INITIAL_WINDOW_SIZE, 200_000))
    assert fault.value.code == h2.FLOW_CONTROL_ERROR


def test_a_server_that_asks_and_reads_nothing() -> None:
    wire = Wire()
    wire.machine.socket_full()
    with pytest.raises(ConnectionFault, match="does not read"):
        wire.machine.receive(frame(h2.PING, 0, 0, bytes(8)) * (ACKS_UNWRITTEN_MAX + 1))


KINDS = st.one_of(st.integers(0, 9), st.just(77))
FRAMES = st.lists(
    st.builds(
        frame,
        KINDS,
        st.integers(0, 255),
        st.sampled_from([0, 1, 2, 3, 5, 7]),
        st.one_of(
            st.binary(max_size=40), st.sampled_from([HEAD, TRAILERS, framed(b"x"), bytes(4), bytes(8)])
        ),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=300)
@given(FRAMES, st.binary(max_size=30), st.integers(1, 40))
def test_whatever_a_server_says_calls_end_once_and_nothing_but_a_fault_comes_out(
    frames: list[bytes], garbage: bytes, size: int
) -> None:
    wire = Wire()
    heards = [wire.open(ends=ends, holds=not ends)[1] for ends in (True, False, True)]
    said = b"".join(frames) + garbage
    try:
        for at in range(0, len(said), size):
            wire.machine.receive(said[at : at + size])
    except ConnectionFault as fault:
        wire.machine.fail(fault)
    wire.machine.lost("the end")
    assert all(len(each.endings) == 1 for each in heards)
    assert not wire.machine.is_busy
    wire.take()


# Both ends, back to back


def head(path: str) -> bytes:
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "t"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    return b"".join(literal(name, value) for name, value in fields.items())


def carry(client: Http2, server: Peer) -> None:
    """Until neither has anything to say."""
    while True:
        data = b"".join(client.output)
        client.output.clear()
        if data:
            server.feed(data)
        back = b"".join(server.connection.take_output())
        if back:
            client.receive(back)
        if not data and not back:
            return


def test_with_our_own_server() -> None:
    """Messages far beyond every window that either side begins with."""
    limits = Limits(max_message_bytes=12 << 20, connection_window_bytes=1 << 20, stream_window_bytes=1 << 18)
    client, server = Http2(12 << 20), Peer(limits, greet=False)
    client.receive(h2.frame(h2.SETTINGS, 0, 0))
    for each in server.greeting:
        client.receive(frame(each.kind, each.flags, each.stream, each.payload))
    one, other = Heard(), Heard()
    large = bytes(range(256)) * (10 << 12)
    client.open(head(ECHO), one, message=large, ends=True)
    call = client.open(head(CHAT), other, message=b"first", holds=True)
    carry(client, server)
    assert (one.messages, one.ending.status) == ([large], Status.OK)
    client.send(call, large)
    client.send(call, b"", ends=True)
    carry(client, server)
    while len(other.messages) < 3:
        client.taken(call, other.messages[-1])
        carry(client, server)
    assert other.messages == [b"first", large, b""]
    assert other.ending.status is Status.OK
    assert not client.is_busy
