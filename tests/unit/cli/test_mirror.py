"""How a mirror cuts what it copies into transactions."""

from __future__ import annotations

from kvstore.cli.mirror import MAX_TXN_BYTES, Names, by_revision, in_parts
from kvstore.client import Event, KeyValue, Op


def event(key: str, revision: int) -> Event:
    return Event("PUT", KeyValue(key.encode(), b"", mod_revision=revision))


def test_keys_change_their_prefix_and_nothing_else() -> None:
    assert Names(b"a/", b"b/")(b"a/a/1") == b"b/a/1"
    assert Names(b"a/", b"")(b"a/1") == b"1"
    assert Names(b"", b"east/")(b"1") == b"east/1"


def test_events_of_one_revision_stay_together() -> None:
    events = [event("a", 3), event("b", 3), event("a", 4), event("c", 7), event("d", 7)]
    groups = [(revision, [each.kv.key for each in group]) for revision, group in by_revision(events)]
    assert groups == [(3, [b"a", b"b"]), (4, [b"a"]), (7, [b"c", b"d"])]
    assert list(by_revision([])) == []


def test_parts_are_as_long_as_a_transaction_may_be() -> None:
    ops = [Op.put(str(number)) for number in range(5)]
    assert [len(part) for part in in_parts([(op, 10) for op in ops], 2)] == [2, 2, 1]
    assert [op for part in in_parts([(op, 10) for op in ops], 2) for op in part] == ops
    half = MAX_TXN_BYTES // 2
    sizes = [half, half, 1, 2 * MAX_TXN_BYTES, 1]
    assert [len(part) for part in in_parts(list(zip(ops, sizes)), 128)] == [2, 1, 1, 1]
    assert list(in_parts([], 2)) == []
