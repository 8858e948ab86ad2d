"""Frame boundaries, found in whatever pieces the bytes come."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.routing.frames import GOING_AWAY, Frames, close_frame


def frame(size: int, *, masked: bool = False, opcode: int = 0x82) -> bytes:
    mask = 0x80 if masked else 0
    if size < 126:
        head = bytes((opcode, mask | size))
    elif size < 65536:
        head = bytes((opcode, mask | 126)) + struct.pack("!H", size)
    else:
        head = bytes((opcode, mask | 127)) + struct.pack("!Q", size)
    return head + (b"mask" if masked else b"") + b"\x7f" * size


SHAPES = st.lists(  # (size, masked): what a failure prints should be short
    st.tuples(
        st.one_of(st.integers(0, 200), st.sampled_from((125, 126, 127, 65535, 65536, 70000))),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def framed(shapes: list[tuple[int, bool]]) -> list[bytes]:
    return [frame(size, masked=masked) for size, masked in shapes]


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    found, at, turn = [], 0, 0
    while at < len(data):
        step = sizes[turn % len(sizes)] if at < 2000 else 4096  # small ones all the way would take seconds
        found.append(data[at : at + step])
        at, turn = at + step, turn + 1
    return found


@given(SHAPES, st.lists(st.sampled_from((1, 2, 3, 7, 13, 14, 100, 4096, 65536)), min_size=1, max_size=5))
def test_at_a_boundary_exactly_after_whole_frames(shapes: list[tuple[int, bool]], sizes: list[int]) -> None:
    frames = framed(shapes)
    boundaries = {0}
    for one in frames:
        boundaries.add(max(boundaries) + len(one))
    follower, seen = Frames(), 0
    for piece in pieces(b"".join(frames), sizes):
        follower.feed(piece)
        seen += len(piece)
        assert follower.at_boundary == (seen in boundaries)


@given(SHAPES, st.integers(1, 70000), st.integers(1, 70000))
def test_cut_finds_the_next_boundary(shapes: list[tuple[int, bool]], before: int, size: int) -> None:
    frames = framed(shapes)
    data = b"".join(frames)
    boundaries, at = [0], 0
    for one in frames:
        at += len(one)
        boundaries.append(at)
    before = min(before, len(data))
    follower = Frames()
    follower.feed(data[:before])
    seen = before
    expected = min(one for one in boundaries if one >= before)
    while (end := follower.cut(data[seen : seen + size])) is None:
        assert seen + size < expected
        seen += size
    assert seen + end == expected


def test_at_the_start_the_boundary_is_here() -> None:
    assert Frames().cut(frame(3)) == 0


@pytest.mark.parametrize("masked", [False, True])
def test_the_close_frame(masked: bool) -> None:
    made = close_frame(GOING_AWAY, is_masked=masked)
    assert made == bytes.fromhex("88820000000003e9" if masked else "880203e9")
    follower = Frames()
    follower.feed(made)
    assert follower.at_boundary
