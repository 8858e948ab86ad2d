"""Keys around LMDB's limit: the order of places and buckets is the order of keys."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.state.long_keys import SHORT_MAX, changed, find, is_bucket, place_of, records_in
from kvstore.state.records import KV_AT, key_of
from tests.unit.state.harness import Replica

ends = st.binary(max_size=14)
keys = st.one_of(
    st.builds(lambda fill, end: (b"p" * fill) + end, st.integers(495, 512), ends),
    st.binary(min_size=1, max_size=4),
    st.builds(lambda end: b"p" * 499 + b"\0" + end, ends),
)


def record_of(key: bytes, value: bytes = b"") -> bytes:
    return bytes(KV_AT) + KeyValue(key=key, value=value).SerializeToString()


@settings(max_examples=500)
@given(keys, keys)
def test_places_keep_the_order_of_keys(first: bytes, second: bytes) -> None:
    one, other = place_of(first), place_of(second)
    assert len(one) <= 511
    assert is_bucket(one) == (len(first) > SHORT_MAX)
    if one != other:
        assert (one < other) == (first < second)
    else:
        assert first == second or (is_bucket(one) and first[:SHORT_MAX] == second[:SHORT_MAX])


@given(st.lists(st.tuples(ends, st.one_of(st.none(), ends)), max_size=30))
def test_a_bucket_holds_what_was_put_in_it_in_order(steps: list[tuple[bytes, bytes | None]]) -> None:
    bucket, model = b"", dict[bytes, bytes]()
    for end, value in steps:
        key = b"p" * 501 + end
        bucket = changed(bucket, {key: None if value is None else record_of(key, value)})
        model.pop(key, None)
        if value is not None:
            model[key] = record_of(key, value)
    assert [key_of(each) for each in records_in(bucket)] == sorted(model)
    for key, record in model.items():
        assert find(bucket, key) == record
    assert find(bucket, b"p" * 501 + b"x" * 20) is None


@pytest.mark.parametrize("size", [499, 500, 501, 511, 512, 70_000, 1_500_000])
def test_sizes_up_to_the_request_limit(size: int, tmp_path: object) -> None:
    replica = Replica(str(tmp_path))
    key = b"p" * size
    replica.put(key, b"1", 0)
    replica.put(key + b"x", b"2")
    replica.reopen(crash=False)
    assert replica.values() == {key: b"1", key + b"x": b"2"}
    replica.delete(key)
    replica.compact(replica.delete(key + b"x"))
    replica.put(b"a")
    replica.compact(replica.machine.revision)
    replica.turns()
    replica.reopen(crash=False)
    assert list(replica.values()) == [b"a"]
    assert replica.machine._reader.latest(key) is None
    replica.machine.abandon()
