"""gRPC's message framing, and the token bucket."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.rpc import Status
from kvstore.wire.messages import MessageFault, MessageReader
from kvstore.wire.pace import Bucket
from tests.unit.wire.peer import framed


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


def test_a_bucket_allows_bursts_and_a_rate() -> None:
    bucket = Bucket(per_s=10, burst=3, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.1), bucket.take(0.1)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
