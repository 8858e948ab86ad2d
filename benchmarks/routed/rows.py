"""What was measured, as rows: a distribution for each server, and what is wanted of it. Pure.

A row keeps 101 quantiles of its samples, so that a thousand rounds fit into a file that can be read, and a picture
can still be drawn from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.figures import OURS, THEIRS, percentile

SHARES = tuple(n / 100 for n in range(101))


@dataclass(frozen=True, slots=True)
class Spread:
    """count samples; quantiles: the smallest, those of 1 % to 99 %, the largest."""

    count: int
    quantiles: Sequence[float]

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Raises ValueError without samples."""
        return cls(len(samples), [round(percentile(samples, share), 4) for share in SHARES])

    @property
    def p50(self) -> float:
        return self.quantiles[50]

    @property
    def p99(self) -> float:
        return self.quantiles[99]

    @property
    def worst(self) -> float:
        return self.quantiles[100]


@dataclass(frozen=True, slots=True)
class Row:
    """One line. driver: what routes, "" where that does not matter; hop: what was timed, or counted. unit: "ms", or
    "" for a count, or "MiB". limit: what p99 of ours (or the count) may be; ratio_limit: what the ratio of the
    medians may be, ours to etcd's. is_detail: a part of the way, in the picture but not wanted for itself."""

    group: str
    hop: str
    unit: str
    spreads: Mapping[str, Spread]
    driver: str = ""
    limit: float | None = None
    ratio_limit: float | None = None
    is_detail: bool = False
    note: str = field(default="", compare=False)

    @property
    def is_count(self) -> bool:
        return self.unit != "ms"

    @property
    def ratio(self) -> float | None:
        """Ours to etcd's, of the medians; None where only one was measured, and for counts."""
        if self.unit == "" or OURS not in self.spreads or THEIRS not in self.spreads:
            return None
        theirs = self.spreads[THEIRS].p50
        return self.spreads[OURS].p50 / theirs if theirs else None

    @property
    def reached(self) -> bool | None:
        """Whether ours is as wanted; None where nothing is, or ours was not measured."""
        if OURS not in self.spreads:
            return None
        verdicts = []
        if self.limit is not None:
            ours = self.spreads[OURS]
            verdicts.append((ours.worst if self.is_count else ours.p99) <= self.limit)
        if self.ratio_limit is not None and self.ratio is not None:
            verdicts.append(self.ratio <= self.ratio_limit)
        return all(verdicts) if verdicts else None

    def text(self, server: str) -> str:
        """p50 / p99, or the count; a dash where it was not measured."""
        spread = self.spreads.get(server)
        if spread is None:
            return "–"
        if self.is_count:
            return f"{spread.worst:,.0f} {self.unit}".strip()
        return f"{_number(spread.p50)} / {_number(spread.p99)} {self.unit}"

    def ratio_text(self) -> str:
        return "" if self.ratio is None else f"{self.ratio:.2f} x"

    def wanted_text(self) -> str:
        parts = []
        if self.limit is not None:
            parts.append(f"{'' if self.is_count else 'p99 '}≤ {self.limit:,g} {self.unit}".strip())
        if self.ratio_limit is not None:
            parts.append(f"≤ {self.ratio_limit:g} x")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "reached": self.reached}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Row:
        fields = {name: value for name, value in given.items() if name not in ("ratio", "reached")}
        fields["spreads"] = {name: Spread(**spread) for name, spread in fields["spreads"].items()}
        return cls(**fields)


def counted(group: str, hop: str, counts: Mapping[str, float], unit: str = "", **more: Any) -> Row:
    """A row of one number for each server."""
    return Row(group, hop, unit, {name: Spread.of([float(count)]) for name, count in counts.items()}, **more)


def timed(group: str, hop: str, samples_ms: Mapping[str, Sequence[float]], **more: Any) -> Row:
    """A row of times; a server without samples is left out."""
    spreads = {name: Spread.of(samples) for name, samples in samples_ms.items() if samples}
    return Row(group, hop, "ms", spreads, **more)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "never"
    return f"{value:,.{0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2}f}"
