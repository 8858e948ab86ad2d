"""Pictures (SVG): where the time from READY=1 to the first answer goes, and how each hop is spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import OURS, THEIRS
from benchmarks.plots import COLOURS, prepare, save
from benchmarks.routed import hops
from benchmarks.routed.rows import SHARES, Row, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOP_COLOURS = {"heard": "#9ecae1", "event": "#1f6f50", "configured": "#e6a03c", "answered": "#8a8f98"}
SLOW = 5
Timed = Mapping[tuple[str, str], Row]  # by driver and mark
MARK_OF = {name: mark for mark, name in hops.NAMES.items()}


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """The files written, none without rounds. Raises ImportError without matplotlib."""
    timed = {(row.driver, MARK_OF[row.hop]): row for row in rows if row.hop in MARK_OF}
    drivers = list(dict.fromkeys(driver for driver, _ in timed))
    if not drivers:
        return []
    prepare()
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _stacked(drivers, timed, folder / "ready-to-routed.svg"),
        _spread(drivers, timed, folder / "ready-to-routed-hops.svg"),
    ]


def _stacked(drivers: Sequence[str], timed: Timed, path: Path) -> Path:
    """Medians end to end, a bar for each proxy and server; p99 of the whole as a line. Proxies that take many times
    as long as the quickest have a scale of their own."""
    from matplotlib import pyplot

    fastest = min(_whole(timed, driver).p50 for driver in drivers)
    quick = [one for one in drivers if _whole(timed, one).p50 <= SLOW * fastest]
    panels = [some for some in (quick, [one for one in drivers if one not in quick]) if some]
    canvas, grid = pyplot.subplots(
        len(panels),
        1,
        figsize=(8, 0.8 * len(drivers) + 0.7 * len(panels) + 0.5),
        layout="constrained",
        squeeze=False,
        height_ratios=[len(some) for some in panels],
    )
    for axes, some in zip(grid[:, 0], panels):
        _bars(axes, some, timed)
    grid[-1, 0].set_xlabel("ms since READY=1: medians of the hops end to end, | p99 of the whole")
    grid[0, 0].legend(frameon=False, ncols=2, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return save(canvas, path)


def _bars(axes: Axes, drivers: Sequence[str], timed: Timed) -> None:
    names = []
    for at, (driver, server) in enumerate(
        (driver, server)
        for driver in reversed(drivers)
        for server in (THEIRS, OURS)
        if server in timed[driver, "answered"].spreads
    ):
        names.append(f"{driver}, {server}")
        left = 0.0
        medians = {mark: timed[driver, mark].spreads[server].p50 for mark in hops.WAY}
        for mark, took in hops.steps(medians).items():
            label = hops.STEPS[mark] if driver == drivers[0] and server == OURS else None
            faint = 1.0 if server == OURS else 0.45
            axes.barh(at, took, left=left, color=HOP_COLOURS[mark], label=label, height=0.75, alpha=faint)
            left += took
        whole = timed[driver, "answered"].spreads[server]
        axes.plot([whole.p99, whole.p99], [at - 0.37, at + 0.37], color="black", linewidth=1.2)
        axes.annotate(
            f"{whole.p50:.2f} | {whole.p99:.2f}",
            (max(left, whole.p99), at),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(names)), names)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)


def _whole(timed: Timed, driver: str) -> Spread:
    """Of ours, or of the one that was measured."""
    spreads = timed[driver, "answered"].spreads
    return spreads.get(OURS) or next(iter(spreads.values()))


def _spread(drivers: Sequence[str], timed: Timed, path: Path) -> Path:
    """The share of rounds that had come so far by so many ms: a panel for each proxy, a line for each moment."""
    from matplotlib import pyplot

    canvas, grid = pyplot.subplots(
        len(drivers),
        1,
        figsize=(8, 1.9 * len(drivers) + 0.6),
        layout="constrained",
        sharex=True,
        squeeze=False,
    )
    for axes, driver in zip(grid[:, 0], drivers):
        _panel(axes, driver, timed)
    grid[-1, 0].set_xlabel("ms since READY=1")
    grid[0, 0].legend(frameon=False, fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.12))
    return save(canvas, path)


def _panel(axes: Axes, driver: str, timed: Timed) -> None:
    for mark in hops.WAY:
        for server, style in ((OURS, "-"), (THEIRS, ":")):
            spread = timed[driver, mark].spreads.get(server)
            if spread is None or (mark == "configured" and spread == timed[driver, "event"].spreads[server]):
                continue
            colour = COLOURS[OURS] if mark == "event" else HOP_COLOURS[mark]
            axes.plot(spread.quantiles, SHARES, style, color=colour, label=f"{mark}, {server}", linewidth=1.3)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(alpha=0.25, which="both", linewidth=0.5)
    axes.set_ylim(0, 1)
    axes.set_title(driver, loc="left", fontsize=9)
