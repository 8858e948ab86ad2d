"""Tables: at the terminal, and between the markers of docs/performance.md."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import plots
from benchmarks.figures import OURS, THEIRS, Figure

FOLDER = Path("docs/performance")
PAGE = Path("docs/performance.md")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def machine() -> str:
    return f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, CPython {platform.python_version()}"


def show(figures: Sequence[Figure], console: Console) -> None:
    title = f"three members each, fsync on a majority before every answer; {machine()}"
    table = Table("", OURS, THEIRS, "ratio", "wanted", title=title)
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            table.add_section()
            table.add_row(f"[bold]{group}")
        colour = {True: "[green]", False: "[red]", None: ""}[figure.reached]
        table.add_row(
            f"  {figure.name}", figure.text(OURS), figure.text(THEIRS), colour + figure.ratio_text(),
            figure.wanted_text(),
        )  # fmt: skip
    console.print(table)


def markdown(figures: Sequence[Figure], drawn: Sequence[Path], when: str, turns: int) -> str:
    lines = [
        f"Measured {when} on {machine()}; {turns} turns, medians, the spread of the turns' ratios in brackets.",
        "",
        "![how many times better than etcd](performance/overview.svg)",
        "",
        "| | kvstore | etcd | ratio | wanted |",
        "|---|---|---|---|---|",
    ]
    for figure in figures:
        cells = (
            f"{figure.group}: {figure.name}", figure.text(OURS), figure.text(THEIRS), figure.ratio_text(),
            figure.wanted_text() + {True: " ✓", False: " ✗", None: ""}[figure.reached],
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for path in drawn:
        if path.stem != "overview":
            lines.append(f"![{path.stem}](performance/{path.name})")
    return "\n".join(lines)


def publish(figures: Sequence[Figure], when: str, turns: int) -> None:
    """Rewrites the figures' part of docs/performance.md and its pictures. Raises ValueError without markers."""
    drawn = plots.draw(figures, FOLDER)
    rewrite(PAGE, markdown(figures, drawn, when, turns))


def rewrite(page: Path, figures: str) -> None:
    """Puts the text between the markers of the page. Raises ValueError without markers."""
    text = page.read_text()
    found = re.search(f"{BEGIN}.*{END}", text, re.DOTALL)
    if found is None:
        raise ValueError(f"{page} has no {BEGIN} … {END}")
    page.write_text(f"{text[: found.start()]}{BEGIN}\n{figures}\n{END}{text[found.end() :]}")
