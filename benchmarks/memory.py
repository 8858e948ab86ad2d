"""What a member keeps in memory: itself and its child processes, from /proc."""

from __future__ import annotations

from pathlib import Path


def resident_mb(pid: int) -> tuple[float, float]:
    """(resident MiB of the process and its descendants, proportional MiB of the same): the second counts pages
    that several of them share once."""
    return _sum(pid, "Rss:"), _sum(pid, "Pss:")


def own_mb(pid: int) -> float:
    """MiB that are no file's pages, of the process and its descendants."""
    return _sum(pid, "Anonymous:")


def _sum(pid: int, field: str) -> float:
    found = 0.0
    for process in [pid, *descendants(pid)]:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith(field):
                found += int(line.split()[1]) / 1024
    return found


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found
