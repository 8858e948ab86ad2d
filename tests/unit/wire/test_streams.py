"""kvstore/wire/streams.py: a call as its service sees it, before and after its end (kvstore/rpc.py)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvstore.rpc import Status, StreamCall, UnaryCall
from kvstore.wire import frames as h2
from tests.unit.wire.peer import CHAT, HOLD, Peer, framed


def held(peer: Peer, **extra: str) -> UnaryCall:
    peer.call(1, b"x", HOLD, **extra)
    return peer.service.held[-1][0]


def chat(peer: Peer, **extra: str) -> StreamCall:
    peer.open(1, CHAT, **extra)
    return peer.service.chats[-1].call


@pytest.mark.parametrize("made", [held, chat])
def test_metadata_and_deadline(made: Callable[..., UnaryCall | StreamCall]) -> None:
    call = made(peer := Peer(), note="n", grpc_timeout="1500m")
    assert call.metadata["note"] == "n"
    assert call.deadline == pytest.approx(peer.now + 1.5)
    assert made(Peer()).deadline is None


END: dict[str, Callable[[Peer, UnaryCall | StreamCall], None]] = {
    "reset": lambda peer, call: peer.send(h2.RST_STREAM, 0, 1, h2.U32.pack(h2.CANCEL)),
    "deadline": lambda peer, call: peer.connection.check_deadlines(peer.now + 1),
    "lost": lambda peer, call: peer.connection.lost(),
}


@pytest.mark.parametrize("end", END.values(), ids=END)
def test_a_unary_call_that_has_ended_takes_anything_and_does_nothing(
    end: Callable[[Peer, UnaryCall | StreamCall], None],
) -> None:
    peer = Peer()
    call = held(peer, grpc_timeout="1S")
    assert not call.cancelled
    end(peer, call)
    peer.take()
    assert call.cancelled
    call.reply(b"late")
    call.fail(Status.ABORTED, "later")
    assert peer.take() == []


@pytest.mark.parametrize("end", END.values(), ids=END)
def test_a_stream_that_has_ended_takes_anything_and_does_nothing(
    end: Callable[[Peer, UnaryCall | StreamCall], None],
) -> None:
    peer = Peer()
    call = chat(peer, grpc_timeout="1S")
    end(peer, call)
    peer.take()
    assert call.cancelled and peer.service.ends == ["cancelled"]
    call.send(b"late")
    call.finish(Status.ABORTED, "later")
    assert peer.take() == []
    assert call.buffered_bytes == 0


def test_nothing_follows_finish() -> None:
    """Not even where the trailers still wait behind messages that no window has taken."""
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 0))
    call = chat(peer)
    call.send(b"first")
    call.finish(Status.ABORTED, "the end")
    call.send(b"second")
    call.finish(Status.OK, "")
    assert not call.cancelled
    peer.take()
    peer.send(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(100))
    data, headers = peer.replies()[1]
    assert (data, headers["grpc-status"], headers["grpc-message"]) == (framed(b"first"), "10", "the end")
    assert call.cancelled and peer.service.ends == []


def test_a_stream_answers_before_it_has_messages_or_after_its_client_has_ended() -> None:
    peer = Peer()
    call = chat(peer)
    call.send(b"unasked")
    assert [frame.kind for frame in peer.take()] == [h2.HEADERS, h2.DATA]
    call.finish()
    trailers, reset = peer.take()  # the client has not ended its half: it need not go on
    assert trailers.flags & h2.END_STREAM
    assert (reset.kind, reset.payload) == (h2.RST_STREAM, h2.U32.pack(h2.NO_ERROR))
    peer.send(h2.DATA, 0, 1, framed(b"was under way"))
    assert peer.take() == []


def test_trailers_only_where_a_stream_fails_before_it_says_anything() -> None:
    peer = Peer()
    chat(peer).finish(Status.PERMISSION_DENIED, "no")
    (head, _) = peer.take()
    assert head.flags == h2.END_HEADERS | h2.END_STREAM
    assert (
        peer.headers_of(head).items() >= {":status": "200", "grpc-status": "7", "grpc-message": "no"}.items()
    )


def test_buffered_bytes_count_down_with_the_window() -> None:
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 10))
    call = chat(peer)
    call.send(b"a" * 15)
    call.send(b"b" * 5)
    seen = [call.buffered_bytes]
    for more in (1, 9, 9):
        peer.send(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(more))
        seen.append(call.buffered_bytes)
    assert seen == [20, 19, 10, 1]
    assert peer.service.ends == []
    peer.send(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(1))
    assert (call.buffered_bytes, peer.service.ends) == (0, ["drained"])
    data, _ = peer.replies()[1]
    assert data == framed(b"a" * 15) + framed(b"b" * 5)


def test_what_drained_sends_goes_out_and_waits_again() -> None:
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 10))
    call = chat(peer)
    peer.service.chats[0].on_drain = lambda: call.send(b"more")
    call.send(b"a" * 10)
    for _ in range(3):
        peer.send(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(8))
    assert peer.service.ends.count("drained") == 3
    data, _ = peer.replies()[1]
    assert (framed(b"a" * 10) + framed(b"more") * 3).startswith(data)
    assert len(data) == 10 + 3 * 8
