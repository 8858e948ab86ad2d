"""Load that is counted: requests through the proxy, and writes whose acknowledgement is a promise to be checked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import time

import aiohttp

from kvstore.client import Client, ClientError
from kvstore.client.errors import OutcomeUnknown

WRITES = "demo/writes/"


@dataclass(slots=True)
class Requests:
    """GETs by several clients, each on a connection of its own, one after another. Only requests that were
    sent while counting are counted. first_answers: when each instance's first answer was complete, Unix time."""

    url: str
    client_count: int = 4
    pause_s: float = 0.004
    ok_count: int = 0
    failures: list[str] = field(default_factory=list)
    first_answers: dict[str, float] = field(default_factory=dict)
    _is_counting: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def counting(self) -> Iterator[None]:
        self._is_counting, self.ok_count, self.failures = True, 0, []
        try:
            yield
        finally:
            self._is_counting = False

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=10)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(self._one_client(session) for _ in range(self.client_count)))

    async def first_answer(self, name: str, timeout_s: float = 10.0) -> float:
        async with asyncio.timeout(timeout_s):
            while name not in self.first_answers:
                self._news.clear()
                await self._news.wait()
        return self.first_answers[name]

    async def _one_client(self, session: aiohttp.ClientSession) -> None:
        while True:
            is_counted = self._is_counting
            failure = ""
            try:
                async with session.get(self.url) as response:
                    name = (await response.text()).strip()
                    if response.status != 200:
                        failure = f"status {response.status}: {name}"
            except (aiohttp.ClientError, OSError, TimeoutError) as problem:
                failure = f"{type(problem).__name__}: {problem}"
            if not failure and name not in self.first_answers:
                self.first_answers[name] = time()
                self._news.set()
            if is_counted and failure:
                self.failures.append(failure)
            elif is_counted:
                self.ok_count += 1
            await asyncio.sleep(self.pause_s)


@dataclass(slots=True)
class Writes:
    """Puts by several writers, each key once. acknowledged and unknown: key to value. A write that certainly
    had no effect is repeated under the same key; one whose outcome is unknown never is."""

    client: Client
    writer_count: int = 4
    acknowledged: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    refused_count: int = 0
    acknowledged_at: list[tuple[float, float]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        await asyncio.gather(*(self._one_writer(number) for number in range(self.writer_count)))

    async def _one_writer(self, writer: int) -> None:
        number = 0
        while True:
            key, value = f"{WRITES}{writer}/{number:06d}", f"value {writer} {number}"
            sent_at = time()
            try:
                await self.client.put(key, value)
            except OutcomeUnknown:
                self.unknown[key] = value
            except ClientError:
                self.refused_count += 1
                await asyncio.sleep(0.01)
                continue
            else:
                self.acknowledged[key] = value
                self.acknowledged_at.append((sent_at, time()))
                self._news.set()
            number += 1
            await asyncio.sleep(0.002)

    def first_after(self, moment: float) -> float | None:
        """Seconds from moment to the first acknowledgement of a write that was sent after it."""
        after = [done - moment for sent, done in self.acknowledged_at if sent >= moment]
        return min(after, default=None)

    async def wait_first_after(self, moment: float, timeout_s: float) -> float | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.first_after(moment) is None:
                    self._news.clear()
                    await self._news.wait()
        return self.first_after(moment)


async def stored_writes(client: Client, *, serializable: bool = False) -> dict[str, str]:
    """What the store holds of the writes; serializable: what the one endpoint of the client itself has."""
    found = await client.get(WRITES, prefix=True, serializable=serializable)
    return {kv.key.decode(): kv.value.decode() for kv in found.kvs}
