"""What `kvctl check` puts on a cluster, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.cli.options import Settings
    from kvstore.client import Client

KEY_BYTES = 256
MAX_CONNECTIONS = 16
BEAT_S = 0.02
VALUE = bytes(1024)


@dataclass(frozen=True)
class Load:
    """puts_per_second 0: as fast as they are answered. puts 0: until duration_s is over."""

    clients: int
    puts_per_second: int = 0
    duration_s: float = math.inf
    puts: int = 0
    key_bytes: int = KEY_BYTES
    value: bytes = VALUE

    def divided(self, count: int) -> list[Load]:
        """The same in so many equal parts; for loads with a rate, where a client more or less does no harm."""
        share = replace(
            self, clients=-(-self.clients // count), puts_per_second=-(-self.puts_per_second // count)
        )
        return [share] * count


@dataclass
class Outcome:
    """latencies_s: of the puts that succeeded. errors: how often each message came. lag_s: how late, on average,
    this side itself got to what it had to do."""

    elapsed_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    lag_s: float = 0.0

    def add(self, other: Outcome) -> None:
        """What another sender saw at the same time."""
        self.elapsed_s = max(self.elapsed_s, other.elapsed_s)
        self.latencies_s += other.latencies_s
        self.errors += other.errors
        self.lag_s = max(self.lag_s, other.lag_s)

    @property
    def puts_per_second(self) -> float:
        return len(self.latencies_s) / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def slowest_s(self) -> float:
        return max(self.latencies_s, default=0.0)

    @property
    def deviation_s(self) -> float:
        """The standard deviation of the latencies."""
        if not self.latencies_s:
            return 0.0
        mean = sum(self.latencies_s) / len(self.latencies_s)
        return math.sqrt(sum((each - mean) ** 2 for each in self.latencies_s) / len(self.latencies_s))


class Ticket:
    """Hands out the right to send the next put, at an even pace, until there are no more."""

    def __init__(self, load: Load, now: float) -> None:
        self._load = load
        self._start = now
        self._given = 0

    def next_at(self, now: float) -> float | None:
        """When the next put may be sent, now or later. None: there is none."""
        load = self._load
        if load.puts and self._given >= load.puts:
            return None
        at = now
        if load.puts_per_second:
            at = max(now, self._start + self._given / load.puts_per_second)
        if at - self._start >= load.duration_s:
            return None
        self._given += 1
        return at


async def put_under_load(
    settings: Settings, prefix: bytes, load: Load, progress: Callable[[int, float], None]
) -> Outcome:
    """Writes random keys under prefix. progress is told the number of puts and the seconds so far."""
    clock = asyncio.get_running_loop().time
    outcome = Outcome()
    async with contextlib.AsyncExitStack() as stack:
        # As many puts under way at once as there are to be clients, over some connections: one is a bottleneck
        # of its own, one for each of a thousand is another.
        connections = min(load.clients, MAX_CONNECTIONS)
        clients = [await stack.enter_async_context(settings.client()) for _ in range(connections)]
        started = clock()
        ticket = Ticket(load, started)
        beating = asyncio.create_task(_measure_lag(outcome))
        async with asyncio.TaskGroup() as group:
            for number in range(load.clients):
                client = clients[number % connections]
                group.create_task(_put_on(client, prefix, load, ticket, outcome, progress, started))
        outcome.elapsed_s = clock() - started
        beating.cancel()
    return outcome


async def put_from_processes(
    settings: Settings, prefix: bytes, load: Load, count: int, progress: Callable[[int, float], None]
) -> Outcome:
    """The same from so many processes, for what one cannot send."""
    loop = asyncio.get_running_loop()
    outcome = Outcome()
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        started = loop.time()
        running = [
            loop.run_in_executor(pool, _share, settings, prefix, share) for share in load.divided(count)
        ]
        while (await asyncio.wait(running, timeout=0.2))[1]:
            progress(0, loop.time() - started)
        for each in running:
            outcome.add(each.result())
    return outcome


def _share(settings: Settings, prefix: bytes, load: Load) -> Outcome:
    return asyncio.run(put_under_load(settings, prefix, load, lambda puts, elapsed_s: None))


async def _put_on(
    client: Client,
    prefix: bytes,
    load: Load,
    ticket: Ticket,
    outcome: Outcome,
    progress: Callable[[int, float], None],
    started: float,
) -> None:
    from kvstore.client.errors import ClientError

    clock = asyncio.get_running_loop().time
    while (at := ticket.next_at(clock())) is not None:
        if at > clock():
            await asyncio.sleep(at - clock())
        key = prefix + os.urandom(10) + bytes(load.key_bytes - 10)
        sent = clock()
        try:
            await client.put(key, load.value)
        except ClientError as error:
            outcome.errors[error.message] += 1
        else:
            outcome.latencies_s.append(clock() - sent)
        progress(len(outcome.latencies_s), clock() - started)


async def _measure_lag(outcome: Outcome) -> None:
    clock = asyncio.get_running_loop().time
    beats, late_s = 0, 0.0
    while True:
        before = clock()
        await asyncio.sleep(BEAT_S)
        beats, late_s = beats + 1, late_s + clock() - before - BEAT_S
        outcome.lag_s = late_s / beats
