"""What a measurement gives: one row, a value a turn for each server, and the ratio between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

OURS, THEIRS = "kvstore", "etcd"
FLOOR = "floor"
"""The least that three members can do (benchmarks/floor), measured beside them where puts are."""


@dataclass(frozen=True)
class Figure:
    """One row. unit: "/s" (more is better) or "ms", "s", "MiB" (less is better). values: a value a turn for each
    server, in the order of the turns. load: where the row stands on its group's plot. at_least, aim: the ratio
    (ours to etcd's) that the project wants. stated: of each server, what its answer stands for and by which client
    it was asked; only in rows that compare more than two, which have a table of their own."""

    group: str
    name: str
    unit: str
    values: Mapping[str, Sequence[float]]
    load: float | None = None
    at_least: float | None = None
    aim: float | None = None
    note: str = field(default="", compare=False)
    stated: Mapping[str, str] = field(default_factory=dict)

    @property
    def more_is_better(self) -> bool:
        return self.unit == "/s"

    def of(self, server: str) -> float:
        return median(self.values[server])

    @property
    def ratio(self) -> float | None:
        return self.ratio_to(THEIRS)

    def ratio_to(self, server: str) -> float | None:
        """Ours to the server's, of the medians; None where only one of them was measured."""
        if OURS not in self.values or server not in self.values or not self.of(server):
            return None
        return self.of(OURS) / self.of(server)

    @property
    def spread(self) -> tuple[float, float] | None:
        return self.spread_to(THEIRS)

    def spread_to(self, server: str) -> tuple[float, float] | None:
        """The lowest and highest ratio of one turn."""
        if self.ratio_to(server) is None:
            return None
        each = [
            ours / theirs
            for ours, theirs in zip(self.values[OURS], self.values[server], strict=False)
            if theirs
        ]
        return (min(each), max(each)) if len(each) > 1 else None

    @property
    def advantage(self) -> float | None:
        """How many times better ours is, whatever the unit."""
        ratio = self.ratio
        if not ratio:
            return None
        return ratio if self.more_is_better else 1 / ratio

    @property
    def reached(self) -> bool | None:
        """Whether the ratio is what the project wants at least; None where it wants nothing."""
        if self.at_least is None or self.ratio is None:
            return None
        return self.ratio >= self.at_least if self.more_is_better else self.ratio <= self.at_least

    def text(self, server: str) -> str:
        if server not in self.values:
            return "–"
        value = self.of(server)
        digits = 0 if value >= 1000 or self.unit == "MiB" else 1 if value >= 100 else 2
        return f"{value:,.{digits}f}{'' if self.unit == '/s' else ' '}{self.unit}"

    def ratio_text(self, server: str = THEIRS) -> str:
        ratio, spread = self.ratio_to(server), self.spread_to(server)
        if ratio is None:
            return ""
        return f"{ratio:.2f} x" + ("" if spread is None else f" ({spread[0]:.2f}–{spread[1]:.2f})")

    def wanted_text(self) -> str:
        if self.at_least is None:
            return ""
        sign = "≥" if self.more_is_better else "≤"
        return f"{sign} {self.at_least:g} x" + ("" if self.aim is None else f", aim {self.aim:g} x")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Figure:
        return cls(**{name: value for name, value in given.items() if name != "ratio"})


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed: share 0.99 is p99. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
