"""What `kvctl check` puts on a cluster, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.client import Client

KEY_BYTES = 256
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


@dataclass
class Outcome:
    """latencies_s: of the puts that succeeded. errors: how often each message came."""

    elapsed_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

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
    clients: Sequence[Client], prefix: bytes, load: Load, progress: Callable[[int, float], None]
) -> Outcome:
    """Writes random keys under prefix. progress is told the number of puts and the seconds so far."""
    clock = asyncio.get_running_loop().time
    outcome = Outcome()
    started = clock()
    ticket = Ticket(load, started)

    async def one_after_another(client: Client) -> None:
        from kvstore.client.errors import ClientError

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

    # As many puts under way at once as there are to be clients, over the connections there are.
    async with asyncio.TaskGroup() as group:
        for number in range(load.clients):
            group.create_task(one_after_another(clients[number % len(clients)]))
    outcome.elapsed_s = clock() - started
    return outcome
