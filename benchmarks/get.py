"""Gets and ranges, with h2load against the leader; a linearizable one asks a majority, in both servers."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.load import Shape, body, drive
from benchmarks.unary import RANGE, fill
from kvstore.pb.etcdserverpb_pb2 import RangeRequest

KEYS = 10_000
SIZES = (10, 100, 1_000, 10_000)


async def measure(bench: Bench) -> list[Figure]:
    for server in bench.clusters:
        await fill(bench.leaders[server].endpoint, "range/", KEYS)
    key = b"range/00000007"
    linearizable, serializable = RangeRequest(key=key), RangeRequest(key=key, serializable=True)
    busy, lone = Shape(8, 32, bench.size(60_000, 15_000)), Shape(1, 1, 2_000)
    some = Shape(32, 1, bench.size(20_000, 5_000))
    figures = [
        await rate(bench, "linearizable get", "1 client", linearizable, lone),
        await rate(bench, "linearizable get", "32 x 1 in flight", linearizable, some),
        await rate(bench, "linearizable get", "8 x 32 in flight", linearizable, busy, (1.2, 2.0)),
        await rate(bench, "serializable get", "1 client", serializable, lone),
        await rate(bench, "serializable get", "32 x 1 in flight", serializable, some),
        await rate(bench, "serializable get", "8 x 32 in flight", serializable, busy),
    ]
    figures.append(await first_page(bench))
    for size in SIZES:
        figures.append(await ranges(bench, size))
    return figures


async def rate(
    bench: Bench,
    kind: str,
    load: str,
    request: RangeRequest,
    shape: Shape,
    wanted: tuple[float, float] | None = None,
) -> Figure:
    values = await rates(bench, request, shape)
    return Figure(kind, f"{kind}, {load}", "/s", values, float(shape.in_flight), *(wanted or (None, None)))


async def ranges(bench: Bench, size: int) -> Figure:
    request = RangeRequest(key=b"range/", range_end=b"range/%08d" % size)
    shape = Shape(4, 1, max(20, bench.size(1_000_000, 200_000) // (size + 200)))
    at_least, aim = (1.0, 2.0) if size == 1_000 else (None, None)
    values = await rates(bench, request, shape)
    return Figure("range", f"of {size:,} keys, 4 x 1 in flight", "/s", values, float(size), at_least, aim)


async def first_page(bench: Bench) -> Figure:
    """A limited range says how many keys there are in all, which both must know."""
    request = RangeRequest(key=b"range/", range_end=b"range0", limit=10)
    values = await rates(bench, request, Shape(4, 1, bench.size(2_000, 400)))
    return Figure("get", f"the first 10 of {KEYS:,} keys, 4 x 1 in flight", "/s", values)


async def rates(bench: Bench, request: RangeRequest, shape: Shape) -> dict[str, list[float]]:
    path = body(bench.folder, request)
    values: dict[str, list[float]] = {server: [] for server in bench.clusters}
    for server in bench.in_turns():
        url = f"http://{bench.leaders[server].endpoint}{RANGE}"
        values[server].append((await drive(url, shape, path)).per_s)
    return values
