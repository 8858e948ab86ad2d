"""The rows as tables: at the terminal, and between the markers of docs/ready-to-routed.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figures import OURS, THEIRS
from benchmarks.report import FOLDER, rewrite
from benchmarks.routed import pictures
from benchmarks.routed.rows import Row

PAGE = Path("docs/ready-to-routed.md")
MARKS = {True: " ✓", False: " ✗", None: ""}


def show(rows: Sequence[Row], console: Console, where: str) -> None:
    title = f"from ready to routed, three members each; p50 / p99; {where}"
    table = Table("", "through", OURS, THEIRS, "ratio", "wanted", title=title)
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            table.add_section()
            table.add_row(f"[bold]{group}")
        colour = {True: "[green]", False: "[red]", None: ""}[row.reached]
        what = row.hop + (f" ({row.note})" if row.note else "")
        hop = f"[dim]{what}" if row.is_detail else what
        table.add_row(
            f"  {hop}",
            row.driver,
            colour + row.text(OURS),
            row.text(THEIRS),
            row.ratio_text(),
            row.wanted_text(),
        )
    console.print(table)


def markdown(rows: Sequence[Row], drawn: Sequence[Path], when: str, where: str, rounds: int) -> str:
    wanted = [row for row in rows if not row.is_detail]
    details = [row for row in rows if row.is_detail]
    lines = [f"Measured {when} on {where}; {rounds:,} rounds; p50 / p99.", "", *table(wanted)]
    for path in drawn:
        lines += ["", f"![{path.stem}](performance/{path.name})"]
    if details:
        lines += ["", "The parts of it:", "", *table(details)]
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of markdown."""
    lines = [f"| | through | {OURS} | {THEIRS} | ratio | wanted |", "|---|---|---|---|---|---|"]
    for row in rows:
        what = f"{row.group}: {row.hop}" + (f" ({row.note})" if row.note else "")
        verdict = row.wanted_text() + MARKS[row.reached]
        cells = (what, row.driver, row.text(OURS), row.text(THEIRS), row.ratio_text(), verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def publish(rows: Sequence[Row], when: str, where: str, rounds: int) -> None:
    """Rewrites the figures' part of the page and its pictures. Raises ValueError without markers."""
    rewrite(PAGE, markdown(rows, pictures.draw(rows, FOLDER), when, where, rounds))
