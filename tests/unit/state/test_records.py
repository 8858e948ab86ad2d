"""The record format, and the walk along a key's versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.state.mvcc import Keyspace
from kvstore.state.overlay import Overlay
from kvstore.state.records import ANCHOR_EVERY, KV_AT, bound, key_of, main_of, version_at


class EmptyStore:
    """Nothing was ever committed."""

    def latest(self, key: bytes) -> None:
        return None

    def version(self, position: bytes) -> None:
        return None

    def keys(self, start: bytes, end: bytes | None) -> list[tuple[bytes, bytes]]:  # pragma: no cover
        return []


def chain(count: int) -> tuple[list[bytes], dict[bytes, bytes]]:
    """The records of one key put `count` times, at revisions 2, 3, …, and where each lies."""
    overlay = Overlay()
    keyspace = Keyspace(EmptyStore(), overlay, revision=1, compact_revision=0)  # type: ignore[arg-type]
    for number in range(count):
        keyspace.put(b"k", b"%d" % number, 0, keyspace.current(b"k"))
        keyspace.end()
    records = overlay.filling.records
    return records, {record[:12]: record for record in records}


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 128, 129, 1000])
def test_every_version_is_found_in_few_steps(count: int) -> None:
    records, places = chain(count)
    for wanted, record in enumerate(records):
        steps: list[bytes] = []

        def fetch(position: bytes, steps: list[bytes] = steps) -> bytes:
            steps.append(position)
            return places[position]

        assert version_at(records[-1], bound(wanted + 2), fetch) == record
        assert len(steps) <= count // ANCHOR_EVERY + ANCHOR_EVERY + 1
    assert version_at(records[-1], bound(1), places.get) is None


def test_a_removed_version_ends_the_walk() -> None:
    records, places = chain(10)
    del places[records[3][:12]]
    assert version_at(records[-1], bound(5), places.get) is None
    assert version_at(records[-1], bound(6), places.get) == records[4]


@given(st.binary(min_size=1, max_size=40_000), st.binary(max_size=10))
def test_the_key_is_read_from_the_stored_pair(key: bytes, value: bytes) -> None:
    record = bytes(KV_AT) + KeyValue(key=key, value=value).SerializeToString()
    assert key_of(record) == key_of(memoryview(record)) == key
    assert main_of(bound(7)) == 7


@pytest.mark.parametrize("record", [b"", bytes(60), bytes(KV_AT) + b"\x0a\x05ab"])
def test_what_is_no_record_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="record"):
        key_of(record)
