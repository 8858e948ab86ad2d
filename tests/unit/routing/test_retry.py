"""What may be sent again, and how often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.routing.retry import WINDOW_S, Budget, Fault, may_repeat


@pytest.mark.parametrize(
    ("fault", "method", "is_body_at_hand", "expected"),
    [
        (Fault.NOT_CONNECTED, "GET", True, True),
        (Fault.NOT_CONNECTED, "POST", True, True),  # nothing was sent
        (Fault.NOT_CONNECTED, "POST", False, False),
        (Fault.BROKEN_OFF, "GET", True, True),
        (Fault.BROKEN_OFF, "PUT", True, True),
        (Fault.BROKEN_OFF, "PUT", False, False),
        (Fault.BROKEN_OFF, "POST", True, False),
        (Fault.BROKEN_OFF, "PATCH", True, False),
        (Fault.TOO_SLOW, "GET", True, False),
    ],
)
def test_may_repeat(fault: Fault, method: str, is_body_at_hand: bool, expected: bool) -> None:
    assert may_repeat(fault, method, is_body_at_hand=is_body_at_hand) is expected


def taken(budget: Budget, now: float, count: int) -> int:
    return sum(budget.take(now) for _ in range(count))


def test_a_quiet_service_has_the_minimum() -> None:
    assert taken(Budget(share=0.2, per_s=1.0), 100.0, 50) == 10


def test_and_a_busy_one_its_share_on_top() -> None:
    budget = Budget(share=0.2, per_s=1.0)
    for _ in range(100):
        budget.request(100.0)
    assert taken(budget, 100.9, 50) == 30
    assert (budget.spent_count, budget.refused_count) == (30, 20)


def test_what_was_asked_and_spent_is_forgotten_after_the_window() -> None:
    budget = Budget(share=0.5, per_s=0.0)
    for _ in range(10):
        budget.request(100.0)
    assert taken(budget, 105.0, 9) == 5
    assert taken(budget, 109.9, 1) == 0
    budget.request(109.9)
    budget.request(109.9)
    assert taken(budget, 110.0, 1) == 0  # the ten are forgotten, the five that were spent at 105 are not
    assert taken(budget, 115.0, 9) == 1


def test_a_long_silence_forgets_everything() -> None:
    budget = Budget(share=1.0, per_s=0.0)
    budget.request(3.0)
    assert taken(budget, 1000.0, 1) == 0
    budget.request(1000.0)
    assert taken(budget, 1000.0, 2) == 1


def test_nothing_at_all() -> None:
    budget = Budget(share=0.0, per_s=0.0)
    budget.request(1.0)
    assert not budget.take(1.0)


@given(
    st.lists(st.tuples(st.sampled_from(("request", "take")), st.sampled_from((0.0, 0.3, 1.0, 4.0, 25.0)))),
    st.sampled_from((0.0, 0.2, 1.0)),
    st.sampled_from((0.0, 0.1, 1.0)),
)
def test_as_a_naive_model_counts(steps: list[tuple[str, float]], share: float, per_s: float) -> None:
    budget = Budget(share, per_s)
    requests: list[int] = []
    repeats: list[int] = []
    now = 50.0
    for what, wait_s in steps:
        now += wait_s
        second = int(now)
        if what == "request":
            budget.request(now)
            requests.append(second)
            continue
        recent = sum(second - one < WINDOW_S for one in requests)
        spent = sum(second - one < WINDOW_S for one in repeats)
        may = spent + 1 <= share * recent + per_s * WINDOW_S
        assert budget.take(now) is may
        repeats += [second] * may
