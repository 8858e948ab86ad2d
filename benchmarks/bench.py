"""What every case of the suite is given: where to work, how long, and the servers to compare."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from benchmarks.figures import OURS, THEIRS
from kvstore.client import Client
from kvstore.client.tls import Tls
from kvstore.demo.cluster import LocalCluster, MemberProcess, server_program
from kvstore.demo.processes import Programs

T = TypeVar("T")


@dataclass
class Bench:
    """turns: how often each server is measured in each case, in turns. quick: small loads, for a look and for
    CI. clusters: three plain members of each server, shared by the cases that harm nobody."""

    folder: Path
    programs: Programs
    turns: int = 3
    quick: bool = False
    etcd: str = "etcd"
    keys: int = 1_000_000
    clusters: dict[str, LocalCluster] = field(default_factory=dict)
    leaders: dict[str, MemberProcess] = field(default_factory=dict)
    _made: int = 0

    def program(self, server: str) -> str:
        return server_program(self.etcd if server == THEIRS else server)

    def only(self, servers: Sequence[str]) -> Bench:
        """The same clusters, of these servers."""
        clusters = {server: self.clusters[server] for server in servers}
        return replace(self, clusters=clusters, leaders={server: self.leaders[server] for server in servers})

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    async def start(self, servers: Sequence[str] = (OURS, THEIRS)) -> None:
        for server in servers:
            self.clusters[server] = await self.cluster(server, self.programs)
            self.leaders[server] = await leader_of(self.clusters[server])

    async def cluster(
        self,
        server: str,
        programs: Programs,
        members: int = 3,
        flags: Sequence[str] = (),
        scheme: str = "http",
    ) -> LocalCluster:
        """A cluster of its own in a folder of its own; it ends with programs."""
        self._made += 1
        folder = self.folder / f"{server}-{self._made}"
        folder.mkdir()
        return await LocalCluster.start(self.program(server), folder, programs, members, flags, scheme)

    @contextlib.asynccontextmanager
    async def apart(
        self, server: str, members: int = 3, flags: Sequence[str] = (), scheme: str = "http"
    ) -> AsyncIterator[LocalCluster]:
        """A cluster for one measurement, gone after it."""
        async with Programs() as programs:
            yield await self.cluster(server, programs, members, flags, scheme)

    def in_turns(self, turns: int | None = None, servers: Sequence[str] = (OURS, THEIRS)) -> Iterator[str]:
        """The servers in the order to measure them: A B, B A, A B."""
        for turn in range(turns or self.turns):
            yield from servers if turn % 2 == 0 else reversed(servers)

    def size(self, whole: T, quick: T) -> T:
        return quick if self.quick else whole


async def leader_of(cluster: LocalCluster) -> MemberProcess:
    endpoints = [f"{cluster.scheme}://{endpoint}" for endpoint in cluster.endpoints]
    tls = Tls(insecure_skip_verify=True) if cluster.scheme == "https" else None
    async with Client(endpoints, tls=tls) as client:
        return await cluster.leader(client)
