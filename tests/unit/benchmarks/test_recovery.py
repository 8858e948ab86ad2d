"""How long puts stayed slow: of samples made up for it."""

from __future__ import annotations

import pytest

from benchmarks.recovery import CALM_WINDOWS, WINDOW_S, Sample, recovered

KILLED = 100.0


def samples(slow_until: float, *, failed_until: float = 0.0, seconds: float = 6.0) -> list[Sample]:
    """A put every 10 ms from 2 s before: 1 ms each, then none, then 10 ms, then 1.5 ms."""
    made = []
    for n in range(-2 * 100, int(seconds * 100)):
        due = n / 100
        took = 0.001 if due < 0 else None if due < failed_until else 0.01 if due < slow_until else 0.0015
        made.append(Sample(KILLED + due, took))
    return made


def test_nothing_that_was_felt() -> None:
    assert recovered(samples(0), KILLED, KILLED + 6) == 0


@pytest.mark.parametrize(("slow_until", "failed_until"), [(1.0, 0.0), (0.0, 1.0), (1.0, 0.5)])
def test_slow_and_failed_puts_count(slow_until: float, failed_until: float) -> None:
    assert recovered(samples(slow_until, failed_until=failed_until), KILLED, KILLED + 6) == 1.0


def test_a_relapse_starts_again() -> None:
    made = [Sample(s.due, 0.01) if 2 <= s.due - KILLED < 2.1 else s for s in samples(1.0)]
    assert recovered(made, KILLED, KILLED + 6) == 2.25


def test_what_has_not_been_calm_for_long_enough_is_not_over() -> None:
    enough = 1.0 + CALM_WINDOWS * WINDOW_S
    assert recovered(samples(1.0), KILLED, KILLED + enough - 0.01) is None
    assert recovered(samples(1.0), KILLED, KILLED + enough) == 1.0


def test_there_must_be_something_to_compare_with() -> None:
    with pytest.raises(ValueError, match="no values"):
        recovered([Sample(KILLED + 1, 0.1)], KILLED, KILLED + 6)
