"""Watches: how long until the last of many has heard of one put, how many events a second get through, and how
soon one that starts far back hears its first event."""

from __future__ import annotations

import asyncio
import time

from benchmarks.bench import Bench
from benchmarks.figures import Figure, percentile
from benchmarks.load import LoadFailed
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT, RANGE, fill, pipeline
from kvstore.demo.cluster import LocalCluster
from kvstore.pb.etcdserverpb_pb2 import (
    PutRequest,
    RangeRequest,
    RangeResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

WATCH = "/etcdserverpb.Watch/Watch"
WATCHERS = (1, 100, 1_000, 10_000)
STREAMS_OF_A_CONNECTION = 100
ROUNDS = 60
LIMIT_S = 60.0


async def measure(bench: Bench) -> list[Figure]:
    figures: list[Figure] = []
    for watchers in bench.size(WATCHERS, WATCHERS[:3]):
        figures += await fan_out(bench, watchers)
    figures.append(await events_per_s(bench))
    return figures


async def fan_out(bench: Bench, watchers: int) -> list[Figure]:
    """A watcher is a stream of its own, as a proxy's is; they are spread over the members."""
    p50: dict[str, list[float]] = {server: [] for server in bench.clusters}
    p99: dict[str, list[float]] = {server: [] for server in bench.clusters}
    rounds = bench.size(ROUNDS if watchers < 10_000 else 12, 15)
    for server in bench.in_turns():
        took = await rounds_of(bench.clusters[server], bench.leaders[server].endpoint, watchers, rounds)
        p50[server].append(1e3 * percentile(took, 0.5))
        p99[server].append(1e3 * percentile(took, 0.99))
    name = f"1 put → {watchers:,} watchers, the last one"
    wanted = (0.6, 0.3) if watchers == 1_000 else (None, None)
    return [
        Figure("watch fan-out", f"{name}, p50", "ms", p50, float(watchers)),
        Figure("watch fan-out, p99", f"{name}, p99", "ms", p99, float(watchers), *wanted),
    ]


class Audience:
    """Watchers of one key, counted together."""

    def __init__(self, cluster: LocalCluster, watchers: int) -> None:
        self._endpoints = cluster.endpoints
        self._watchers = watchers
        self._connections: list[RawConnection] = []
        self._heard = 0
        self._all: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def _hear(self, _: bytes) -> None:
        self._heard += 1
        if self._heard == self._watchers and not self._all.done():
            self._all.set_result(time.perf_counter())

    def _end(self, status: str) -> None:
        if not self._all.done():
            self._all.set_exception(LoadFailed(f"a watch ended: {status}"))

    def expect(self) -> None:
        """The next message of each counts from here."""
        self._heard = 0
        self._all = asyncio.get_running_loop().create_future()

    async def all_heard(self) -> float:
        """When the last one did."""
        async with asyncio.timeout(LIMIT_S):
            return await self._all

    async def gather(self, key: bytes) -> None:
        request = WatchRequest(create_request=WatchCreateRequest(key=key)).SerializeToString()
        self.expect()
        for number in range(self._watchers):
            if number % STREAMS_OF_A_CONNECTION == 0:
                at = len(self._connections) % len(self._endpoints)
                self._connections.append(await RawConnection.connect(self._endpoints[at]))
            self._connections[-1].open(WATCH, self._hear, self._end, request)
        await self.all_heard()  # that they are there

    def leave(self) -> None:
        self._all = asyncio.get_running_loop().create_future()
        self._all.set_result(0.0)
        for connection in self._connections:
            connection.close()


async def rounds_of(cluster: LocalCluster, endpoint: str, watchers: int, rounds: int) -> list[float]:
    audience = Audience(cluster, watchers)
    writer = await RawConnection.connect(endpoint)
    put = PutRequest(key=b"fan-out", value=b"v" * 256).SerializeToString()
    took = []
    try:
        await audience.gather(b"fan-out")
        for _ in range(rounds):
            audience.expect()
            started = time.perf_counter()
            await writer.ask(PUT, put)
            took.append(await audience.all_heard() - started)
            await asyncio.sleep(0.005)
    finally:
        audience.leave()
        writer.close()
    return took


async def events_per_s(bench: Bench) -> Figure:
    """Puts as fast as they go while ten watch them all, until the last event has reached everybody."""
    count, watchers = bench.size(20_000, 4_000), 10
    values: dict[str, list[float]] = {server: [] for server in bench.clusters}
    put = PutRequest(key=b"events/one", value=b"v" * 256).SerializeToString()
    request = WatchRequest(
        create_request=WatchCreateRequest(key=b"events/", range_end=b"events0")
    ).SerializeToString()
    for server in bench.in_turns():
        endpoints = bench.clusters[server].endpoints
        counters = [Counter(count) for _ in range(watchers)]
        connections = []
        for number, counter in enumerate(counters):
            connections.append(await RawConnection.connect(endpoints[number % len(endpoints)]))
            connections[-1].open(WATCH, counter.hear, None, request)
        for counter in counters:
            await counter.created
        writers = [await RawConnection.connect(bench.leaders[server].endpoint) for _ in range(8)]
        started = time.perf_counter()
        await pipeline(writers, PUT, iter([put] * count), 32)
        async with asyncio.timeout(LIMIT_S):
            ended = max([await counter.complete for counter in counters])
        values[server].append(count * watchers / (ended - started))
        for connection in connections + writers:
            connection.close()
    return Figure("events", f"events delivered to {watchers} watchers, 8 x 32 puts in flight", "/s", values)


class Counter:
    """The events of one watch: when the first and when the last of so many came."""

    def __init__(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        self._left = count
        self.created: asyncio.Future[None] = loop.create_future()
        self.first: asyncio.Future[float] = loop.create_future()
        self.complete: asyncio.Future[float] = loop.create_future()

    def hear(self, message: bytes) -> None:
        response = WatchResponse.FromString(message)
        if response.created:
            self.created.set_result(None)
        if not response.events:
            return
        if not self.first.done():
            self.first.set_result(time.perf_counter())
        self._left -= len(response.events)
        if self._left <= 0 and not self.complete.done():
            self.complete.set_result(time.perf_counter())


async def catch_up(bench: Bench) -> list[Figure]:
    """A watch that starts up to 100,000 revisions back, on a member other than the leader."""
    count = bench.size(100_000, 10_000)
    for server in bench.clusters:
        await fill(bench.leaders[server].endpoint, "history/", count, 64)
    figures = []
    for distance, turns in (
        (count // 100, bench.turns),
        (count // 10, bench.turns),
        (count, bench.turns * 3),
    ):
        first: dict[str, list[float]] = {server: [] for server in bench.clusters}
        whole: dict[str, list[float]] = {server: [] for server in bench.clusters}
        for server in bench.in_turns(turns):
            leader = bench.leaders[server].endpoint
            other = next(one for one in bench.clusters[server].endpoints if one != leader)
            begun, ended = await back(other, distance)
            first[server].append(1e3 * begun)
            whole[server].append(1e3 * ended)
        name = f"a watch {distance:,} revisions back"
        if distance == count:
            figures.append(Figure("catch-up", f"{name}, first event", "ms", first, at_least=0.05, aim=0.02))
        figures.append(Figure("catch-up by distance", f"{name}, all of them", "ms", whole, float(distance)))
    return figures


async def back(endpoint: str, distance: int) -> tuple[float, float]:
    """Seconds to the first and to the last of the newest events, so many, of keys below history/."""
    start = await revision(endpoint) + 1 - distance
    connection = await RawConnection.connect(endpoint)
    counter = Counter(distance)
    create = WatchCreateRequest(key=b"history/", range_end=b"history0", start_revision=start)
    started = time.perf_counter()
    connection.open(WATCH, counter.hear, None, WatchRequest(create_request=create).SerializeToString())
    async with asyncio.timeout(LIMIT_S):
        begun, ended = await counter.first - started, await counter.complete - started
    connection.close()
    return begun, ended


async def revision(endpoint: str) -> int:
    connection = await RawConnection.connect(endpoint)
    reply = await connection.ask(RANGE, RangeRequest(key=b"\0").SerializeToString())
    connection.close()
    return RangeResponse.FromString(reply).header.revision
