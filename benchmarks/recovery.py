"""How long puts stay slow after something happened. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.figures import percentile

WINDOW_S = 0.25
CALM_WINDOWS = 8
"""So many in a row must be as quick as before."""
SLOWER = 2.0
"""p99 above this many times that of before is slow."""


@dataclass(slots=True, frozen=True)
class Sample:
    """One put: when it was due, and how long after that it was acknowledged; None: it failed, or never was."""

    due: float
    took: float | None


def recovered(samples: Sequence[Sample], event: float, end: float) -> float | None:
    """Seconds from the event until the first of CALM_WINDOWS windows in a row in which every put was acknowledged
    and their p99 was at most SLOWER times that of before the event; None where that did not come before end. Raises
    ValueError without puts before the event that were acknowledged."""
    usual = percentile([each.took for each in samples if each.due < event and each.took is not None], 0.99)
    count = int((end - event) / WINDOW_S)
    windows: list[list[float | None]] = [[] for _ in range(count)]
    for each in samples:
        at = int((each.due - event) / WINDOW_S)
        if each.due >= event and at < count:
            windows[at].append(each.took)
    calm = 0
    for at, window in enumerate(windows):
        calm = calm + 1 if _is_calm(window, SLOWER * usual) else 0
        if calm == CALM_WINDOWS:
            return (at + 1 - CALM_WINDOWS) * WINDOW_S
    return None


def _is_calm(window: Sequence[float | None], most: float) -> bool:
    took = [each for each in window if each is not None]
    return bool(took) and len(took) == len(window) and percentile(took, 0.99) <= most
