"""Who is passed over, for how long, and how they come back; with literal times."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.routing.ejection import Ejections, Policy

POLICY = Policy(after=3, first_s=1.0, longest_s=8.0, share=0.5)


def ejections(count: int = 4, policy: Policy = POLICY) -> Ejections:
    made = Ejections(policy)
    made.keep("abcdefghij"[:count])
    return made


def fail(made: Ejections, name: str, now: float, times: int = 1) -> list[float | None]:
    return [made.failed(name, now, is_connected=True) for _ in range(times)]


def test_failures_in_a_row_eject() -> None:
    made = ejections()
    assert fail(made, "a", 5.0, 3) == [None, None, 1.0]
    assert made.until("a") == 6.0
    assert made.until("b") == -math.inf


def test_an_answer_in_between_starts_the_count_again() -> None:
    made = ejections()
    fail(made, "a", 5.0, 2)
    made.answered("a", 5.0, 5.1)
    assert fail(made, "a", 5.2, 3) == [None, None, 1.0]


def test_one_that_takes_no_connection_is_out_at_once() -> None:
    made = ejections()
    assert made.failed("a", 5.0, is_connected=False) == 1.0


def test_while_it_is_out_more_failures_change_nothing() -> None:
    made = ejections()
    fail(made, "a", 5.0, 3)
    assert fail(made, "a", 5.5, 5) == [None] * 5
    assert made.until("a") == 6.0


def test_on_probation_one_failure_is_enough_and_the_time_doubles_up_to_a_limit() -> None:
    made = ejections()
    fail(made, "a", 0.0, 3)
    now, took = 0.0, []
    for _ in range(6):
        now = made.until("a")
        took += fail(made, "a", now)
    assert took == [2.0, 4.0, 8.0, 8.0, 8.0, 8.0]


def test_an_answer_after_its_return_ends_the_probation_but_not_the_doubling() -> None:
    made = ejections()
    fail(made, "a", 0.0, 3)
    made.answered("a", sent_at=1.0, now=1.1)
    assert fail(made, "a", 1.2, 3) == [None, None, 2.0]


def test_one_that_was_well_as_long_as_it_was_out_begins_with_the_first_time_again() -> None:
    made = ejections()
    fail(made, "a", 0.0, 3)
    made.answered("a", sent_at=1.0, now=2.0)
    assert fail(made, "a", 2.0, 3) == [None, None, 1.0]


def test_an_answer_to_what_was_sent_before_brings_nobody_back() -> None:
    made = ejections()
    fail(made, "a", 5.0, 3)
    assert not made.answered("a", sent_at=4.9, now=5.5)
    assert made.until("a") == 6.0


def test_an_answer_to_what_was_sent_since_does() -> None:
    made = ejections()
    fail(made, "a", 5.0, 3)
    assert made.answered("a", sent_at=5.1, now=5.5)
    assert made.until("a") == 5.5


@pytest.mark.parametrize(("count", "at_most"), [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5)])
def test_no_more_than_the_share(count: int, at_most: int) -> None:
    made = ejections(count)
    took = [fail(made, name, 0.0, 3)[-1] for name in "abcdefghij"[:count]]
    assert took == [1.0] * at_most + [None] * (count - at_most)


def test_there_is_room_again_when_one_has_come_back() -> None:
    made = ejections(2)
    fail(made, "a", 0.0, 3)
    assert fail(made, "b", 0.5, 3)[-1] is None
    assert fail(made, "b", 1.0) == [1.0]


def test_those_that_take_no_connection_are_not_of_the_share() -> None:
    made = ejections(4)
    for name in "abc":
        assert made.failed(name, 0.0, is_connected=False) == 1.0
    assert fail(made, "d", 0.0, 3)[-1] == 1.0


def test_after_zero_ejects_only_those_that_take_no_connection() -> None:
    made = ejections(4, Policy(after=0))
    assert fail(made, "a", 0.0, 50) == [None] * 50
    assert made.failed("a", 0.0, is_connected=False) == 1.0


def test_one_that_has_gone_is_forgotten() -> None:
    made = ejections(4)
    fail(made, "a", 0.0, 3)
    made.keep("bcd")
    made.keep("abcd")
    assert made.until("a") == -math.inf
    fail(made, "b", 0.0, 3)
    made.forget("b")
    assert made.until("b") == -math.inf


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(("fail", "refuse", "answer")), st.floats(0, 2)),
        max_size=80,
    ),
    st.floats(0, 1),
)
def test_the_share_and_the_longest_time_hold_whatever_happens(
    steps: list[tuple[str, str, float]], share: float
) -> None:
    policy = Policy(after=2, first_s=1.0, longest_s=4.0, share=share)
    made = ejections(6, policy)
    refusing: set[str] = set()
    now = 0.0
    for name, what, wait_s in steps:
        now += wait_s
        if what == "answer":
            made.answered(name, now, now)
        elif (seconds := made.failed(name, now, is_connected=what == "fail")) is not None:
            assert 1.0 <= seconds <= 4.0
            (refusing.discard if what == "fail" else refusing.add)(name)
        out = {one for one in "abcdef" if made.until(one) > now}
        assert len(out - refusing) <= share * 6
