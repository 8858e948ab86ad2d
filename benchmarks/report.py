"""Tables: at the terminal, and between the markers of docs/performance.md.

Rows that compare ours with etcd are one table; rows that compare more servers are another, a line for each of
them, with what its answer stands for.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import plots
from benchmarks.figures import FLOOR, OURS, THEIRS, Figure

FOLDER = Path("docs/performance")
PAGE = Path("docs/performance.md")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PEERS_HEAD = ("", "server", "median", "kvstore to it", "what its answer stands for")


def machine() -> str:
    return f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, CPython {platform.python_version()}"


def show(figures: Sequence[Figure], console: Console) -> None:
    beside, among = _split(figures)
    if beside:
        _show_beside(beside, console)
    if among:
        _show_among(among, console)


def _split(figures: Sequence[Figure]) -> tuple[list[Figure], list[Figure]]:
    """Those of the table beside etcd, and those of the table of peers."""
    return [one for one in figures if not one.stated], [one for one in figures if one.stated]


def _servers(figures: Sequence[Figure]) -> tuple[str, ...]:
    """The columns: the floor is one where it was measured."""
    return (OURS, THEIRS, FLOOR) if any(FLOOR in one.values for one in figures) else (OURS, THEIRS)


def _show_beside(figures: Sequence[Figure], console: Console) -> None:
    title = f"three members each, fsync on a majority before every answer; {machine()}"
    servers = _servers(figures)
    table = Table("", *servers, "ratio", "wanted", title=title)
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            table.add_section()
            table.add_row(f"[bold]{group}")
        colour = {True: "[green]", False: "[red]", None: ""}[figure.reached]
        values = (figure.text(server) if server in figure.values else "" for server in servers)
        table.add_row(f"  {figure.name}", *values, colour + figure.ratio_text(), figure.wanted_text())
    console.print(table)


def _show_among(figures: Sequence[Figure], console: Console) -> None:
    table = Table(
        *PEERS_HEAD, title=f"three members each, asked by a client in Python, no h2load; {machine()}"
    )
    for figure in figures:
        table.add_section()
        for row in among_rows(figure):
            table.add_row(*row)
    console.print(table)


def among_rows(figure: Figure) -> list[tuple[str, str, str, str, str]]:
    """A line for each server of a figure that compares several, in the order they stand in it."""
    rows: list[tuple[str, str, str, str, str]] = []
    for server in figure.values:
        ratio = "" if server == OURS else figure.ratio_text(server)
        name = "" if rows else f"{figure.group}: {figure.name}"
        rows.append((name, server, figure.text(server), ratio, figure.stated.get(server, "")))
    return rows


def markdown(figures: Sequence[Figure], drawn: Sequence[Path], when: str, turns: int) -> str:
    beside, among = _split(figures)
    servers = _servers(beside)
    lines = [
        f"Measured {when} on {machine()}; {turns} turns, medians, the spread of the turns' ratios in brackets.",
        "",
        "![how many times better than etcd](performance/overview.svg)",
        "",
        f"| | {' | '.join(servers)} | ratio | wanted |",
        "|---" * (3 + len(servers)) + "|",
    ]
    for figure in beside:
        cells = (
            f"{figure.group}: {figure.name}",
            *(figure.text(server) if server in figure.values else "" for server in servers),
            figure.ratio_text(),
            figure.wanted_text() + {True: " ✓", False: " ✗", None: ""}[figure.reached],
        )
        lines.append(f"| {' | '.join(cells)} |")
    if among:
        lines += ["", f"| {' | '.join(PEERS_HEAD)} |", "|---" * len(PEERS_HEAD) + "|"]
        lines += [f"| {' | '.join(row)} |" for figure in among for row in among_rows(figure)]
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
