"""Unions of ranges against the plain question: is there a key in the request that no permission holds?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.state.key_ranges import KeyRange, KeyRanges, key_range, prefix_range

KEYS = st.binary(max_size=2).map(lambda raw: bytes(byte % 3 for byte in raw))
RANGES = st.one_of(
    KEYS.map(lambda key: key_range(key, b"")), st.tuples(KEYS, KEYS), KEYS.map(lambda key: (key, None))
)


def holds(within: KeyRange, key: bytes) -> bool:
    start, end = within
    return start <= key and (end is None or key < end)


def covered(ranges: list[KeyRange], request: KeyRange) -> bool:
    """Where coverage stops, it stops at the request's start or where some range ends."""
    start = request[0]
    edges = [end for _, end in ranges if end is not None and holds(request, end)]
    return all(any(holds(each, key) for each in ranges) for key in (start, *edges))


@given(st.lists(RANGES, max_size=6), RANGES)
def test_a_request_is_covered_by_the_union_and_by_nothing_less(
    ranges: list[KeyRange], request_: KeyRange
) -> None:
    assert KeyRanges(ranges).cover(*request_) == covered(ranges, request_)


@pytest.mark.parametrize(
    ("granted", "asked", "allowed"),
    [
        ([(b"a", b"c"), (b"c", b"e")], (b"a", b"e"), True),
        ([(b"a", b"c"), (b"c", b"")], (b"a", b"c\0"), True),
        ([(b"a", b"c"), (b"d", b"e")], (b"a", b"e"), False),
        ([(b"a", b"\0")], (b"b", b"\0"), True),
        ([(b"a", b"z")], (b"b", b"\0"), False),
        ([(b"a", b"")], (b"a", b"\0"), False),  # GHSA-xg4h-6gfc-h4m8: one key is not all from there on
        ([(b"a", b"")], (b"a", b"a\0"), True),
        ([(b"\0", b"\0")], (b"\0", b"\0"), True),
        ([(b"a", b"e")], (b"d", b"c"), True),  # holds no key, and begins where this user may read
        ([(b"a", b"e")], (b"f", b"c"), False),
        ([], (b"a", b""), False),
    ],
)
def test_ranges_as_requests_and_permissions_write_them(
    granted: list[tuple[bytes, bytes]], asked: tuple[bytes, bytes], allowed: bool
) -> None:
    assert KeyRanges(key_range(*each) for each in granted).cover(*key_range(*asked)) is allowed


def test_prefixes() -> None:
    assert prefix_range(b"lock/") == (b"lock/", b"lock0")
    assert prefix_range(b"a\xff\xff") == (b"a\xff\xff", b"b")
    assert prefix_range(b"\xff") == (b"\xff", None)
