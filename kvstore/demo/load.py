"""Load that is counted: requests through the proxy, and writes whose acknowledgement is a promise to be checked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import time

import aiohttp

from kvstore.client import Client, ClientError
from kvstore.client.errors import OutcomeUnknown

WRITES = "demo/writes/"
PROBE_S = 0.02


@dataclass(slots=True)
class Requests:
    """GETs by several clients, each on a connection of its own, one after another. Only requests that were
    sent while counting are counted. first_answers: when each instance's first answer was complete, Unix time."""

    url: str
    client_count: int = 4
    pause_s: float = 0.002
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
    _acknowledged_at: list[tuple[float, float]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        await asyncio.gather(*(self._one_writer(number) for number in range(self.writer_count)))

    async def _one_writer(self, writer: int) -> None:
        for number in itertools.count():
            key, value = f"{WRITES}{writer}/{number:06d}", f"value {writer} {number}"
            is_settled = False
            while not is_settled:
                is_settled = await self._write(key, value)
                await asyncio.sleep(0.002 if is_settled else 0.01)

    async def _write(self, key: str, value: str) -> bool:
        """False when it certainly had no effect."""
        sent_at = time()
        try:
            await self.client.put(key, value)
        except OutcomeUnknown:
            self.unknown[key] = value
        except ClientError:
            self.refused_count += 1
            return False
        else:
            self.acknowledged[key] = value
            self._acknowledged_at.append((sent_at, time()))
            self._news.set()
        return True

    async def first_after(self, moment: float, timeout_s: float) -> float | None:
        """Seconds from moment to the first acknowledgement of a write that was sent after it. Meanwhile a write
        more is begun every PROBE_S: the writers may all be waiting for an answer that died with the leader."""
        probes: set[asyncio.Task[bool]] = set()
        try:
            for number in range(int(timeout_s / PROBE_S)):
                after = [done - moment for sent, done in self._acknowledged_at if sent >= moment]
                if after:
                    return min(after)
                probes.add(asyncio.ensure_future(self._write(f"{WRITES}probe/{number:06d}", "probe")))
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_S):
                        await self._news.wait()
            return None
        finally:
            if probes:
                await asyncio.wait(probes)


async def stored_writes(client: Client, *, serializable: bool = False) -> dict[str, str]:
    """What the store holds of the writes; serializable: what the one endpoint of the client itself has."""
    found = await client.get(WRITES, prefix=True, serializable=serializable)
    return {kv.key.decode(): kv.value.decode() for kv in found.kvs}
