"""Every rule of RFC 9113 a connection holds its peer to: bytes in, error code out."""

from __future__ import annotations

import pytest

from kvstore.wire import frames as h2
from kvstore.wire.frames import ConnectionFault
from kvstore.wire.limits import Limits
from tests.unit.wire.peer import CHAT, HOLD, Action, Peer

WINDOW_MAX = h2.U32.pack(h2.WINDOW_MAX)


def sends(kind: int, flags: int, stream: int, payload: bytes = b"") -> Action:
    return lambda peer: peer.send(kind, flags, stream, payload)


def settings(setting: int, value: int) -> Action:
    return sends(h2.SETTINGS, 0, 0, h2.SETTING.pack(setting, value))


def headers_twice(peer: Peer) -> None:
    peer.open(1, CHAT)
    peer.open(1, CHAT)


def headers_after_the_end(peer: Peer) -> None:
    peer.call(1, b"x", HOLD)
    peer.send(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, peer.head(HOLD))


def data_after_the_end(peer: Peer) -> None:
    peer.call(1, b"x", HOLD)
    peer.send(h2.DATA, 0, 1, b"x")


def data_beyond_the_window(peer: Peer) -> None:
    peer.open(1, HOLD)
    peer.send(h2.DATA, 0, 1, b"\0" * 1001)


def padding_beyond_the_window(peer: Peer) -> None:
    """Padding counts: 1,101 bytes arrive, of which 900 are a message's."""
    peer.open(1, HOLD)
    peer.send(h2.DATA, h2.PADDED, 1, b"\xc8" + b"\0" * 1100)


def data_beyond_the_connections_window(peer: Peer) -> None:
    """Over many streams, closed ones among them: each within its own window."""
    for number in range(1, 400, 2):
        peer.open(number, HOLD)
        peer.send(h2.RST_STREAM, 0, number, h2.U32.pack(h2.CANCEL))
        peer.send(h2.DATA, 0, number, b"\0" * 999)


def interrupted_by(kind: int, stream: int, payload: bytes) -> Action:
    def act(peer: Peer) -> None:
        peer.send(h2.HEADERS, 0, 1, peer.head()[:3])
        peer.send(kind, 0, stream, payload)

    return act


def stream_window_beyond(peer: Peer) -> None:
    peer.open(1, HOLD)
    peer.send(h2.WINDOW_UPDATE, 0, 1, WINDOW_MAX)


def stream_window_beyond_by_settings(peer: Peer) -> None:
    """6.9.2: the change reaches open streams, and one of them has been widened already."""
    peer.open(1, HOLD)
    peer.send(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(1000))
    settings(h2.INITIAL_WINDOW_SIZE, h2.WINDOW_MAX)(peer)


def window_of_nothing(peer: Peer) -> None:
    peer.open(1, HOLD)
    peer.send(h2.WINDOW_UPDATE, 0, 1, b"\0\0\0\0")


def a_lower_number(peer: Peer) -> None:
    peer.open(5)
    peer.open(4)


RULES: list[tuple[str, str, int, Action]] = [
    # section, what the fault says, its code, what the peer does
    ("4.2", "a frame of 16385 bytes", h2.FRAME_SIZE_ERROR, sends(h2.DATA, 0, 1, b"x" * 16_385)),
    ("4.3", "cannot be decoded", h2.COMPRESSION_ERROR, sends(h2.HEADERS, h2.END_HEADERS, 1, b"\xff" * 3)),
    ("4.3", "cannot be decoded", h2.COMPRESSION_ERROR, sends(h2.HEADERS, h2.END_HEADERS, 1, b"\x7e\0")),
    ("4.3", "interrupted", h2.PROTOCOL_ERROR, interrupted_by(h2.PING, 0, b"12345678")),
    ("4.3", "interrupted", h2.PROTOCOL_ERROR, interrupted_by(0xEE, 0, b"")),
    ("5.1", "DATA on idle stream 1", h2.PROTOCOL_ERROR, sends(h2.DATA, 0, 1, b"x")),
    ("5.1", "RST_STREAM on idle stream 1", h2.PROTOCOL_ERROR, sends(h2.RST_STREAM, 0, 1, b"\0\0\0\0")),
    ("5.1", "WINDOW_UPDATE on idle stream 1", h2.PROTOCOL_ERROR, sends(h2.WINDOW_UPDATE, 0, 1, b"\0\0\0\1")),
    ("5.1", "after the end of stream 1", h2.STREAM_CLOSED, data_after_the_end),
    ("5.1.1", "clients open odd streams, not 2", h2.PROTOCOL_ERROR, lambda peer: peer.open(2)),
    ("5.1.1", "clients open odd streams, not 0", h2.PROTOCOL_ERROR, lambda peer: peer.open(0)),
    ("5.1.1", "clients open odd streams, not 4", h2.PROTOCOL_ERROR, a_lower_number),
    ("6.1", "DATA on idle stream 0", h2.PROTOCOL_ERROR, sends(h2.DATA, 0, 0, b"x")),
    ("6.1", "padding is longer", h2.PROTOCOL_ERROR, sends(h2.DATA, h2.PADDED, 1, b"\x04abc")),
    ("6.2", "padding is longer", h2.PROTOCOL_ERROR, sends(h2.HEADERS, h2.PADDED, 1, b"\x09abc")),
    ("6.2", "padding is longer", h2.PROTOCOL_ERROR, sends(h2.HEADERS, h2.PADDED, 1)),
    (
        "6.2",
        "too short for its priority",
        h2.FRAME_SIZE_ERROR,
        sends(h2.HEADERS, h2.PRIORITY_FLAG, 1, b"abcd"),
    ),
    ("6.4", "RST_STREAM on idle stream 0", h2.PROTOCOL_ERROR, sends(h2.RST_STREAM, 0, 0, b"\0\0\0\0")),
    ("6.4", "RST_STREAM is four", h2.FRAME_SIZE_ERROR, sends(h2.RST_STREAM, 0, 1, b"\0")),
    ("6.5", "SETTINGS on a stream", h2.PROTOCOL_ERROR, sends(h2.SETTINGS, 0, 1)),
    ("6.5", "malformed SETTINGS", h2.FRAME_SIZE_ERROR, sends(h2.SETTINGS, 0, 0, b"\0")),
    ("6.5", "malformed SETTINGS", h2.FRAME_SIZE_ERROR, sends(h2.SETTINGS, h2.ACK, 0, b"\0" * 6)),
    ("6.5.2", "initial window out", h2.FLOW_CONTROL_ERROR, settings(h2.INITIAL_WINDOW_SIZE, 1 << 31)),
    ("6.5.2", "frame size out", h2.PROTOCOL_ERROR, settings(h2.MAX_FRAME_SIZE, 16_383)),
    ("6.5.2", "frame size out", h2.PROTOCOL_ERROR, settings(h2.MAX_FRAME_SIZE, 1 << 24)),
    ("6.6", "clients do not push", h2.PROTOCOL_ERROR, sends(h2.PUSH_PROMISE, 0, 1)),
    ("6.7", "PING is eight", h2.FRAME_SIZE_ERROR, sends(h2.PING, 0, 0, b"\0")),
    ("6.7", "PING on a stream", h2.PROTOCOL_ERROR, sends(h2.PING, 0, 1, b"12345678")),
    ("6.9", "WINDOW_UPDATE is four", h2.FRAME_SIZE_ERROR, sends(h2.WINDOW_UPDATE, 0, 0, b"\0")),
    ("6.9", "window update of nothing", h2.PROTOCOL_ERROR, sends(h2.WINDOW_UPDATE, 0, 0, b"\0\0\0\0")),
    ("6.9", "window update of nothing", h2.PROTOCOL_ERROR, window_of_nothing),
    ("6.9.1", "window update out", h2.FLOW_CONTROL_ERROR, sends(h2.WINDOW_UPDATE, 0, 0, WINDOW_MAX)),
    ("6.9.1", "window update out", h2.FLOW_CONTROL_ERROR, stream_window_beyond),
    ("6.9.1", "beyond the window of stream 1", h2.FLOW_CONTROL_ERROR, data_beyond_the_window),
    ("6.9.1", "beyond the window of stream 1", h2.FLOW_CONTROL_ERROR, padding_beyond_the_window),
    ("6.9.1", "beyond the connection's window", h2.FLOW_CONTROL_ERROR, data_beyond_the_connections_window),
    ("6.9.2", "window update out", h2.FLOW_CONTROL_ERROR, stream_window_beyond_by_settings),
    ("6.10", "CONTINUATION without", h2.PROTOCOL_ERROR, sends(h2.CONTINUATION, 0, 1)),
    ("6.10", "CONTINUATION without", h2.PROTOCOL_ERROR, interrupted_by(h2.CONTINUATION, 3, b"")),
    ("8.1", "in the middle of a stream", h2.PROTOCOL_ERROR, headers_twice),
    ("8.1", "in the middle of a stream", h2.PROTOCOL_ERROR, headers_after_the_end),
]


@pytest.mark.parametrize(
    ("reason", "code", "action"),
    [rule[1:] for rule in RULES],
    ids=[f"{at} {section} {reason}" for at, (section, reason, _, _) in enumerate(RULES)],
)
def test_what_ends_a_connection(reason: str, code: int, action: Action) -> None:
    peer = Peer(Limits(stream_window_bytes=1000, connection_window_bytes=100_000))
    with pytest.raises(ConnectionFault, match=reason) as fault:
        action(peer)
    assert fault.value.code == code
    peer.connection.fail(fault.value)
    goaway = peer.take()[-1]
    assert (goaway.kind, goaway.stream) == (h2.GOAWAY, 0)
    assert h2.U32.unpack_from(goaway.payload, 4)[0] == code
    assert peer.connection.is_idle


def test_bytes_that_are_no_http2() -> None:
    """3.4. The first byte that cannot belong to a preface is enough; a preface that may still become one is not."""
    for data in (b"\x16\x03\x01\x02\x00", b"hello", h2.PREFACE[:-1] + b"!", b"PRI * HTTP/1.1\r\n"):
        with pytest.raises(ConnectionFault, match="not HTTP/2") as fault:
            Peer(greet=False).feed(data)
        assert fault.value.code == h2.PROTOCOL_ERROR
    peer = Peer(greet=False)
    for byte in h2.PREFACE:
        assert not peer.connection.has_spoken
        peer.feed(bytes((byte,)))
    assert peer.connection.has_spoken


@pytest.mark.parametrize(
    "action",
    [
        sends(0xEE, 0xFF, 7, b"whatever"),  # 5.5: kinds this version does not know
        sends(h2.PRIORITY, 0, 9, b"\0" * 5),  # 5.3.2: deprecated, and allowed on an idle stream
        lambda peer: peer.feed(
            h2.frame(h2.PING, 0, 1 << 31, b"12345678")
        ),  # 4.1: the reserved bit is ignored
        settings(0xFF, 12),  # 6.5.2: settings it does not know
        settings(h2.MAX_FRAME_SIZE, 16_384),
        settings(h2.MAX_FRAME_SIZE, (1 << 24) - 1),
        settings(h2.INITIAL_WINDOW_SIZE, h2.WINDOW_MAX),
        sends(h2.DATA, 0, 1, b"late"),  # 5.1: a closed stream's frames may still be under way
        sends(h2.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"),
        sends(h2.RST_STREAM, 0, 1, b"\0\0\0\0"),
        sends(h2.WINDOW_UPDATE, 0, 0, b"\x80\0\0\1"),  # 6.9: the reserved bit is ignored
        sends(h2.DATA, h2.PADDED, 1, b"\x03abc"),  # nothing but padding
    ],
)
def test_what_does_not(action: Action) -> None:
    peer = Peer()
    peer.call(1, b"closed by its answer")
    peer.take()
    action(peer)
    peer.call(3, b"goes on")
    assert peer.replies()[3][1]["grpc-status"] == "0"
