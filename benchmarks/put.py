"""Puts: ours and etcd, three members each, in turns on the same machine. Every put is on a majority's disks
before it is answered, in both."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.load import SHAPES, Result, Shape, drive, put_body
from benchmarks.memory import resident_mb
from kvstore.client import Client
from kvstore.demo.cluster import LocalCluster, MemberProcess


@dataclass
class PutTable:
    """results[server][shape], one a turn."""

    results: dict[str, dict[Shape, list[Result]]] = field(default_factory=dict)
    idle_mb: dict[str, tuple[float, float]] = field(default_factory=dict)
    after_mb: dict[str, tuple[float, float]] = field(default_factory=dict)

    def rows(self) -> list[list[str]]:
        rows = []
        for shape in SHAPES:
            row = [f"put, {shape} in flight"]
            rates = {}
            for server, by_shape in self.results.items():
                rate = rates[server] = median(result.puts_per_s for result in by_shape[shape])
                mean = median(result.mean_ms for result in by_shape[shape])
                row.append(f"{rate:,.0f}/s, mean {mean:.2f} ms")
            spread = [
                a.puts_per_s / b.puts_per_s
                for a, b in zip(self.results["kvstore"][shape], self.results["etcd"][shape])
            ]
            ratio = rates["kvstore"] / rates["etcd"]
            rows.append([*row, f"{ratio:.2f} x  ({min(spread):.2f}–{max(spread):.2f})"])
        for name, table in (("idle", self.idle_mb), ("after the puts", self.after_mb)):
            ours, theirs = table["kvstore"], table["etcd"]
            row = [f"resident memory of a member, {name}"]
            row += [
                f"{resident:.0f} MiB ({shared:.0f} with shared pages counted once)"
                for resident, shared in (ours, theirs)
            ]
            rows.append([*row, f"{ours[0] / theirs[0]:.2f} x"])
        return rows


def member_memory(members: list[MemberProcess]) -> tuple[float, float]:
    """The median member's."""
    each = sorted(resident_mb(m.program.pid) for m in members if m.program is not None)
    return each[len(each) // 2]


async def measure(clusters: dict[str, LocalCluster], folder: Path, turns: int) -> PutTable:
    """One turn is every shape against one server; servers take turns."""
    table = PutTable(results={server: {shape: [] for shape in SHAPES} for server in clusters})
    body = put_body(folder)
    leaders = {}
    for server, cluster in clusters.items():
        table.idle_mb[server] = member_memory(cluster.members)
        async with Client(cluster.endpoints) as client:
            leaders[server] = await cluster.leader(client)
    for turn in range(turns):
        order = list(clusters) if turn % 2 == 0 else list(clusters)[::-1]
        for server in order:
            for shape in SHAPES:
                result = await drive(leaders[server].endpoint, shape, body)
                table.results[server][shape].append(result)
    for server, cluster in clusters.items():
        table.after_mb[server] = member_memory(cluster.members)
    return table
