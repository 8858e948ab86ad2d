"""A few figures that stand for all, in under two minutes, beside the ratios that were recorded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.figures import Figure
from benchmarks.report import show

RECORD = Path("docs/performance/smoke.json")
CASES = ("put", "get", "catch-up")
WORSE = 0.8
ATTEMPTS = 3


def main(
    measure: Callable[[Sequence[str]], list[Figure]], options: argparse.Namespace, console: Console
) -> int:
    """0 when no figure is worse than WORSE times its record. What seems to be is measured again: one disturbed
    turn on a shared machine is no regression, three runs in a row are."""
    if not options.record and not RECORD.exists():
        console.print(f"there is no {RECORD} yet: python -m benchmarks --smoke --record makes it")
        return 1
    options.quick, options.turns = True, max(2, options.turns)
    best: dict[str, float] = {}
    record = {} if options.record else json.loads(RECORD.read_text())
    for attempt in range(1 if options.record else ATTEMPTS):
        figures = measure(CASES)
        show(figures, console)
        for figure in figures:
            if figure.advantage is not None:
                best[figure.name] = max(best.get(figure.name, 0.0), figure.advantage)
        if options.record:
            RECORD.parent.mkdir(parents=True, exist_ok=True)
            RECORD.write_text(
                json.dumps({name: round(value, 3) for name, value in best.items()}, indent=1) + "\n"
            )
            return 0
        late = regressions(best, record)
        if not late:
            console.print(f"{len(record)} figures are as recorded, or better than {WORSE:g} of it")
            return 0
        for line in late:
            console.print(f"attempt {attempt + 1} of {ATTEMPTS}: {line}")
    return 1


def regressions(measured: dict[str, float], recorded: dict[str, float]) -> list[str]:
    """A line for each figure that is missing, or that is more than a fifth worse than recorded."""
    found = []
    for name, was in recorded.items():
        now = measured.get(name)
        if now is None:
            found.append(f"{name}: not measured")
        elif now < WORSE * was:
            found.append(f"{name}: {now:.2f} times as good as etcd, recorded {was:.2f}")
    return found
