"""kvstore/wire/connection.py: calls, windows, ends. Its rules are in test_rules.py, its bounds in test_costs.py."""

from __future__ import annotations

import gzip

import pytest

from kvstore.rpc import Status
from kvstore.wire import frames as h2
from kvstore.wire.frames import ConnectionFault
from kvstore.wire.limits import Limits
from tests.unit.wire.peer import CHAT, ECHO, HOLD, Frame, Peer, framed


def settings_of(frame: Frame) -> dict[int, int]:
    return dict(h2.SETTING.iter_unpack(frame.payload))


def kinds(frames: list[Frame]) -> list[int]:
    return [frame.kind for frame in frames]


def test_the_greeting_says_the_limits() -> None:
    limits = Limits(max_concurrent_streams=7, stream_window_bytes=70_000, header_list_bytes=9_000)
    settings, window = Peer(limits, greet=False).greeting
    assert settings_of(settings) == {
        h2.MAX_CONCURRENT_STREAMS: 7,
        h2.INITIAL_WINDOW_SIZE: 70_000,
        h2.MAX_HEADER_LIST_SIZE: 9_000,
    }
    assert h2.U32.unpack(window.payload)[0] == limits.connection_window_bytes - h2.DEFAULT_WINDOW


def test_settings_and_pings_are_answered() -> None:
    peer = Peer(greet=False)
    peer.feed(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0, h2.SETTING.pack(99, 1)))
    peer.send(h2.PING, 0, 0, b"12345678")
    assert peer.take() == [Frame(h2.SETTINGS, h2.ACK, 0, b""), Frame(h2.PING, h2.ACK, 0, b"12345678")]
    peer.send(h2.SETTINGS, h2.ACK, 0)
    peer.send(h2.PING, h2.ACK, 0, b"12345678")
    assert peer.take() == []


def test_a_unary_call() -> None:
    peer = Peer()
    peer.call(1, b"hello")
    ((data, headers),) = peer.replies().values()
    assert data == framed(b"hello")
    assert headers == {":status": "200", "content-type": "application/grpc", "grpc-status": "0"}
    assert peer.connection.is_idle


def test_a_conversation_cut_anywhere_is_the_same() -> None:
    """Frames, prefix and message, header block and preface: none has to arrive whole."""
    whole = Peer(greet=False)
    script = h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0)
    script += h2.frame(h2.HEADERS, h2.END_HEADERS, 1, whole.head())
    script += h2.frame(h2.DATA, 0, 1, framed(b"hello")[:3]) + h2.frame(
        h2.DATA, h2.END_STREAM, 1, framed(b"hello")[3:]
    )
    whole.feed(script)
    expected = whole.take()
    for cut in range(1, len(script)):
        peer = Peer(greet=False)
        peer.feed(script[:cut])
        peer.feed(script[cut:])
        assert peer.take() == expected, cut


def test_a_header_block_in_pieces_and_padding() -> None:
    peer = Peer()
    block = peer.head()
    peer.send(h2.HEADERS, h2.PADDED | h2.PRIORITY_FLAG, 1, b"\x03" + b"\0" * 5 + block[:4] + b"\0" * 3)
    peer.send(h2.CONTINUATION, 0, 1, block[4:9])
    peer.send(h2.CONTINUATION, h2.END_HEADERS, 1, block[9:])
    peer.send(h2.DATA, h2.END_STREAM | h2.PADDED, 1, b"\x02" + framed(b"x") + b"\0\0")
    assert peer.replies()[1][0] == framed(b"x")


def test_repeated_and_changing_header_blocks() -> None:
    """The head cache must not outlive a change of the dynamic table."""
    peer = Peer()
    for number in range(1, 60, 2):
        extra = {"note": f"n{number}"} if number % 3 else {}
        peer.call(number, b"%d" % number, HOLD, **extra)
        call, data = peer.service.held[-1]
        assert data == b"%d" % number
        assert call.metadata.get("note") == extra.get("note")


def test_failures_are_trailers_with_percent_encoding() -> None:
    peer = Peer()
    peer.call(1, b"", HOLD)
    call, _ = peer.service.held[0]
    call.fail(Status.NOT_FOUND, "no such thing: ü %")
    data, headers = peer.replies()[1]
    assert data == b""
    assert headers["grpc-status"] == "5"
    assert headers["grpc-message"] == "no such thing: %C3%BC %25"


@pytest.mark.parametrize(
    ("path", "extra", "status", "message"),
    [
        ("/test.Test/Nothing", {}, "12", "unknown method Nothing for service test.Test"),
        ("/other.Test/Echo", {}, "12", "unknown service other.Test"),
        ("nothing", {}, "12", 'malformed method name: "nothing"'),
        (ECHO, {"grpc_encoding": "zstd"}, "12", "Decompressor is not installed"),
        (ECHO, {"grpc_timeout": "soon"}, "13", "malformed grpc-timeout"),
    ],
)
def test_refused_before_the_service_sees_it(
    path: str, extra: dict[str, str], status: str, message: str
) -> None:
    peer = Peer()
    peer.open(1, path, **extra)
    head, end = peer.take()
    headers = peer.headers_of(head)
    assert head.flags == h2.END_HEADERS | h2.END_STREAM  # trailers only
    assert (headers["grpc-status"], headers[":status"]) == (status, "200")
    assert message in headers["grpc-message"]
    assert end == Frame(h2.RST_STREAM, 0, 1, h2.U32.pack(h2.NO_ERROR))  # the client need not send the rest
    peer.send(h2.DATA, h2.END_STREAM, 1, framed(b"x"))  # but it may have been under way
    peer.call(3, b"y")
    assert peer.replies()[3][0] == framed(b"y")  # the connection goes on
    peer.send(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 5, peer.head(path, **extra))
    assert len(peer.take()) == 1  # nothing more would come: nothing to reset


def test_gzip_and_what_claims_to_be() -> None:
    peer = Peer(Limits(max_message_bytes=20_000))
    for number, (data, compressed, status) in enumerate(
        [
            (gzip.compress(b"z" * 900), 1, "0"),
            (b"z" * 900, 0, "0"),  # the encoding is an offer: each message says for itself
            (gzip.compress(b"z" * 10_000_000), 1, "8"),  # 10 MB out of 10 KB
            (b"not gzip", 1, "13"),
            (gzip.compress(b"z" * 900)[:-1], 1, "13"),
        ]
    ):
        peer.open(2 * number + 1, ECHO, grpc_encoding="gzip")
        peer.send(h2.DATA, h2.END_STREAM, 2 * number + 1, framed(data, compressed))
        reply, headers = peer.replies()[2 * number + 1]
        assert headers["grpc-status"] == status
        assert reply == (framed(b"z" * 900) if status == "0" else b"")
    peer.open(11)
    peer.send(h2.DATA, h2.END_STREAM, 11, framed(b"x", 1))
    assert peer.replies()[11][1]["grpc-status"] == "13"  # compressed without an encoding


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"", "13"),  # no message
        (framed(b"a") + framed(b"b"), "13"),  # two
        (framed(b"abc")[:-1], "13"),  # not all of one
        (b"\0\xff\xff\xff\xff", "8"),  # one that is too large
    ],
)
def test_a_unary_call_has_one_whole_message(payload: bytes, status: str) -> None:
    peer = Peer()
    peer.open(1)
    peer.send(h2.DATA, h2.END_STREAM, 1, payload)
    assert peer.replies()[1][1]["grpc-status"] == status
    peer.call(3, b"next")
    assert peer.replies()[3][0] == framed(b"next")


# Windows


def test_a_reply_waits_for_the_streams_window_and_for_the_connections() -> None:
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 10))
    peer.call(1, b"a" * 100)
    frames = [frame for frame in peer.take() if frame.kind == h2.DATA]
    assert b"".join(frame.payload for frame in frames) == framed(b"a" * 100)[:10]
    peer.send(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(50))
    assert len(peer.replies()[1][0]) == 50
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 5))  # below zero by five
    assert 1 not in peer.replies()
    peer.send(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(5))
    assert 1 not in peer.replies()
    peer.send(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(1000))
    data, headers = peer.replies()[1]
    assert len(data) == 45 and headers["grpc-status"] == "0"
    large = b"b" * 200_000
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 1 << 20))
    peer.take()
    peer.call(3, large)
    sent = len(peer.replies()[3][0])
    assert sent == h2.DEFAULT_WINDOW - 105
    peer.send(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(1 << 20))
    assert sent + len(peer.replies()[3][0]) == len(framed(large))


def test_frames_are_no_larger_than_the_peer_allows() -> None:
    peer = Peer()
    peer.send(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(1 << 20))
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 1 << 20))
    peer.take()
    peer.call(1, b"x" * 100_000)
    assert max(len(frame.payload) for frame in peer.take()) == h2.MAX_FRAME_BYTES


def test_a_reader_that_is_slow_holds_back_its_stream_alone() -> None:
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 100))
    peer.open(1, CHAT)
    peer.send(h2.DATA, 0, 1, framed(b"q" * 300))
    chat = peer.service.chats[0]
    assert chat.call.buffered_bytes == 205
    peer.take()
    peer.call(3, b"quick")
    assert peer.replies()[3][0] == framed(b"quick")
    peer.send(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(1000))
    assert chat.call.buffered_bytes == 0
    assert peer.service.ends == ["drained"]


def test_what_is_read_is_given_back_as_window() -> None:
    peer = Peer(Limits(stream_window_bytes=1000))
    peer.open(1, CHAT)
    peer.send(h2.DATA, 0, 1, framed(b"r" * 600))
    updates = [frame for frame in peer.take() if frame.kind == h2.WINDOW_UPDATE]
    assert [(frame.stream, h2.U32.unpack(frame.payload)[0]) for frame in updates] == [(1, 605)]
    for _ in range(70):
        peer.send(h2.DATA, 0, 1, framed(b"r" * 495))
    total = 70 * 500 + 605
    given = sum(
        h2.U32.unpack(f.payload)[0] for f in peer.take() if f.kind == h2.WINDOW_UPDATE and f.stream == 1
    )
    assert total - 605 - given <= 500


def test_a_unary_request_may_be_larger_than_the_streams_window() -> None:
    """--max-request-bytes may be set above it: the window must go on while the message comes in."""
    peer = Peer(Limits(stream_window_bytes=100_000, max_message_bytes=1_000_000))
    peer.open(1)
    data, window = framed(b"u" * 700_000), 100_000
    while data:
        piece, data = data[: min(window, h2.MAX_FRAME_BYTES)], data[min(window, h2.MAX_FRAME_BYTES) :]
        assert piece, "the window was never opened again"
        peer.send(h2.DATA, 0 if data else h2.END_STREAM, 1, piece)
        window -= len(piece)
        if data:
            updates = [frame for frame in peer.take() if frame.kind == h2.WINDOW_UPDATE and frame.stream == 1]
            window += sum(h2.U32.unpack(frame.payload)[0] for frame in updates)
    peer.connection.check_deadlines(peer.now)
    assert len(peer.replies()[1][0]) == h2.DEFAULT_WINDOW  # all the connection's window lets out


def test_a_connections_window_is_given_back_by_the_mebibyte() -> None:
    """Padding, and DATA of streams that are closed by now, use it up as well."""
    peer = Peer()
    peer.call(1, b"closed by its answer")
    peer.take()
    for _ in range(150):
        peer.send(h2.DATA, h2.PADDED, 1, b"\xff" + b"d" * 9_999)
    update = Frame(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(25 + 105 * 10_000))
    assert peer.take() == [update]


def test_frames_grow_with_what_the_peer_allows() -> None:
    peer = Peer()
    settings = h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 1 << 20) + h2.SETTING.pack(h2.MAX_FRAME_SIZE, 20_000)
    peer.send(h2.SETTINGS, 0, 0, settings)
    peer.call(1, b"x" * 50_000)
    sizes = [len(frame.payload) for frame in peer.take() if frame.kind == h2.DATA]
    assert sizes == [20_000, 20_000, 10_005]


def test_streams_share_the_connections_window_in_the_order_they_came() -> None:
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 1 << 20))
    for number in (1, 3, 5):
        peer.call(number, b"%d" % number * 60_000)
    first = peer.replies()
    assert (len(first[1][0]), len(first[3][0])) == (60_005, h2.DEFAULT_WINDOW - 60_005)
    assert first[5][0] == b"" if 5 in first else True
    peer.send(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(60_000))
    second = peer.replies()
    assert len(first[3][0]) + len(second[3][0]) == 60_005 and second[3][1]["grpc-status"] == "0"
    assert len(second[5][0]) == 60_000 - len(second[3][0])
    peer.send(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(60_000))
    assert peer.replies()[5][1]["grpc-status"] == "0"


def test_a_stream_that_waits_for_its_own_window_goes_on_when_settings_widen_it() -> None:
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 0))
    peer.call(1, b"a" * 100)
    peer.call(3, b"b" * 100)
    assert all(data == b"" for data, _ in peer.replies().values())
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 50))
    assert {number: len(data) for number, (data, _) in peer.replies().items() if number} == {1: 50, 3: 50}
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 105))
    replies = peer.replies()
    assert [replies[number][1]["grpc-status"] for number in (1, 3)] == ["0", "0"]


def test_a_full_socket_stops_streams() -> None:
    peer = Peer()
    peer.open(1, CHAT)
    peer.connection.socket_full()
    peer.send(h2.DATA, 0, 1, framed(b"s"))
    assert all(frame.kind != h2.DATA for frame in peer.take())
    peer.connection.socket_ready()
    assert [frame.payload for frame in peer.take() if frame.kind == h2.DATA] == [framed(b"s")]
    assert peer.service.ends == ["drained"]


def test_a_full_socket_stops_unary_replies_and_keeps_their_order() -> None:
    peer = Peer()
    peer.connection.socket_full()
    for number in (1, 3, 5):
        peer.call(number, b"%d" % number)
    assert peer.replies()[1][0] == b""
    peer.connection.socket_ready()
    assert [frame.stream for frame in peer.take() if frame.kind == h2.DATA] == [1, 3, 5]
    assert peer.connection.is_idle


def test_output_outside_receive_is_announced_once_a_turn() -> None:
    """Within receive() the protocol looks for itself."""
    peer = Peer()
    for number in (1, 3, 5):
        peer.call(number, b"x", HOLD)
    assert peer.outputs == 0
    for call, _ in peer.service.held[:2]:
        call.reply(b"y")
    assert peer.outputs == 1
    peer.take()
    peer.service.held[2][0].fail(Status.ABORTED, "")
    assert peer.outputs == 2


# Ends


def test_a_stream_ends_with_its_client_and_with_its_reset() -> None:
    peer = Peer()
    peer.open(1, CHAT)
    peer.send(h2.DATA, 0, 1, framed(b"one"))
    peer.send(h2.DATA, h2.END_STREAM, 1)
    data, headers = peer.replies()[1]
    assert (data, headers["grpc-status"]) == (framed(b"one"), "0")
    peer.open(3, CHAT)
    peer.send(h2.RST_STREAM, 0, 3, h2.U32.pack(h2.CANCEL))
    assert peer.service.ends == ["half closed", "cancelled"]
    call = peer.service.chats[1].call
    assert call.cancelled
    peer.take()
    call.send(b"late")
    call.finish()
    assert peer.take() == []


def test_a_reset_unary_call_is_answered_into_nothing() -> None:
    peer = Peer()
    peer.call(1, b"x", HOLD)
    peer.send(h2.RST_STREAM, 0, 1, h2.U32.pack(h2.CANCEL))
    call, _ = peer.service.held[0]
    assert call.cancelled
    call.reply(b"late")
    assert peer.take() == []


def test_deadlines() -> None:
    peer = Peer()
    peer.call(1, b"x", HOLD, grpc_timeout="100m")
    peer.call(3, b"y", HOLD, grpc_timeout="2S")
    assert peer.connection.next_deadline == pytest.approx(100.1)
    peer.connection.check_deadlines(100.05)
    assert peer.take() == []
    peer.connection.check_deadlines(100.2)
    assert peer.replies()[1][1]["grpc-status"] == "4"
    assert peer.connection.next_deadline == pytest.approx(102.0)
    assert peer.service.held[0][0].cancelled


def test_the_next_deadline_is_the_earliest_that_is_left() -> None:
    peer = Peer()
    for number, seconds in enumerate((3, 1, 4, 2, 5)):
        peer.call(2 * number + 1, b"", HOLD, grpc_timeout=f"{seconds}S")
    for seconds in (1, 2, 3):
        assert peer.connection.next_deadline == peer.now + seconds
        peer.connection.check_deadlines(peer.now + seconds)
        peer.take()
    peer.connection.check_deadlines(peer.now + 9)
    assert peer.connection.next_deadline is None
    assert peer.connection.is_idle


def test_a_timeout_of_nothing_is_over_at_the_next_look() -> None:
    peer = Peer()
    peer.call(1, b"", HOLD, grpc_timeout="0S")
    assert peer.connection.next_deadline == peer.now
    peer.connection.check_deadlines(peer.now)
    assert peer.replies()[1][1]["grpc-status"] == "4"


def test_closing_lets_calls_finish_and_takes_no_new_ones() -> None:
    peer = Peer()
    peer.call(1, b"x", HOLD)
    peer.connection.begin_close()
    (goaway,) = peer.take()
    assert (goaway.kind, goaway.payload) == (h2.GOAWAY, h2.U32.pack(1) + h2.U32.pack(h2.NO_ERROR))
    peer.call(3, b"y")
    assert peer.take() == [Frame(h2.RST_STREAM, 0, 3, h2.U32.pack(h2.REFUSED_STREAM))]
    peer.service.held[0][0].reply(b"done")
    assert peer.replies()[1][0] == framed(b"done")
    assert peer.connection.is_idle


def test_more_streams_than_allowed_are_refused() -> None:
    peer = Peer(Limits(max_concurrent_streams=2))
    for number in (1, 3, 5):
        peer.call(number, b"x", HOLD)
    assert Frame(h2.RST_STREAM, 0, 5, h2.U32.pack(h2.REFUSED_STREAM)) in peer.take()
    peer.service.held[0][0].reply(b"")
    peer.call(7, b"x", HOLD)
    assert len(peer.service.held) == 3


def test_a_fault_within_a_message_ends_a_stream_that_waits_for_its_window() -> None:
    """What is queued goes, the status arrives, and nothing of the stream stays behind."""
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 10))
    peer.open(1, CHAT)
    peer.send(h2.DATA, 0, 1, framed(b"q" * 300))
    peer.take()
    peer.send(h2.DATA, 0, 1, b"\0\xff\xff\xff\xff")
    assert peer.replies()[1][1]["grpc-status"] == "8"
    assert peer.service.ends == ["cancelled"]
    assert peer.service.chats[0].call.buffered_bytes == 0
    assert peer.connection.is_idle


def test_a_deadline_ends_a_stream_that_waits_for_its_window() -> None:
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 10))
    peer.open(1, CHAT, grpc_timeout="1S")
    peer.send(h2.DATA, 0, 1, framed(b"q" * 300))
    peer.take()
    peer.connection.check_deadlines(peer.now + 1)
    trailers, reset = peer.take()
    assert peer.headers_of(trailers)["grpc-status"] == "4"
    assert reset == Frame(h2.RST_STREAM, 0, 1, h2.U32.pack(h2.NO_ERROR))
    assert (peer.service.ends, peer.connection.is_idle) == (["cancelled"], True)


def test_a_reply_that_waits_is_overtaken_by_its_deadline() -> None:
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 10))
    peer.call(1, b"r" * 100, grpc_timeout="1S")
    peer.take()
    peer.connection.check_deadlines(peer.now + 1)
    assert peer.replies()[1][1]["grpc-status"] == "4"
    peer.send(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(1000))
    assert peer.take() == []
    assert peer.connection.is_idle


@pytest.mark.parametrize("end", ["reset", "deadline", "lost", "fault"])
def test_a_service_that_has_finished_is_not_told_of_the_end(end: str) -> None:
    """Its trailers wait behind a window. rpc.StreamHandler: cancelled() does not follow finish()."""
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 10))
    peer.open(1, CHAT, grpc_timeout="1S")
    peer.send(h2.DATA, 0, 1, framed(b"q" * 300))
    peer.service.chats[0].call.finish()
    if end == "reset":
        peer.send(h2.RST_STREAM, 0, 1, h2.U32.pack(h2.CANCEL))
    elif end == "deadline":
        peer.connection.check_deadlines(peer.now + 1)
    elif end == "lost":
        peer.connection.lost()
    else:
        peer.send(h2.DATA, 0, 1, b"\0\xff\xff\xff\xff")
    assert peer.service.ends == []
    assert peer.connection.is_idle


@pytest.mark.parametrize("end", ["deadline", "lost"])
def test_streams_whose_ends_end_each_other_end_once(end: str) -> None:
    """A service may hold several calls of one connection and finish them together."""
    peer = Peer()
    for number in (1, 3):
        peer.open(number, CHAT, grpc_timeout="1S")
    first, second = peer.service.chats
    first.on_cancel = second.call.finish
    second.on_cancel = first.call.finish
    if end == "deadline":
        peer.connection.check_deadlines(peer.now + 1)
    else:
        peer.connection.lost()
    trailers = [frame.stream for frame in peer.take() if frame.kind == h2.HEADERS]
    assert len(trailers) == len(set(trailers))
    assert peer.service.ends == ["cancelled"]
    assert peer.connection.is_idle


def test_a_bound_hit_while_a_connection_ends_cancels_nobody_twice() -> None:
    """The first call's end makes a third one send more than may wait."""
    peer = Peer(Limits(queued_bytes=1000))
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 0))
    for number in (1, 3, 5):
        peer.open(number, CHAT)
    chats = peer.service.chats
    chats[0].on_cancel = lambda: chats[2].call.send(b"x" * 2000)
    peer.connection.lost()
    assert peer.service.ends == ["cancelled"] * 3
    assert peer.connection.is_idle


def test_a_lost_connection_cancels_every_call_once() -> None:
    peer = Peer()
    peer.open(1, CHAT)
    peer.call(3, b"x", HOLD)
    peer.connection.lost()
    peer.connection.lost()
    assert peer.service.ends == ["cancelled"]
    assert peer.service.held[0][0].cancelled
    peer.service.held[0][0].fail(Status.UNAVAILABLE, "late")
    assert peer.take() == []


def test_requests_end_with_trailers_too() -> None:
    """8.1: a second header block with END_STREAM, as some clients send it."""
    peer = Peer()
    peer.open(1)
    peer.send(h2.DATA, 0, 1, framed(b"x"))
    peer.send(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, peer.encoder.encode([("note", "last")]))
    assert peer.replies()[1][0] == framed(b"x")


def test_a_unary_call_whose_head_is_its_end() -> None:
    peer = Peer()
    whole = h2.END_HEADERS | h2.END_STREAM
    peer.send(h2.HEADERS, whole, 1, peer.head(ECHO))
    assert peer.replies()[1][1]["grpc-status"] == "13"
    peer.send(h2.HEADERS, whole, 3, peer.head(CHAT))
    assert peer.service.ends == ["half closed"]
    assert peer.replies()[3][1]["grpc-status"] == "0"


def test_a_client_that_says_goodbye_gets_its_answers_and_no_more_streams() -> None:
    peer = Peer()
    peer.call(1, b"x", HOLD)
    peer.send(h2.GOAWAY, 0, 0, h2.U32.pack(0) + h2.U32.pack(h2.NO_ERROR))
    peer.call(3, b"y")
    assert peer.take() == [Frame(h2.RST_STREAM, 0, 3, h2.U32.pack(h2.REFUSED_STREAM))]
    peer.service.held[0][0].reply(b"done")
    assert peer.replies()[1][0] == framed(b"done")


def test_refused_streams_keep_hpack_in_step() -> None:
    """Their blocks change the table like any other's (4.3)."""
    peer = Peer(Limits(max_concurrent_streams=1))
    peer.call(1, b"x", HOLD)
    peer.call(3, b"x", HOLD, note="fresh")  # refused, and "note" is in the table now
    peer.service.held[0][0].reply(b"")
    peer.call(5, b"x", HOLD, note="fresh")
    assert peer.service.held[1][0].metadata["note"] == "fresh"


def test_the_servers_own_ping() -> None:
    peer = Peer()
    peer.connection.ping(b"12345678")
    assert peer.take() == [Frame(h2.PING, 0, 0, b"12345678")]
    peer.send(h2.PING, h2.ACK, 0, b"12345678")
    assert peer.take() == []


USUAL = h2.frame(h2.DATA, h2.END_STREAM, 5, framed(b"hello"))


@pytest.mark.parametrize(
    "second",
    [
        USUAL,
        h2.frame(h2.DATA, 0, 5, framed(b"hello")) + h2.frame(h2.DATA, h2.END_STREAM, 5, b""),
        h2.frame(h2.DATA, h2.END_STREAM | h2.PADDED, 5, b"\x02" + framed(b"x") + b"\0\0"),
        h2.frame(h2.DATA, h2.END_STREAM, 5, b"\x01" + framed(gzip.compress(b"x", mtime=0))[1:]),
        h2.frame(h2.DATA, h2.END_STREAM, 5, framed(b"hello")[:7]),
        h2.frame(h2.DATA, h2.END_STREAM, 5, framed(b"hello") + b"more"),
        h2.frame(h2.DATA, h2.END_STREAM, 5, b"\0\0"),
        h2.frame(h2.DATA, h2.END_STREAM, 7, framed(b"hello")),
        h2.frame(h2.RST_STREAM, 0, 5, h2.U32.pack(8)) + USUAL,
        h2.frame(h2.PING, 0, 0, b"12345678") + USUAL,
    ],
    ids=[
        *(
            "usual",
            "in two",
            "padded",
            "compressed",
            "cut off",
            "too long",
            "no prefix",
            "another's",
            "reset",
        ),
        "something between",
    ],
)
def test_a_call_that_comes_at_once_is_as_one_that_comes_in_pieces(second: bytes) -> None:
    """Head and request in one buffer take a shorter way when they are as usual, and only then."""
    at_once, in_pieces = Peer(), Peer()
    heard = []
    for peer in (at_once, in_pieces):
        for number in (1, 3):  # the first fills the table, from the second on the block is known
            peer.call(number, b"x")
        peer.take()
        assert len(peer.connection._heads.seen) == 1
        head = h2.frame(h2.HEADERS, h2.END_HEADERS, 5, peer.head())
        try:
            if peer is at_once:
                peer.feed(head + second)
            else:
                peer.feed(head)
                peer.feed(second)
            fault = ""
        except ConnectionFault as problem:
            fault = problem.reason
        heard.append((fault, peer.take(), peer.connection.is_idle))
    assert heard[0] == heard[1]


def test_a_known_head_with_another_number_or_too_many_streams_goes_the_long_way() -> None:
    peer = Peer(Limits(max_concurrent_streams=1))
    for number in (1, 3, 5):
        peer.call(number, b"x", HOLD)  # one stays open, the others are refused
    assert [(frame.kind, frame.stream) for frame in peer.take()] == [(h2.RST_STREAM, 3), (h2.RST_STREAM, 5)]
    with pytest.raises(ConnectionFault, match="odd streams"):
        peer.call(6, b"x", HOLD)
