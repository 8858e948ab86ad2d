"""python -m tests.programs.patroni [--server kvstore|etcd]

PostgreSQL under Patroni, two nodes, with three members of the store to agree in. Tells how long each takes: both
nodes streaming; the other node writable after a SIGKILL of the primary; the same with the store's leader killed in
the same moment; a switchover. No row that was committed and replicated may be lost.

Needs PostgreSQL (Debian: postgresql) and a Python that its user may enter: /usr/bin/python3, of which an environment
with Patroni is made once under the directory for temporary files. PostgreSQL refuses to run as root, so its user
runs both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from kvstore.demo.processes import free_ports
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.conformance.etcd_process import Cluster, Server, require_program, running_cluster

PYTHON = "/usr/bin/python3"
REQUIREMENTS = ("patroni[etcd3,psycopg3]==4.1.5", "psycopg[binary]>=3.1")
USER = "postgres"
SCOPE = "shop"
TTL_S, LOOP_S, RETRY_S = 20, 5, 5
LIMIT_S = 90.0


def postgres_programs() -> Path:
    """Where initdb and postgres are: the newest release Debian has installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return Path(require_program(str(found[-1]) if found else None, "PostgreSQL")).parent


def environment() -> Path:
    """A Python environment with Patroni that PostgreSQL's user can enter; made the first time."""
    place = Path(tempfile.gettempdir()) / f"kvstore-patroni-{REQUIREMENTS[0].rpartition('=')[2]}"
    stamp = place / "complete"
    if not stamp.exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([PYTHON, "-m", "venv", str(place)], check=True)
        pip = [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS], check=True)
        stamp.touch()
    return place / "bin"


@dataclass
class Node:
    """One Patroni and the PostgreSQL it runs."""

    name: str
    folder: Path
    rest_port: int
    sql_port: int
    hosts: str
    programs: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def data(self) -> Path:
        return self.folder / self.name

    def configure(self) -> None:
        settings = {
            "scope": SCOPE,
            "name": self.name,
            "restapi": {
                "listen": f"127.0.0.1:{self.rest_port}",
                "connect_address": f"127.0.0.1:{self.rest_port}",
            },
            "etcd3": {"hosts": self.hosts, "protocol": "http"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_S,
                    "loop_wait": LOOP_S,
                    "retry_timeout": RETRY_S,
                    "maximum_lag_on_failover": 1 << 20,
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "parameters": {"wal_log_hints": "on"}},
                },
                "initdb": ["data-checksums", {"encoding": "UTF8"}],
                "pg_hba": [f"{who} 127.0.0.1/32 trust" for who in ("host all all", "host replication all")],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.sql_port}",
                "connect_address": f"127.0.0.1:{self.sql_port}",
                "data_dir": str(self.data),
                "bin_dir": str(self.programs),
                "authentication": {
                    "replication": {"username": "replicator"},
                    "superuser": {"username": USER},
                    "rewind": {"username": "rewind_user"},
                },
                "parameters": {"unix_socket_directories": str(self.folder), "shared_buffers": "16MB"},
            },
            "watchdog": {"mode": "off"},
        }
        (self.folder / f"{self.name}.yml").write_text(json.dumps(settings))  # YAML holds all of JSON

    def start(self, programs: Path) -> None:
        account = pwd.getpwnam(USER)
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(programs / "patroni"), str(self.folder / f"{self.name}.yml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C.UTF-8"},
            )

    def kill(self) -> None:
        """SIGKILL to Patroni and to the PostgreSQL it runs."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        pid = self.postmaster()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not Path(f"/proc/{pid}").exists(), f"{self.name}'s PostgreSQL is gone")
        self.process = None

    def postmaster(self) -> int | None:
        """Only one that has this node's data directory: the file may outlive it."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            if lines[1] == str(self.data) and Path(f"/proc/{lines[0]}/cwd").resolve() == self.data.resolve():
                return int(lines[0])
        return None

    def answers(self, path: str) -> bool:
        """Whether Patroni says yes to a question such as primary or replica."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest_port}/{path}", timeout=2) as reply:
                return bool(reply.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def state(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest_port}/patroni", timeout=2) as reply:
                return dict(json.load(reply))
        except (OSError, ValueError):
            return {}

    def sql(self, text: str) -> str:
        """What psql prints. Raises CalledProcessError."""
        command = [str(self.programs / "psql"), "-X", "-At", "-h", "127.0.0.1", "-p", str(self.sql_port)]
        done = subprocess.run(
            [*command, "-U", USER, "-d", "postgres", "-c", text],
            capture_output=True,
            text=True,
            timeout=15,
            check=True,
        )
        return done.stdout.strip()

    def writes(self, row: int) -> bool:
        try:
            self.sql(f"INSERT INTO orders VALUES ({row})")
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False
        return True


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> float:
    """Seconds until it was true."""
    started = time.monotonic()
    while time.monotonic() < started + limit_s:
        if condition():
            return time.monotonic() - started
        time.sleep(0.1)
    raise AssertionError(f"waited {limit_s:.0f} s in vain: {what}")


def leader_of(cluster: Cluster) -> int:
    """The place in the list of the store's leader."""
    for at, endpoint in enumerate(cluster.endpoints):
        with grpc.insecure_channel(endpoint) as channel, contextlib.suppress(grpc.RpcError):
            status = channel.unary_unary(
                "/etcdserverpb.Maintenance/Status",
                request_serializer=pb.StatusRequest.SerializeToString,
                response_deserializer=pb.StatusResponse.FromString,
            )(pb.StatusRequest(), timeout=2)
            if status.leader == status.header.member_id:
                return at
    raise AssertionError("no member of the store leads")


class Story:
    """The steps, and how long each took."""

    def __init__(self, cluster: Cluster, nodes: list[Node], programs: Path) -> None:
        self.cluster = cluster
        self.nodes = nodes
        self.programs = programs
        self.rows = 0
        self.seconds: dict[str, float] = {}

    def run(self) -> None:
        first, second = self.nodes
        for node in self.nodes:
            node.start(self.programs)
        self.told("both nodes, one streaming from the other", wait_until(self.is_whole, "both nodes stream"))
        primary = self.primary()
        primary.sql("CREATE TABLE orders (n int PRIMARY KEY)")
        self.order(primary)
        self.fail_over("primary killed → the other one writes", store_too=False)
        self.fail_over("primary and the store's leader killed → the other one writes", store_too=True)
        self.switch_over()
        count = int(self.primary().sql("SELECT count(*) FROM orders"))
        assert count == self.rows, f"{self.rows} orders were taken, and {count} are there"
        print(f"{'rows written and there at the end':<66}{count:>6}")
        assert {node.name for node in (first, second)} == {"pg1", "pg2"}

    def fail_over(self, what: str, *, store_too: bool) -> None:
        old = self.primary()
        other = next(node for node in self.nodes if node is not old)
        wait_until(lambda: other.answers("sync"), f"{other.name} is the synchronous replica")
        self.order(old)
        member = self.cluster.members[leader_of(self.cluster)] if store_too else None
        old.kill()
        if member is not None:
            member.kill()
        self.rows += 1
        seconds = wait_until(lambda: other.writes(self.rows), f"{other.name} takes orders")
        self.told(what, seconds)
        if member is not None:
            member.start()
        old.start(self.programs)
        self.told("  and the old one streams again", wait_until(self.is_whole, f"{old.name} is back"))

    def switch_over(self) -> None:
        old = self.primary()
        other = next(node for node in self.nodes if node is not old)
        wait_until(lambda: other.answers("sync"), f"{other.name} is the synchronous replica")
        command = [str(self.programs / "patronictl"), "-c", str(old.folder / f"{old.name}.yml")]
        started = time.monotonic()
        subprocess.run(
            [*command, "switchover", "--force", SCOPE], check=True, capture_output=True, timeout=60
        )
        self.rows += 1
        wait_until(lambda: other.writes(self.rows), f"{other.name} takes orders")
        self.told("switchover asked for → the other one writes", time.monotonic() - started)

    def is_whole(self) -> bool:
        roles = sorted(str(node.state().get("role", "")) for node in self.nodes)
        streaming = any(node.state().get("replication_state") == "streaming" for node in self.nodes)
        return roles in (["primary", "replica"], ["primary", "sync_standby"]) and streaming

    def primary(self) -> Node:
        primaries = [node for node in self.nodes if node.answers("primary")]
        assert len(primaries) == 1, f"{[node.name for node in primaries]} say they are primary"
        return primaries[0]

    def order(self, node: Node) -> None:
        self.rows += 1
        assert node.writes(self.rows), f"{node.name} does not take order {self.rows}"

    def told(self, what: str, seconds: float) -> None:
        self.seconds[what] = seconds
        print(f"{what:<66}{seconds:>6.1f} s", flush=True)


@contextlib.contextmanager
def patroni_on(server: Server) -> Iterator[Story]:
    """Three members of the store and two nodes, ready to start; all gone afterwards."""
    postgres, programs = postgres_programs(), environment()
    with tempfile.TemporaryDirectory(prefix="kv-patroni-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        account = pwd.getpwnam(USER)
        os.chown(folder, account.pw_uid, account.pw_gid)
        with running_cluster(server, size=3) as cluster:
            ports = free_ports(4)
            hosts = ",".join(cluster.endpoints)
            nodes = [
                Node("pg1", folder, ports[0], ports[1], hosts, postgres),
                Node("pg2", folder, ports[2], ports[3], hosts, postgres),
            ]
            for node in nodes:
                node.configure()
            try:
                yield Story(cluster, nodes, programs)
            except BaseException:
                for node in nodes:
                    log = folder / f"{node.name}.log"
                    text = log.read_text(errors="replace")[-3000:] if log.exists() else "never started"
                    print(f"== the end of {node.name}'s log\n{text}", file=sys.stderr)
                raise
            finally:
                for node in nodes:
                    if node.process is not None:
                        node.kill()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.programs.patroni",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--server", choices=("kvstore", "etcd"), default="kvstore")
    server: Server = parser.parse_args().server
    with patroni_on(server) as story:
        story.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
