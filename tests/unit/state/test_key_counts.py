from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from kvstore.state.key_counts import KeyCounts

KEY = st.binary(min_size=0, max_size=3)


class Model:
    """The keys themselves, and how many of them were looked at."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.looked_at = 0

    def keys_in(self, start: bytes, end: bytes | None) -> Iterator[bytes]:
        low = bisect_left(self.keys, start)
        for key in self.keys[low : len(self.keys) if end is None else bisect_left(self.keys, end)]:
            self.looked_at += 1
            yield key

    def look(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bool]]:
        """As if every other key had gone."""
        for key in self.keys_in(start, end):
            yield key, True
            yield key + b"\0", False

    def count(self, start: bytes, end: bytes | None) -> int:
        return sum(start <= key and (end is None or key < end) for key in self.keys)


class Counting(RuleBasedStateMachine):
    """Puts, deletes and counts in any order: every count is what looking at each key gives."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.counts = KeyCounts(stretch_keys=2, fences_max=12)

    @rule(key=KEY)
    def put(self, key: bytes) -> None:
        at = bisect_left(self.model.keys, key)
        if self.model.keys[at : at + 1] != [key]:
            self.model.keys.insert(at, key)
            self.counts.added(key)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if self.model.keys:
            key = data.draw(st.sampled_from(self.model.keys))
            self.model.keys.remove(key)
            self.counts.removed(key)

    @rule(start=KEY, end=st.none() | KEY)
    def count(self, start: bytes, end: bytes | None) -> None:
        assert self.counts.count(start, end, self.model.keys_in) == self.model.count(start, end)

    @rule(start=KEY, end=st.none() | KEY, keys_max=st.integers(1, 9))
    def learn(self, start: bytes, end: bytes | None, keys_max: int) -> None:
        at: bytes | None = start
        while at is not None:
            self.model.looked_at = 0
            following = self.counts.learn(at, end, self.model.look, keys_max)
            assert self.model.looked_at <= keys_max + 1
            assert following is None or following > at
            at = following

    @rule()
    def go_on_with_a_copy(self) -> None:
        """Counting with the copy leaves the one it was made of alone."""
        kept, before = self.counts, dict(self.counts._counts)
        self.counts = kept.copy()
        self.count(b"", None)
        self.counts.added(b"")
        self.counts.removed(b"")
        assert kept._counts == before


TestCounting = Counting.TestCase
TestCounting.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), max_size=20))
@settings(max_examples=30, deadline=None)
def test_pages_look_at_few_keys(pages: list[tuple[int, int]]) -> None:
    """Once all was counted, a count looks at no more than the stretches at its two ends."""
    model = Model()
    model.keys = [b"%03d" % number for number in range(1000)]
    counts = KeyCounts(stretch_keys=16)
    assert counts.count(b"", None, model.keys_in) == 1000
    assert model.looked_at == 1000
    for first, last in pages:
        model.looked_at = 0
        start, end = b"%03d" % first, b"%03d" % last
        assert counts.count(start, end, model.keys_in) == max(0, last - first)
        assert model.looked_at <= 2 * 2 * 16
    model.looked_at = 0
    assert counts.count(b"", None, model.keys_in) == 1000
    assert model.looked_at == 0


def test_what_was_learned_bit_by_bit_is_not_looked_at_again() -> None:
    model = Model()
    model.keys = [b"%04d" % number for number in range(5000)]
    counts = KeyCounts(stretch_keys=16)
    at: bytes | None = b""
    while at is not None:
        at = counts.learn(at, None, model.look, 100)
    assert model.looked_at <= 5000 + 100  # the first of the next ones is seen twice
    model.looked_at = 0
    assert counts.count(b"", None, model.keys_in) == 5000
    assert counts.learn(b"", None, model.look, 100) is None
    assert model.looked_at <= 2 * 16
