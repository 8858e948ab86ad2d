"""What a live migration is cut into: transactions that etcd takes, in an order that says the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.backup.journal import BadJournal, Journal
from kvstore.backup.sides import (
    PAGE_BYTES,
    PAGE_KEYS_MAX,
    TXN_BYTES,
    TXN_OPS,
    Change,
    chunked,
    fitting_limit,
    merged,
    packed,
)
from kvstore.pb.mvccpb_pb2 import KeyValue

keys = st.sampled_from([b"%d" % number for number in range(12)])
values = st.one_of(st.none(), st.sampled_from([b"", b"v", b"x" * (TXN_BYTES // 3), b"x" * (2 * TXN_BYTES)]))
# A revision has a key once.
revisions = st.lists(
    st.dictionaries(keys, values, min_size=1, max_size=6).map(
        lambda each: [Change(key, value) for key, value in each.items()]
    ),
    max_size=12,
)


@given(made=revisions)
def test_packed_is_the_same_in_the_same_order_and_splits_no_revision_that_fits(
    made: list[list[Change]],
) -> None:
    packs = packed(made)
    assert [change for pack in packs for change in pack] == [change for part in made for change in part]
    for pack in packs:
        assert 0 < len({change.key for change in pack}) == len(pack) <= TXN_OPS
        assert sum(change.size for change in pack) <= TXN_BYTES or len(pack) == 1
    for part in made:
        if sum(change.size for change in part) <= TXN_BYTES:
            assert any(all(change in pack for change in part) for pack in packs)


def test_many_operations_and_many_small_revisions() -> None:
    large = [Change(b"%d" % number, b"v") for number in range(300)]
    assert [len(chunk) for chunk in chunked(large)] == [128, 128, 44]
    assert [len(pack) for pack in packed([large[:128], large[128:130]])] == [128, 2]
    assert [len(pack) for pack in packed([[change] for change in large])] == [128, 128, 44]
    again = [[Change(b"k", b"%d" % number)] for number in range(3)]
    assert packed(again) == again, "the same key is never twice in one transaction"


async def pairs(*keys: bytes) -> AsyncIterator[KeyValue]:
    for key in keys:
        yield KeyValue(key=key)


async def test_merged_sets_side_by_side() -> None:
    found = [
        (one.key if one else None, other.key if other else None)
        async for one, other in merged(pairs(b"a", b"b", b"d"), pairs(b"b", b"c", b"e", b"f"))
    ]
    both: list[tuple[bytes | None, bytes | None]] = [(b"a", None), (b"b", b"b"), (None, b"c"), (b"d", None)]
    assert found == [*both, (None, b"e"), (None, b"f")]
    assert [pair async for pair in merged(pairs(), pairs())] == []


def test_pages_follow_the_size_of_what_is_in_them() -> None:
    assert fitting_limit(PAGE_BYTES, 200) == 200
    assert fitting_limit(PAGE_BYTES // 4, 200) == 800
    assert fitting_limit(200 * 100, 200) == PAGE_KEYS_MAX
    assert fitting_limit(50 * PAGE_BYTES, 10) == 1


def test_a_journal_goes_on_where_it_was(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    journal = Journal(path, 1, 2)
    assert not journal.resumed
    journal.begin_copy(7)
    journal.reached(b"\xff\0key")
    again = Journal(path, 1, 2)
    assert (again.resumed, again.revision, again.next_key, again.copied) == (True, 7, b"\xff\0key", False)
    again.end_copy()
    again.followed(9)
    again.followed(8)  # a progress notice of a member that lags
    last = Journal(path, 1, 2)
    assert (last.revision, last.next_key, last.copied) == (9, b"", True)
    last.begin_copy(0)
    assert (Journal(path, 1, 2).revision, Journal(path, 1, 2).copied) == (0, False)
    with pytest.raises(BadJournal, match="from cluster 1 to 2, not from 1 to 3"):
        Journal(path, 1, 3)
    for content in ("nonsense", "[]", '{"source":"1"}', '{"source":"1","target":"2","next_key":"?"}'):
        Path(path).write_text(content)
        with pytest.raises(BadJournal, match="is not a migration's state"):
            Journal(path, 1, 2)
