"""The case `peers`: puts and gets of every store that is there, in turns."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.figures import OURS, THEIRS, Figure
from benchmarks.load import Shape
from benchmarks.peers.grpc import Floor, GrpcPeer, write_once
from benchmarks.peers.nats import Nats
from benchmarks.peers.peer import Peer, Unavailable
from benchmarks.peers.pysyncobj import PySyncObj
from benchmarks.peers.zookeeper import ZooKeeper
from kvstore.demo.processes import Programs

PUTS = (Shape(1, 1, 2_000), Shape(8, 4, 16_000), Shape(8, 32, 40_000))
GETS = (Shape(1, 1, 4_000), Shape(8, 4, 20_000), Shape(8, 32, 40_000))
LINEARIZABLE = "asked of a majority"


async def measure(bench: Bench) -> list[Figure]:
    async with Programs() as programs:
        peers = await started(bench, programs)
        figures = [await figure(bench, peers, "put", shape) for shape in PUTS]
        getting = [peer for peer in peers if peer.gets]
        figures += [await figure(bench, getting, "get", shape) for shape in GETS]
    own = [peer for peer in peers if peer.name in (OURS, THEIRS)]
    figures.append(await figure(bench, own, "linearizable get", GETS[-1]))
    return figures


async def started(bench: Bench, programs: Programs) -> list[Peer]:
    """Those that can be measured here; of the others a line says why not."""
    peers: list[Peer] = [GrpcPeer(OURS, bench.leaders[OURS].endpoint), Floor()]
    peers += [GrpcPeer(THEIRS, bench.leaders[THEIRS].endpoint), ZooKeeper(), Nats(), PySyncObj()]
    for server in (OURS, THEIRS):
        await write_once(bench.leaders[server].endpoint)
    found = []
    for peer in peers:
        try:
            await peer.start(bench.folder / "peers" / peer.name, programs)
        except Unavailable as why:
            bench.say(f"skipped: {why}")
        else:
            found.append(peer)
    return found


async def figure(bench: Bench, peers: Sequence[Peer], operation: str, shape: Shape) -> Figure:
    smaller = bench.size(shape, Shape(shape.connections, shape.streams, max(200, shape.calls // 10)))
    values: dict[str, list[float]] = {peer.name: [] for peer in peers}
    by_name = {peer.name: peer for peer in peers}
    for server in bench.in_turns(servers=list(by_name)):
        values[server].append(await by_name[server].rate(operation, smaller))
    if operation == "put":
        stated = {peer.name: peer.puts for peer in peers}
    else:
        stated = {peer.name: LINEARIZABLE if "linearizable" in operation else peer.gets for peer in peers}
    load = float(shape.in_flight)
    return Figure(f"peers, {operation}", f"{shape} in flight", "/s", values, load, stated=stated)
