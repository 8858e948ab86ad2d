"""kvstore/wire/connection.py: calls, windows, ends, and every rule of RFC 9113 it holds its peer to."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest

from kvstore.rpc import Status
from kvstore.wire import frames as h2
from kvstore.wire.frames import ConnectionFault
from kvstore.wire.limits import Limits
from tests.unit.wire.peer import CHAT, ECHO, HOLD, Action, Frame, Peer, framed


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
    ("path", "extra", "status"),
    [
        ("/test.Test/Nothing", {}, "12"),
        (ECHO, {"grpc_encoding": "zstd"}, "12"),
        (ECHO, {"grpc_timeout": "soon"}, None),
    ],
)
def test_refused_before_the_service_sees_it(path: str, extra: dict[str, str], status: str | None) -> None:
    peer = Peer()
    peer.call(1, b"x", path, **extra)
    data, headers = peer.replies()[1]
    assert (data == b"" and headers.get("grpc-status") == status) or status is None
    peer.call(3, b"y")
    assert peer.replies()[3][0] == framed(b"y")  # the connection goes on


def test_gzip_and_what_claims_to_be() -> None:
    peer = Peer(Limits(max_message_bytes=1000))
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(b"z" * 900) + packer.flush()
    peer.open(1, ECHO, grpc_encoding="gzip")
    peer.send(h2.DATA, h2.END_STREAM, 1, framed(packed, 1))
    assert peer.replies()[1][0] == framed(b"z" * 900)
    packer = zlib.compressobj(wbits=31)
    bomb = packer.compress(b"z" * 10_000_000) + packer.flush()
    peer.open(3, ECHO, grpc_encoding="gzip")
    peer.send(h2.DATA, h2.END_STREAM, 3, framed(bomb[:900] if len(bomb) > 900 else bomb, 1))
    assert peer.replies()[3][1]["grpc-status"] in ("8", "13")
    peer.open(5)
    peer.send(h2.DATA, h2.END_STREAM, 5, framed(b"x", 1))
    assert peer.replies()[5][1]["grpc-status"] == "13"


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


def test_a_full_socket_stops_streams() -> None:
    peer = Peer()
    peer.open(1, CHAT)
    peer.connection.socket_full()
    peer.send(h2.DATA, 0, 1, framed(b"s"))
    assert all(frame.kind != h2.DATA for frame in peer.take())
    peer.connection.socket_ready()
    assert [frame.payload for frame in peer.take() if frame.kind == h2.DATA] == [framed(b"s")]


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
