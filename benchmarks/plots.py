"""The figures as pictures (SVG): how many times better each is, and how costs grow with their load."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import FLOOR, OURS, THEIRS, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    OURS: "#1f6f50",
    THEIRS: "#8a8f98",
    FLOOR: "#c9b458",
    "zookeeper": "#3b6ea5",
    "nats": "#7a4fa3",
    "pysyncobj": "#b0473a",
}
WORSE = "#c2571a"
LOADS = {
    "put": "puts in flight",
    "range": "keys in the answer",
    "txn": "clients",
    "watch fan-out": "watchers",
    "watch fan-out, p99": "watchers",
    "members": "members",
    "linearizable get": "gets in flight",
    "serializable get": "gets in flight",
    "memory by keys": "keys",
    "peers, put": "puts in flight",
    "peers, get": "gets in flight",
    "catch-up by distance": "revisions back",
}


def draw(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """The files written. Raises ImportError without matplotlib."""
    prepare()
    folder.mkdir(parents=True, exist_ok=True)
    compared = [one for one in figures if one.advantage and not one.stated]
    paths = [_overview(compared, folder / "overview.svg")] if compared else []
    groups: dict[str, list[Figure]] = defaultdict(list)
    for figure in figures:
        if figure.load is not None:
            groups[figure.group].append(figure)
    for group, rows in groups.items():
        if len(rows) > 2:
            paths.append(_growth(group, rows, folder / f"{_file_name(group)}.svg"))
    return paths


def prepare() -> None:
    """Files without a display, and the same file for the same figures. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "kvstore", "font.size": 9, "axes.spines.top": False})
    matplotlib.rcParams["axes.spines.right"] = False


def _overview(figures: Sequence[Figure], path: Path) -> Path:
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(figsize=(9, 0.26 * len(figures) + 1.1), layout="constrained")
    rows = list(reversed(figures))
    values = [one.advantage or 1.0 for one in rows]
    axes.barh(
        range(len(rows)),
        [value - 1 for value in values],
        left=1,
        color=[COLOURS[OURS] if value >= 1 else WORSE for value in values],
    )
    for at, value in enumerate(values):
        side = "left" if value >= 1 else "right"
        axes.annotate(
            f"{value:,.0f}×" if value >= 10 else f"{value:.2g}×",
            (value, at),
            (3 if value >= 1 else -3, 0),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=8,
        )
    axes.set_xscale("log", base=2)
    axes.margins(x=0.12, y=0.01)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{one.group}: {one.name}" for one in rows])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.set_xlabel("times better than etcd in the same run")
    return save(canvas, path)


def _growth(group: str, rows: Sequence[Figure], path: Path) -> Path:
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(figsize=(5.2, 3.2), layout="constrained")
    for server in dict.fromkeys(server for one in rows for server in one.values):
        there = [one for one in rows if server in one.values]
        loads = [one.load or 0 for one in there]
        axes.plot(loads, [one.of(server) for one in there], "o-", color=COLOURS[server], label=server)
        lowest = [min(one.values[server]) for one in there]
        highest = [max(one.values[server]) for one in there]
        axes.fill_between(loads, lowest, highest, color=COLOURS[server], alpha=0.15, linewidth=0)
    _scales(axes, group, rows[0].unit)
    return save(canvas, path)


def _scales(axes: Axes, group: str, unit: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,g}" if value >= 1 else f"{value:g}")
        axis.set_minor_formatter(lambda value, _: "")
    axes.grid(alpha=0.25, which="both", linewidth=0.5)
    axes.set_xlabel(LOADS.get(group, ""))
    axes.set_ylabel("a second" if unit == "/s" else unit)
    axes.set_title(group, loc="left")
    axes.legend(frameon=False)


def save(canvas: Any, path: Path) -> Path:
    from matplotlib import pyplot

    canvas.savefig(path, metadata={"Date": None})
    pyplot.close(canvas)
    return path


def _file_name(group: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in group).split())
