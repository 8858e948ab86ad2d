"""Puts: every one is on a majority's disks before it is answered, in both servers."""

from __future__ import annotations

import itertools
import time

from benchmarks.bench import Bench
from benchmarks.figures import FLOOR, OURS, THEIRS, Figure
from benchmarks.floor.start import start_floor
from benchmarks.load import Shape, body, drive, put_request
from benchmarks.memory import Memory, memory_of
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT, pipeline, puts
from kvstore.demo.cluster import LocalCluster
from kvstore.demo.processes import Programs

SHAPES = (Shape(1, 1, 2_000), Shape(32, 1, 16_000), Shape(8, 32, 60_000), Shape(10, 100, 60_000))
WANTED = {"32 x 1": (1.6, 2.0), "8 x 32": (2.2, 3.0)}
LARGE = ((4_096, Shape(8, 16, 20_000)), (102_400, Shape(8, 2, 1_500)))
MANY_KEYS = 50_000


async def measure(bench: Bench) -> list[Figure]:
    idle = {server: memory(cluster) for server, cluster in bench.clusters.items()}
    async with Programs() as programs:
        floor = await start_floor(bench.folder / FLOOR, programs)
        figures = [await of_shape(bench, shape, floor) for shape in SHAPES]
    after = {server: memory(cluster) for server, cluster in bench.clusters.items()}
    figures.append(await latency(bench))
    for value_bytes, shape in LARGE:
        figures.append(await of_value(bench, value_bytes, shape))
    figures.append(await many_keys(bench))
    figures += kept("memory", "of a member, idle", idle)
    figures += kept("memory", "of a member, after the puts", after, wanted=(0.5, 0.35))
    return figures


async def of_shape(bench: Bench, shape: Shape, floor: str) -> Figure:
    values = await rates(bench, shape, 256, floor)
    at_least, aim = WANTED.get(str(shape), (None, None))
    return Figure("put", f"{shape} in flight", "/s", values, float(shape.in_flight), at_least, aim)


async def of_value(bench: Bench, value_bytes: int, shape: Shape) -> Figure:
    values = await rates(bench, shape, value_bytes)
    return Figure("put of large values", f"{value_bytes:,} bytes, {shape} in flight", "/s", values)


async def rates(
    bench: Bench, shape: Shape, value_bytes: int, floor: str | None = None
) -> dict[str, list[float]]:
    """floor: the endpoint of its leader, where it is measured too."""
    request = body(bench.folder, put_request(value_bytes))
    smaller = bench.size(shape, Shape(shape.connections, shape.streams, max(300, shape.calls // 4)))
    endpoints = {server: bench.leaders[server].endpoint for server in (OURS, THEIRS)}
    if floor is not None:
        endpoints[FLOOR] = floor
    values: dict[str, list[float]] = {server: [] for server in endpoints}
    for server in bench.in_turns(servers=list(endpoints)):
        values[server].append((await drive(f"http://{endpoints[server]}{PUT}", smaller, request)).per_s)
    return values


async def latency(bench: Bench) -> Figure:
    request = body(bench.folder, put_request())
    values: dict[str, list[float]] = {server: [] for server in bench.clusters}
    for server in bench.in_turns():
        url = f"http://{bench.leaders[server].endpoint}{PUT}"
        values[server].append((await drive(url, Shape(1, 1, 1_000), request, log=True)).p50_ms)
    return Figure("put", "latency p50, 1 client", "ms", values, at_least=0.75, aim=0.6)


async def many_keys(bench: Bench) -> Figure:
    """Each put makes a key of its own; from our own client, which needs more of the machine than h2load."""
    count = bench.size(MANY_KEYS, 5_000)
    values: dict[str, list[float]] = {server: [] for server in bench.clusters}
    turn = itertools.count()
    for server in bench.in_turns():
        endpoint = bench.leaders[server].endpoint
        connections = [await RawConnection.connect(endpoint) for _ in range(8)]
        started = time.perf_counter()
        await pipeline(connections, PUT, puts(f"many/{next(turn)}/", count), 32)
        values[server].append(count / (time.perf_counter() - started))
        for connection in connections:
            connection.close()
    return Figure("put", "a key of its own each, 8 x 32 in flight, our client", "/s", values)


def memory(cluster: LocalCluster) -> Memory:
    """Of the median member."""
    each = sorted(memory_of(m.program.pid) for m in cluster.members if m.program is not None)
    return each[len(each) // 2]


def kept(
    group: str, name: str, of: dict[str, Memory], wanted: tuple[float | None, float | None] = (None, None)
) -> list[Figure]:
    """Two figures: all that is resident, and of that what is not the page of a file."""
    resident = {server: [memory.resident] for server, memory in of.items()}
    anonymous = {server: [memory.anonymous] for server, memory in of.items()}
    return [
        Figure(group, name, "MiB", resident, at_least=wanted[0], aim=wanted[1]),
        Figure(group, f"{name}, without the pages of files", "MiB", anonymous),
    ]
