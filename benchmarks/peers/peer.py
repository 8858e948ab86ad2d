"""What a peer is to the comparison, and the load that is the same for all of them.

The load comes from this process: asyncio, and frames written by hand for whatever protocol the peer speaks. A call
costs it 22 µs of CPU over HTTP/2, 10 to 12 with ZooKeeper, 12 to 17 with NATS, so that above some 15,000 a second
the client weighs on every row, and most on ours and etcd's. The peers' own client libraries take ten times that
(kazoo 2.11: 200 µs a setData), and their rows would show the library. It is not h2load, which only speaks HTTP/2:
ours and etcd are measured with this client too, so rows compare like with like.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.load import LoadFailed, Shape
from kvstore.demo.processes import Program, Programs

VALUE = b"v" * 256
LIMIT_S = 120.0

OnDone = Callable[[str], None]
"""Called once: "" when the call was answered as it should be, else what went wrong."""
Ask = Callable[[OnDone], None]
"""Sends one call; many may be in flight on a connection."""


class Unavailable(Exception):
    """The peer cannot be measured here: which program or package is missing, and how to get it."""


def last_words(programs: Sequence[Program]) -> str:
    """What the first of them that has ended wrote last; "" while all run."""
    for one in programs:
        if one.status is not None:
            return f"{one.name} ended:\n{one.tail()}"
    return ""


class Connection(Protocol):
    def put(self, done: OnDone) -> None: ...

    def get(self, done: OnDone) -> None: ...

    def close(self) -> None: ...


class Peer(Protocol):
    """Three members of one kind. What is stated of puts and gets is what a reader must know to compare them."""

    name: str
    puts: str
    gets: str  # "": it has none that would say something

    async def start(self, folder: Path, programs: Programs) -> None:
        """Returns when the three serve; they end with programs. Raises Unavailable, before anything is started."""

    async def rate(self, operation: str, shape: Shape) -> float:
        """Calls a second of "put" or "get". Raises LoadFailed."""


async def drive(connect: Callable[[], Awaitable[Connection]], operation: str, shape: Shape) -> float:
    """Calls a second, over connections that are made for it."""
    connections = [await connect() for _ in range(shape.connections)]
    asks: list[Ask] = [one.put if operation == "put" else one.get for one in connections]
    try:
        async with asyncio.timeout(LIMIT_S):
            await pipelined(
                asks, shape.streams, shape.calls // 10
            )  # so that all are connected, and code is warm
            began = time.perf_counter()
            await pipelined(asks, shape.streams, shape.calls)
        return shape.calls / (time.perf_counter() - began)
    except TimeoutError:
        raise LoadFailed(f"{shape.calls} of {operation} took longer than {LIMIT_S:g} s") from None
    finally:
        for one in connections:
            one.close()


async def pipelined(asks: Sequence[Ask], in_flight: int, calls: int) -> None:
    """So many calls in all, in_flight of them at a time on each connection. Raises LoadFailed at the first that
    fails."""
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left, unanswered = calls, calls

    def begin(ask: Ask) -> None:
        nonlocal left
        if left:
            left -= 1
            ask(lambda problem: end(ask, problem))

    def end(ask: Ask, problem: str) -> None:
        nonlocal unanswered
        unanswered -= 1
        if finished.done():
            return
        if problem:
            finished.set_exception(LoadFailed(problem))
        elif not unanswered:
            finished.set_result(None)
        else:
            begin(ask)

    for _ in range(in_flight):
        for ask in asks:
            begin(ask)
    await finished
