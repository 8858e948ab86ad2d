"""What a member keeps in memory: itself and its child processes, each page once, from /proc.

A member of ours is two processes. Adding up what each has resident counts Python, the libraries and the pages of
the database that both have mapped twice, which no machine pays. So:

    anonymous     of every process: heaps, stacks, and what they have changed of a file's pages
    shared map    a database's pages: what /proc calls proportional, as nobody but the member maps it
    private map   programs and libraries: for each, the most that one of the processes has

Of a server that is one process the sum is what is resident, to the page. The pages of files are the kernel's to take
back whenever it needs them; anonymous ones are not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """MiB. resident: of all of it; anonymous: of that, what the kernel cannot take back without swapping."""

    resident: float
    anonymous: float


def memory_of(pid: int) -> Memory:
    return counted(Path(f"/proc/{process}/smaps").read_text() for process in [pid, *descendants(pid)])


def counted(processes: Iterable[str]) -> Memory:
    """What several processes of one member have, from their smaps."""
    anonymous = shared = 0
    private: dict[str, int] = {}
    for smaps in processes:
        files: defaultdict[str, int] = defaultdict(int)
        for file, is_shared, sizes in mappings(smaps):
            anonymous += sizes["Anonymous"]
            if is_shared:
                shared += sizes["Pss"]
            else:
                files[file] += sizes["Rss"] - sizes["Anonymous"]
        for file, size in files.items():
            private[file] = max(private.get(file, 0), size)
    return Memory((anonymous + shared + sum(private.values())) / 1024, anonymous / 1024)


def mappings(smaps: str) -> Iterable[tuple[str, bool, dict[str, int]]]:
    """(file or "", whether it is mapped shared, sizes in KiB) of each mapping."""
    file, is_shared, sizes = "", False, dict[str, int]()
    for line in smaps.splitlines():
        words = line.split(maxsplit=5)
        if words[0].endswith(":"):
            if words[-1] == "kB":
                sizes[words[0][:-1]] = int(words[1])
            continue
        if sizes:
            yield file, is_shared, sizes
        file, is_shared, sizes = (words[5] if len(words) > 5 else ""), words[1][3] == "s", {}
    if sizes:
        yield file, is_shared, sizes


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found
