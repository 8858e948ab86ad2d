"""The short way to read a put says what protobuf says, or nothing."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvstore.pb.etcdserverpb_pb2 import PutRequest
from kvstore.state.plain_put import plain_put


@given(st.binary(min_size=1, max_size=127), st.binary(min_size=1, max_size=300))
@example(b"k" * 127, b"v" * 0x3FFF)
@example(b"k", b"v")
def test_a_key_and_a_value_are_read(key: bytes, value: bytes) -> None:
    assert plain_put(PutRequest(key=key, value=value).SerializeToString()) == (key, value)


@pytest.mark.parametrize(
    "request_",
    [
        PutRequest(),
        PutRequest(key=b"k"),
        PutRequest(value=b"v"),
        PutRequest(key=b"k" * 128, value=b"v"),
        PutRequest(key=b"k", value=b"v" * 0x4000),
        PutRequest(key=b"k", value=b"v", lease=1),
        PutRequest(key=b"k", value=b"v", prev_kv=True),
        PutRequest(key=b"k", value=b"v", ignore_lease=True),
        PutRequest(key=b"k", ignore_value=True),
    ],
    ids=lambda request: str(request)[:30].replace("\n", " "),
)
def test_anything_more_or_less_is_left_to_protobuf(request_: PutRequest) -> None:
    assert plain_put(request_.SerializeToString()) is None


@given(st.binary(max_size=40) | st.binary(max_size=8).map(lambda some: b"\x0a\x01k\x12" + some))
@example(b"\x0a\x01k\x12\x81")
@example(b"\x0a\x01k\x12\x81\x80\x01")
@example(b"\x0a\x01k\x12\x80\x00")
@example(b"\x0a\x01k\x0a\x01l\x12\x01v")
def test_whatever_it_reads_protobuf_reads_too(data: bytes) -> None:
    found = plain_put(data)
    if found is not None:
        key, value = found
        assert PutRequest.FromString(data) == PutRequest(key=key, value=value)
