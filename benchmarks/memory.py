"""What a member keeps in memory: itself and its child processes, from /proc."""

from __future__ import annotations

from pathlib import Path


def resident_mb(pid: int) -> tuple[float, float]:
    """(resident MiB of the process and its descendants, proportional MiB of the same): the second counts pages
    that several of them share once."""
    found = _rollup(pid)
    return found["Rss"], found["Pss"]


def own_mb(pid: int) -> tuple[float, float]:
    """(resident MiB, those of them that are no file's pages), of the process and its descendants."""
    found = _rollup(pid)
    return found["Rss"], found["Anonymous"]


def _rollup(pid: int) -> dict[str, float]:
    found = {"Rss": 0.0, "Pss": 0.0, "Anonymous": 0.0}
    for process in [pid, *descendants(pid)]:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            name, _, size = line.partition(":")
            if name in found:
                found[name] += int(size.split()[0]) / 1024
    return found


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found
