"""How far a long command is, on a terminal: one line on stderr that goes when it is done."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Advance = Callable[[str, int, int], None]
"""(what is done, how much of it, of how much; 0: nobody knows)."""


@contextlib.contextmanager
def progress(*, of_bytes: bool = True) -> Iterator[Advance]:
    """Says nothing where stderr is no terminal, and does not import what draws then."""
    if not sys.stderr.isatty():
        yield lambda what, done, whole: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as drawn:
        task, current = drawn.add_task("", total=None), ""

        def advance(what: str, done: int, whole: int) -> None:
            nonlocal current
            if what != current:
                current = what
                drawn.reset(task, description=what)
            drawn.update(task, completed=done, total=max(whole, done) if whole else None)

        yield advance
