"""kvstore/wire/frames.py: a frame's bytes, and padding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.wire import frames as h2
from kvstore.wire.frames import ConnectionFault


@pytest.mark.parametrize(
    ("made", "expected"),
    [  # written out by hand from RFC 9113 section 4.1
        (h2.frame(h2.SETTINGS, h2.ACK, 0), "000000 04 01 00000000"),
        (h2.frame(h2.PING, 0, 0, b"12345678"), "000008 06 00 00000000 3132333435363738"),
        (h2.frame(h2.RST_STREAM, 0, 5, h2.U32.pack(h2.CANCEL)), "000004 03 00 00000005 00000008"),
        (
            h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, h2.WINDOW_MAX, b"\x88"),
            "000001 01 05 7fffffff 88",
        ),
    ],
)
def test_a_frame_as_the_standard_draws_it(made: bytes, expected: str) -> None:
    assert made == bytes.fromhex(expected)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536, 0xFF_FFFF])
def test_the_length_has_three_bytes(size: int) -> None:
    assert h2.frame(h2.DATA, 0, 1, bytes(size))[:3] == size.to_bytes(3, "big")


@given(st.binary(max_size=300), st.integers(0, 255))
def test_padding_comes_off(data: bytes, padding: int) -> None:
    assert h2.unpadded(bytes((padding,)) + data + bytes(padding), h2.PADDED) == data
    assert h2.unpadded(data, 0) == data


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x04abc", b"\xff" + b"\0" * 254])
def test_padding_beyond_the_frame(payload: bytes) -> None:
    with pytest.raises(ConnectionFault) as fault:
        h2.unpadded(payload, h2.PADDED)
    assert fault.value.code == h2.PROTOCOL_ERROR


def test_padding_may_be_all_there_is() -> None:
    assert h2.unpadded(b"\x03abc", h2.PADDED) == b""
