"""GET /metrics: read on the loop, turned into text in a thread, with a library that is loaded at the first scrape.

A page is some 2,000 lines and takes a few milliseconds to write, in which calls must go on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.http.pages import Page, Query

if TYPE_CHECKING:
    from kvstore.metrics.sources import Reading, Sources

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsPage:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._answered = 0
        self._failed = 0

    async def __call__(self, query: Query) -> Page:
        reading = self._sources.read()
        try:
            text = await asyncio.get_running_loop().run_in_executor(
                None, _render, reading, (self._answered, self._failed)
            )
        except Exception:
            self._failed += 1
            raise
        self._answered += 1
        return Page(text, content_type=CONTENT_TYPE)


def _render(reading: Reading, scrapes: tuple[int, int]) -> str:
    from kvstore.metrics.families import render

    return render(reading, scrapes)
