"""Slopes of made-up memory: what is sure is said to be, and what is not is not."""

from __future__ import annotations

import random

import pytest

from benchmarks.slope import quantile, slope

HOURS = [n / 1000 for n in range(100)]


def test_a_line_is_known_exactly() -> None:
    found = slope(HOURS, [100 + 5 * (hour - 0.0495) for hour in HOURS])
    assert found.percent_per_h == pytest.approx(5)
    assert found.half_width == pytest.approx(0, abs=1e-6)


def test_memory_that_does_not_move_has_no_slope() -> None:
    found = slope(HOURS, [48.0] * 100)
    assert (found.percent_per_h, found.half_width) == (0, 0)


def test_of_noise_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    chance, held = random.Random(1), 0
    for _ in range(400):
        found = slope(HOURS, [100 + 20 * hour + chance.gauss(0, 1) for hour in HOURS])
        held += abs(found.percent_per_h * 0.01 * (100 + 20 * 0.0495) - 20) <= found.half_width
    assert 0.92 <= held / 400 <= 0.985


def test_samples_that_repeat_each_other_count_less() -> None:
    chance = random.Random(2)
    single = [100 + chance.gauss(0, 1) for _ in range(25)]
    repeated = [value for value in single for _ in range(4)]
    few = slope(HOURS[::4], single)
    many = slope(HOURS, repeated)
    assert many.half_width > 0.7 * few.half_width


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        slope([0.0, 1.0], [1.0, 2.0])


@pytest.mark.parametrize(("freedom", "expected"), [(3, 3.182), (10, 2.228), (30, 2.042), (1000, 1.962)])
def test_students_quantile(freedom: float, expected: float) -> None:
    assert quantile(freedom) == pytest.approx(expected, rel=0.04)
