"""Real members as processes on loopback, and the raw calls that tests make of them.

Ports come from the kernel; processes are ended by their own id; what a member printed is kept for the failure.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from kvstore.demo.processes import free_ports
from kvstore.pb import etcdserverpb_pb2 as pb

KVSTORE = [sys.executable, "-m", "kvstore"]
START_TIMEOUT_S = 20.0


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = START_TIMEOUT_S) -> Any:
    """Polls until condition() is true; what names it in the failure."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {timeout_s} s in vain: {what}")


def need(program: str) -> str:
    """A program's path. In CI a missing one fails the test instead of skipping it."""
    path = shutil.which(program)
    if path is None:
        import pytest

        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed, and CI is set")
        pytest.skip(f"{program} is not installed")
    return path


class Calls:
    """One endpoint's unary calls, by message."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{port}",
            options=[("grpc.max_receive_message_length", -1), ("grpc.initial_reconnect_backoff_ms", 50)],
        )

    def _call(self, path: str, request: Any, reply: Any, timeout_s: float) -> Any:
        method = self._channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
        )
        return method(request, timeout=timeout_s)

    def put(self, key: bytes, value: bytes, timeout_s: float = 10.0, **fields: Any) -> pb.PutResponse:
        request = pb.PutRequest(key=key, value=value, **fields)
        return self._call("/etcdserverpb.KV/Put", request, pb.PutResponse, timeout_s)  # type: ignore[no-any-return]

    def range(self, key: bytes, timeout_s: float = 10.0, **fields: Any) -> pb.RangeResponse:
        request = pb.RangeRequest(key=key, **fields)
        return self._call("/etcdserverpb.KV/Range", request, pb.RangeResponse, timeout_s)  # type: ignore[no-any-return]

    def status(self, timeout_s: float = 2.0) -> pb.StatusResponse:
        return self._call(  # type: ignore[no-any-return]
            "/etcdserverpb.Maintenance/Status", pb.StatusRequest(), pb.StatusResponse, timeout_s
        )

    def hash_kv(self, revision: int = 0) -> pb.HashKVResponse:
        return self._call(  # type: ignore[no-any-return]
            "/etcdserverpb.Maintenance/HashKV", pb.HashKVRequest(revision=revision), pb.HashKVResponse, 20.0
        )

    def alarms(self) -> list[pb.AlarmMember]:
        reply = self._call("/etcdserverpb.Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse, 5.0)
        return list(reply.alarms)

    def close(self) -> None:
        self._channel.close()


class MemberHandle:
    """One member of a test cluster: its flags, its process while it runs, its log."""

    def __init__(
        self,
        name: str,
        folder: Path,
        ports: tuple[int, int],
        cluster: str,
        extra: Sequence[str],
        peer_scheme: str = "http",
    ) -> None:
        self.name = name
        self.data_dir = folder / name
        self.log_path = folder / f"{name}.log"
        self.client_port, self.peer_port = ports
        self._flags = [
            *("--name", name, "--data-dir", str(self.data_dir)),
            f"--listen-client-urls=http://127.0.0.1:{self.client_port}",
            f"--advertise-client-urls=http://127.0.0.1:{self.client_port}",
            f"--listen-peer-urls={peer_scheme}://127.0.0.1:{self.peer_port}",
            f"--initial-advertise-peer-urls={peer_scheme}://127.0.0.1:{self.peer_port}",
            f"--initial-cluster={cluster}",
            *extra,
        ]
        self.program = KVSTORE
        self.process: subprocess.Popen[bytes] | None = None
        self.calls = Calls(self.client_port)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    def start(self, *more: str) -> None:
        """more: flags for this time only."""
        assert self.process is None, f"{self.name} runs already"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen([*self.program, *self._flags, *more], stdout=log, stderr=log)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit status as the kernel saw it."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None, f"{self.name} does not run"
        self.process.send_signal(number)
        status = self.process.wait(10)
        self.process = None
        return status

    def wait_exit(self, timeout_s: float = 15.0) -> int:
        assert self.process is not None, f"{self.name} does not run"
        status = self.process.wait(timeout_s)
        self.process = None
        return status

    def log_lines(self) -> list[dict[str, Any]]:
        """Every JSON line it has printed, over all its starts."""
        lines = self.log_path.read_text().splitlines() if self.log_path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def has_logged(self, message: str) -> bool:
        return any(line["msg"] == message for line in self.log_lines())

    def status(self) -> pb.StatusResponse | None:
        try:
            return self.calls.status()
        except grpc.RpcError:
            return None


class TestCluster:
    """Members in one folder. Use as a context manager: whatever still runs at its end is killed."""

    __test__ = False

    def __init__(
        self, folder: Path, size: int = 3, extra: Sequence[str] = (), peer_scheme: str = "http"
    ) -> None:
        ports = free_ports(2 * size)
        names = [f"n{number}" for number in range(1, size + 1)]
        cluster = ",".join(
            f"{name}={peer_scheme}://127.0.0.1:{ports[size + at]}" for at, name in enumerate(names)
        )
        self.members = [
            MemberHandle(name, folder, (ports[at], ports[size + at]), cluster, extra, peer_scheme)
            for at, name in enumerate(names)
        ]

    @property
    def endpoints(self) -> list[str]:
        return [member.endpoint for member in self.members]

    def start(self) -> None:
        for member in self.members:
            member.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Every running member has a leader and serves a linearizable read."""
        for member in self.members:
            if member.process is not None:
                wait_for(lambda m=member: self._serves(m), f"{member.name} serves")  # type: ignore[misc]

    def _serves(self, member: MemberHandle) -> bool:
        try:
            member.calls.range(b"ready", timeout_s=2.0)
        except grpc.RpcError:
            return False
        return True

    def leader(self) -> MemberHandle:
        """The running member that most recently won."""

        def find() -> MemberHandle | None:
            best: tuple[int, MemberHandle] | None = None
            for member in self.members:
                status = member.status() if member.process is not None else None
                if status is not None and status.leader == status.header.member_id:
                    if best is None or status.raftTerm > best[0]:
                        best = (status.raftTerm, member)
            return best[1] if best else None

        found: MemberHandle = wait_for(find, "a leader")
        return found

    def wait_equal(self) -> None:
        """Every member has applied as much as the leader."""

        def equal() -> bool:
            states = [member.status() for member in self.members if member.process is not None]
            known = [(s.header.revision, s.raftAppliedIndex) for s in states if s is not None]
            return len(known) == len(states) and len(set(known)) == 1

        wait_for(equal, "all members at one index")

    def end(self) -> None:
        for member in self.members:
            member.calls.close()
            if member.process is not None:
                member.kill()


@contextmanager
def running(
    folder: Path, size: int = 3, extra: Sequence[str] = (), peer_scheme: str = "http"
) -> Iterator[TestCluster]:
    cluster = TestCluster(folder, size, extra, peer_scheme)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()
