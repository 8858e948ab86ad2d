"""raft/log.py: what it takes, what it refuses, what it never loses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.log import RaftLog
from raft.types import ConfState, Entry, EntryID

CONF = ConfState((1, 2, 3))


def entries(first: int, *terms: int) -> list[Entry]:
    return [Entry(first + at, term, b"%d" % (first + at)) for at, term in enumerate(terms)]


def log(*terms: int, base: int = 0, committed: int = 0) -> RaftLog:
    return RaftLog(
        base=base,
        base_term=1,
        entries=entries(base + 1, *terms),
        committed=committed or base,
        conf=CONF,
        conf_index=base,
    )


def ids(raft_log: RaftLog) -> list[str]:
    first, last = raft_log.first_index, raft_log.last_index
    return [str(e) for e in raft_log.slice(first, last, bytes_max=1 << 30)] if last >= first else []


def test_a_mismatch_is_refused_and_changes_nothing() -> None:
    raft_log = log(1, 1, 2)
    assert raft_log.try_append(3, 1, entries(4, 3)) is None
    assert raft_log.try_append(9, 1, entries(10, 3)) is None
    assert ids(raft_log) == ["1@1", "2@1", "3@2"]


def test_a_conflict_is_overwritten_from_its_place_on() -> None:
    raft_log = log(1, 1, 2, 2)
    raft_log.written(EntryID(2, 4))
    assert raft_log.try_append(2, 1, entries(3, 3)) == 3
    assert ids(raft_log) == ["1@1", "2@1", "3@3"]
    assert (raft_log.durable, raft_log.handed) == (2, 2)
    assert [str(e) for e in raft_log.next_unwritten()] == ["3@3"]


def test_a_late_and_shorter_append_erases_nothing() -> None:
    """Catalogue 14."""
    raft_log = log(1, 1, 1, 1)
    assert raft_log.try_append(1, 1, entries(2, 1)) == 2
    assert raft_log.last_index == 4


def test_committed_entries_are_never_truncated() -> None:
    raft_log = log(1, 1, 1, committed=3)
    with pytest.raises(AssertionError, match="would lose committed 3"):
        raft_log.try_append(1, 1, entries(2, 2))


def test_a_write_of_an_overwritten_entry_says_nothing() -> None:
    """Catalogue 18: the entry at the index is another one by now."""
    raft_log = log(1)
    raft_log.append(entries(2, 1, 1))
    raft_log.next_unwritten()
    raft_log.try_append(1, 1, entries(2, 2))
    assert not raft_log.written(EntryID(1, 3))
    assert not raft_log.written(EntryID(1, 2))
    assert raft_log.durable == 1
    assert raft_log.written(EntryID(2, 2))
    assert raft_log.durable == 2


def test_the_hint_skips_a_whole_run_of_terms() -> None:
    raft_log = log(1, 1, 4, 4, 4)
    assert raft_log.conflict_hint(5, 3) == (2, 1)
    assert raft_log.conflict_hint(99, 4) == (5, 4)
    assert log(5, 5).conflict_hint(2, 2) == (0, 1)
    assert log(5, base=10).conflict_hint(7, 2) == (7, 0)


def test_pages_of_committed_entries_neither_skip_nor_repeat() -> None:
    """Catalogue 19."""
    raft_log = log(*[1] * 10, committed=9)
    pages = []
    while page := raft_log.next_committed(bytes_max=2):
        pages.append([entry.index for entry in page])
    assert [index for page in pages for index in page] == list(range(1, 10))
    assert max(map(len, pages)) == 2


def test_a_snapshot_keeps_nothing_of_the_old_log() -> None:
    """Catalogue 29."""
    raft_log = log(1, 1, 2, 2, committed=2)
    raft_log.restore(3, 3, CONF)
    assert (raft_log.base, raft_log.base_term, raft_log.last_index, raft_log.committed) == (3, 3, 3, 3)
    assert ids(raft_log) == []


def test_compaction_keeps_the_term_it_ends_at() -> None:
    raft_log = log(1, 2, 2, 3, committed=4)
    raft_log.next_committed(bytes_max=100)
    raft_log.applied_to(3)
    raft_log.compact(3)
    assert (raft_log.base, raft_log.base_term, ids(raft_log)) == (3, 2, ["4@3"])
    assert raft_log.term(3) == 2
    assert raft_log.term(2) is None
    with pytest.raises(AssertionError, match="beyond applied"):
        raft_log.compact(4)


@given(st.lists(st.integers(1, 3), max_size=8), st.lists(st.integers(1, 3), max_size=8), st.integers(0, 8))
def test_after_an_accepted_append_the_logs_agree_up_to_its_end(
    own: list[int], leaders: list[int], prev: int
) -> None:
    """Against the definition: an accepted append leaves this log equal to the leader's up to its last entry."""
    own_terms, leader_terms = sorted(own), sorted(leaders)
    prev = min(prev, len(leader_terms))
    follower, leader = log(*own_terms), log(*leader_terms)
    sent = entries(prev + 1, *leader_terms[prev:])
    prev_term = leader.term(prev)
    assert prev_term is not None
    last = follower.try_append(prev, prev_term, sent)
    if last is None:
        assert follower.term(prev) != prev_term
        assert ids(follower) == ids(log(*own_terms))
        return
    assert last == len(leader_terms)
    assert ids(follower)[prev:last] == ids(leader)[prev:last]
