"""Range as etcd answers it, quirks included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from kvstore.errors import Compacted, FutureRevision
from kvstore.pb.etcdserverpb_pb2 import RangeRequest
from kvstore.state import ranges
from kvstore.state.mvcc import UNDONE_MAX
from kvstore.state.records import Buffer
from tests.unit.state.harness import Replica

KEY, VERSION, CREATE, MOD, VALUE = range(5)
NONE, ASCEND, DESCEND = range(3)


@pytest.fixture(params=[1, ranges.STEP_KEYS], ids=["key by key", "in one step"])
def replica(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Replica:
    """a=3 b=2 c=1 d=0 at revisions 2 to 5, b put again at 6: half committed, half in the overlay."""
    monkeypatch.setattr(ranges, "STEP_KEYS", request.param)
    replica = Replica(str(tmp_path))
    for key, value in ((b"a", b"3"), (b"b", b"2"), (b"c", b"1")):
        replica.put(key, value)
    replica.machine.flush()
    replica.put(b"d", b"0")
    replica.put(b"b", b"2")
    return replica


@pytest.mark.parametrize(
    ("order", "target", "limit", "keys", "more"),
    [
        (NONE, KEY, 0, b"abcd", False),
        (NONE, KEY, 2, b"ab", True),
        (NONE, KEY, 4, b"abcd", False),
        (NONE, KEY, -1, b"abcd", False),
        (DESCEND, KEY, 0, b"dcba", False),
        (DESCEND, KEY, 1, b"d", True),
        (ASCEND, VALUE, 2, b"dc", True),
        (DESCEND, VALUE, 0, b"abcd", False),
        (NONE, VALUE, 2, b"cb", True),  # only the first three keys are sorted: etcd's own quirk
        (NONE, VALUE, 0, b"dcba", False),
        (ASCEND, VERSION, 0, b"acdb", False),
        (DESCEND, VERSION, 0, b"bacd", False),
        (ASCEND, CREATE, 0, b"abcd", False),
        (DESCEND, MOD, 0, b"bdca", False),
    ],
)
def test_order_and_limit(
    replica: Replica, order: int, target: int, limit: int, keys: bytes, more: bool
) -> None:
    got = replica.range(b"a", b"z", sort_order=order, sort_target=target, limit=limit)
    assert b"".join(kv.key for kv in got.kvs) == keys
    assert (got.more, got.count) == (more, 4)


@pytest.mark.parametrize(
    ("filters", "limit", "keys", "more"),
    [
        ({"min_mod_revision": 4}, 0, b"bcd", False),
        ({"max_mod_revision": 4}, 0, b"ac", False),
        ({"min_create_revision": 3}, 2, b"bc", True),
        ({"max_create_revision": 3}, 2, b"ab", False),
    ],
)
def test_filters_leave_the_count_alone(
    replica: Replica, filters: dict[str, int], limit: int, keys: bytes, more: bool
) -> None:
    got = replica.range(b"a", b"z", limit=limit, **filters)
    assert b"".join(kv.key for kv in got.kvs) == keys
    assert (got.more, got.count) == (more, 4)


def test_count_only_and_keys_only(replica: Replica) -> None:
    counted = replica.range(b"a", b"c", count_only=True, limit=1)
    assert (list(counted.kvs), counted.count, counted.more) == ([], 2, False)
    (pair,) = replica.range(b"b", keys_only=True).kvs
    assert (pair.key, pair.value, pair.version, pair.mod_revision) == (b"b", b"", 2, 6)
    assert replica.range(b"b", count_only=True).count == 1
    assert replica.range(b"b", min_mod_revision=7).count == 1


@pytest.mark.parametrize(
    ("key", "end", "keys"),
    [
        (b"b", b"", b"b"),
        (b"x", b"", b""),
        (b"b", b"\0", b"bcd"),
        (b"\0", b"\0", b"abcd"),
        (b"c", b"a", b""),
        (b"b", b"b", b""),
    ],
)
def test_range_ends(replica: Replica, key: bytes, end: bytes, keys: bytes) -> None:
    got = replica.range(key, end)
    assert b"".join(kv.key for kv in got.kvs) == keys
    assert got.count == len(keys)


def test_revisions(replica: Replica) -> None:
    assert list(replica.values(3)) == [b"a", b"b"]
    assert list(replica.values(-5)) == [b"a", b"b", b"c", b"d"], "a negative revision is now"
    with pytest.raises(FutureRevision):
        replica.values(7)
    replica.compact(4)
    assert list(replica.values(4)) == [b"a", b"b", b"c"], "the compaction revision itself is readable"
    with pytest.raises(Compacted) as refused:
        replica.values(3)
    assert refused.value.compact_revision == 4
    revision, _ = replica.machine.range(RangeRequest(key=b"a", revision=4))
    assert revision == 6, "the header names the current revision"


@pytest.mark.parametrize("later", [0, UNDONE_MAX])
def test_pages_of_a_past_revision_tell_the_whole_count_of_then(tmp_path: Path, later: int) -> None:
    """Keys that came, went, came back and changed since; a little of that is taken from what is there now, and of
    much everything is looked at."""
    replica = Replica(str(tmp_path))
    for number in range(600):
        replica.put(b"k%03d" % number, b"v")
    replica.delete(b"k0", b"k1")  # a hundred
    then, keys_then = replica.machine.revision, {b"k%03d" % number for number in range(100, 600)}
    replica.machine.flush()
    for number in range(50, 150):
        replica.put(b"k%03d" % number, b"again")
    replica.delete(b"k2", b"k3")
    for number in range(200, 210):
        replica.put(b"k%03d" % number, b"back")
    replica.put(b"k205x", b"new")
    replica.delete(b"k205x", b"")
    for _ in range(later):
        replica.put(b"other", b"")
    for number in range(0, 600, 60):
        start = b"k%03d" % number
        got = replica.range(start, b"l", revision=then, limit=7)
        wanted = sorted(key for key in keys_then if key >= start)
        assert ([kv.key for kv in got.kvs], got.count, got.more) == (wanted[:7], len(wanted), True)
        assert {kv.mod_revision <= then for kv in got.kvs} == {True}
        assert replica.range(start, b"l", revision=then, count_only=True).count == len(wanted)
    assert replica.range(b"k", b"l", count_only=True).count == 50 + 500 - 90


class Counting:
    """A store, and how many keys were looked at."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.looked_at = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def keys(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, Buffer]]:
        for pair in self._store.keys(start, end):
            self.looked_at += 1
            yield pair


def test_the_pages_of_one_listing_look_at_all_the_keys_once(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    for number in range(3000):
        replica.put(b"k%04d" % number, b"")
    then = replica.machine.revision
    replica.put(b"k", b"")
    replica.machine.flush()
    keyspace = cast(Any, replica.machine.keyspace)
    store = keyspace._store = Counting(keyspace._store)
    for number in range(0, 3000, 100):
        got = replica.range(b"k%04d" % number, b"l", revision=then, limit=100)
        assert (len(got.kvs), got.count) == (100, 3000 - number)
    assert store.looked_at < 3000 * 5  # each page looked at all that was left: 45 times


@pytest.mark.parametrize("how", [{}, {"count_only": True}, {"limit": 2}], ids=str)
def test_how_many_keys_there_are_now_says_nothing_of_a_past_revision(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    monkeypatch.setattr(ranges, "STEP_KEYS", 2)
    monkeypatch.setattr(ranges, "LEARNED_KEYS", 2)
    then = replica.machine.revision
    for key in (b"a", b"b", b"c"):
        replica.delete(key)
    keyspace = replica.machine.keyspace
    now = RangeRequest(key=b"a", range_end=b"z", **how)
    assert not ranges.may_be_long(keyspace, now) and ranges.learn(keyspace, now, None) is None
    past = RangeRequest(key=b"a", range_end=b"z", revision=then, **how)
    assert ranges.may_be_long(keyspace, past) or ranges.learn(keyspace, past, None) is not None
