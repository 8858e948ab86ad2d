"""Commands that run until they are told to stop: SIGINT and SIGTERM as an event of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Coroutine
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop(asyncio.Event):
    """Set by a signal; received is the first of them."""

    received: signal.Signals | None = None

    def receive(self, number: signal.Signals) -> None:
        self.received = self.received or number
        self.set()


@contextlib.asynccontextmanager
async def stopping() -> AsyncIterator[Stop]:
    """The signals have their usual meaning again afterwards."""
    loop, stop = asyncio.get_running_loop(), Stop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.receive, number)
    try:
        yield stop
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def until_any(task: asyncio.Task[Any] | Coroutine[Any, Any, Any], *events: asyncio.Event) -> bool:
    """Runs it until it is done, or until one of the events. True: it is done; what it raised is raised."""
    main = asyncio.ensure_future(task)
    others = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait((main, *others), return_when=asyncio.FIRST_COMPLETED)
        if not main.done():
            return False
        main.result()
        return True
    finally:
        for each in (main, *others):
            each.cancel()
        await asyncio.gather(main, *others, return_exceptions=True)
