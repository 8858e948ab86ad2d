"""How fast something grows, and how sure that is. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

Z = 1.959964  # of the normal distribution's middle 95 %
SAMPLES_MIN = 8


@dataclass(slots=True, frozen=True)
class Slope:
    """% of the mean an hour, and half the width of its 95 % confidence interval."""

    percent_per_h: float
    half_width: float

    @property
    def at_least(self) -> float:
        return self.percent_per_h - self.half_width

    def __str__(self) -> str:
        return f"{self.percent_per_h:+.1f} ± {self.half_width:.1f} %/h"


def slope(hours: Sequence[float], values: Sequence[float]) -> Slope:
    """Least squares. Memory sampled often moves in steps, and neighbouring samples say nearly the same: there count
    only as many as the residuals' correlation with the ones before them leaves. Raises ValueError for fewer than
    SAMPLES_MIN."""
    count = len(values)
    if count < SAMPLES_MIN or len(hours) != count:
        raise ValueError(f"{count} samples are too few for a slope")
    middle, mean = fmean(hours), fmean(values)
    spread = sum((hour - middle) ** 2 for hour in hours)
    steep = sum((hour - middle) * (value - mean) for hour, value in zip(hours, values)) / spread
    rest = [value - mean - steep * (hour - middle) for hour, value in zip(hours, values)]
    squares = sum(each**2 for each in rest)
    if squares < 1e-18 * max(mean**2, 1.0) * count:
        return Slope(100 * steep / mean, 0.0)
    correlation = max(0.0, sum(a * b for a, b in pairwise(rest)) / squares)
    independent = max(3.0, count * (1 - correlation) / (1 + correlation))
    # Of the variance of one sample, what the independent ones among them leave of the slope's.
    error = math.sqrt(squares / (independent - 2) / spread * count / independent)
    return Slope(100 * steep / mean, 100 * quantile(independent - 2) * error / mean)


def quantile(freedom: float) -> float:
    """Student's t of the middle 95 %, by Cornish and Fisher's expansion; good to 4 % from 3 degrees on, and below
    that too small by up to a half."""
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
