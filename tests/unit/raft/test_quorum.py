"""raft/quorum.py against its definitions, over all small configurations."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from raft.quorum import committed_index, has_quorum, members_of, vote_result, voters_of
from raft.types import ConfState

VOTERS = st.sets(st.integers(1, 7), min_size=1, max_size=7)


@given(VOTERS, st.dictionaries(st.integers(1, 7), st.integers(0, 20)))
def test_committed_is_the_highest_index_a_majority_reached(voters: set[int], match: dict[int, int]) -> None:
    conf = ConfState(tuple(sorted(voters)))
    index = committed_index(conf, lambda node: match.get(node, 0))
    reached = [sum(1 for v in voters if match.get(v, 0) >= i) for i in (index, index + 1)]
    assert reached[0] * 2 > len(voters)
    assert reached[1] * 2 <= len(voters)


@given(VOTERS, VOTERS, st.dictionaries(st.integers(1, 7), st.integers(0, 20)))
def test_a_joint_configuration_needs_both_halves(a: set[int], b: set[int], match: dict[int, int]) -> None:
    def reach(node: int) -> int:
        return match.get(node, 0)

    joint = ConfState(tuple(sorted(a)), tuple(sorted(b)))
    halves = [committed_index(ConfState(tuple(sorted(half))), reach) for half in (a, b)]
    assert committed_index(joint, reach) == min(halves)


def test_votes_are_won_lost_or_open() -> None:
    conf = ConfState((1, 2, 3))
    for votes in itertools.product((True, False, None), repeat=3):
        given_votes = {n: v for n, v in zip(conf.voters, votes) if v is not None}
        result = vote_result(conf, given_votes)
        if votes.count(True) >= 2:
            assert result is True
        elif votes.count(False) >= 2:
            assert result is False
        else:
            assert result is None


def test_votes_of_strangers_and_learners_do_not_count() -> None:
    conf = ConfState((1, 2, 3), learners=(4,))
    assert vote_result(conf, {1: True, 4: True, 9: True}) is None
    assert not has_quorum(conf, {1, 4, 9})


def test_members_are_everybody_and_voters_are_not() -> None:
    conf = ConfState((3, 1), (2, 1), learners=(5,), learners_next=(2,))
    assert voters_of(conf) == (1, 2, 3)
    assert members_of(conf) == (1, 2, 3, 5)
