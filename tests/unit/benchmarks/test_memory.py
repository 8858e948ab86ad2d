"""What a member is said to keep: every page once, and of a lone process what /proc says is resident."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.memory import counted

LIBRARY = """\
7f0000000000-7f0000100000 r-xp 00000000 fe:00 1234    /usr/lib/libone.so
Size:               1024 kB
Rss:                 {rss} kB
Pss:                  10 kB
Anonymous:            {anonymous} kB
VmFlags: rd ex mr mw me
"""
DATABASE = """\
7f1000000000-7f1000100000 r--s 00000000 fe:00 1235    /var/lib/a data base/state.mdb
Size:               1024 kB
Rss:                 800 kB
Pss:                 {pss} kB
Anonymous:             0 kB
"""
HEAP = """\
55a000000000-55a000100000 rw-p 00000000 00:00 0       [heap]
Rss:                 300 kB
Pss:                 300 kB
Anonymous:           300 kB
7f2000000000-7f2000100000 rw-p 00000000 00:00 0
Rss:                 100 kB
Pss:                 100 kB
Anonymous:           100 kB
"""


def test_pages_that_two_processes_share_count_once() -> None:
    parent = LIBRARY.format(rss=512, anonymous=12) + DATABASE.format(pss=600) + HEAP
    child = LIBRARY.format(rss=412, anonymous=12) + DATABASE.format(pss=424) + HEAP
    both = counted([parent, child])
    assert both.anonymous * 1024 == pytest.approx(12 + 400 + 12 + 400)
    assert both.resident * 1024 == pytest.approx(500 + 1024 + both.anonymous * 1024)


def test_of_one_process_it_is_what_is_resident() -> None:
    """The text of a file in several mappings among it, and the kernel's own few pages aside."""
    rollup = Path(f"/proc/{os.getpid()}/smaps_rollup").read_text()
    resident = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Rss:"))
    found = counted([Path("/proc/self/smaps").read_text()])
    assert found.resident == pytest.approx(resident / 1024, rel=0.05)
    assert 0 < found.anonymous < found.resident
