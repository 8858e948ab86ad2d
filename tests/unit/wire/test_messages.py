"""kvstore/wire/messages.py: messages out of DATA, whole however they arrive."""

from __future__ import annotations

import gzip
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.rpc import Status
from kvstore.wire.messages import MessageFault, MessageReader
from tests.unit.wire.peer import framed


def packed(data: bytes) -> bytes:
    """Without the time of day, which gzip would write and which would name each test anew."""
    return gzip.compress(data, mtime=0)


@given(st.lists(st.binary(max_size=50), max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_messages_come_out_whole_however_they_arrive(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(framed, messages))
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader = MessageReader(100, b"identity")
    found = [message for begin, end in pairwise(edges) for message in reader.feed(data[begin:end])]
    assert found == messages
    assert reader.partial_bytes == 0


def test_a_message_that_claims_too_much_is_refused_before_it_arrives() -> None:
    reader = MessageReader(100, b"identity")
    with pytest.raises(MessageFault, match=r"larger than max \(101 vs. 100\)") as fault:
        reader.feed(framed(b"x" * 101)[:5])
    assert fault.value.status == Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("cut", range(len(framed(b"first")) + len(framed(b""))))
def test_a_cut_anywhere_keeps_the_rest_for_later(cut: int) -> None:
    reader = MessageReader(100, b"identity")
    data = framed(b"first") + framed(b"")
    before = reader.feed(data[:cut])
    assert before == ([b"first"] if cut >= 10 else [])
    assert reader.partial_bytes == cut - 10 * len(before)
    assert before + reader.feed(data[cut:]) == [b"first", b""]
    assert reader.partial_bytes == 0


def test_the_limit_itself_is_allowed_packed_or_not() -> None:
    reader = MessageReader(100, b"gzip")
    assert reader.feed(framed(b"x" * 100) + framed(packed(b"y" * 100), 1)) == [b"x" * 100, b"y" * 100]


@pytest.mark.parametrize(
    ("encoding", "data", "status", "reason"),
    [
        (b"identity", b"x", Status.INTERNAL, "compressed flag set with identity"),
        (b"gzip", b"", Status.INTERNAL, "unexpected EOF"),
        (b"gzip", b"not gzip at all", Status.INTERNAL, "failed to decompress"),
        (
            b"gzip",
            packed(b"x" * 50)[:-9],
            Status.INTERNAL,
            "unexpected EOF",
        ),  # its data, not its checksum
        (b"gzip", packed(b"x" * 50)[:-8] + b"\0" * 8, Status.INTERNAL, "incorrect data check"),
        (b"gzip", packed(b"x" * 101), Status.RESOURCE_EXHAUSTED, r"larger than max \(101 vs. 100\)"),
        (
            b"gzip",
            packed(b"x" * 40_000),
            Status.RESOURCE_EXHAUSTED,
            r"larger than max \(101 vs. 100\)",
        ),
    ],
)
def test_compressed_messages_that_fail(encoding: bytes, data: bytes, status: Status, reason: str) -> None:
    with pytest.raises(MessageFault, match=reason) as fault:
        MessageReader(100, encoding).feed(framed(data, 1))
    assert fault.value.status == status
