"""kvctl's changes of membership print what etcdctl's do, against both servers; and what only ours can."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.demo.processes import free_ports
from tests.cluster.harness import MemberHandle, TestCluster, running, wait_for
from tests.conformance.etcd_process import Cluster, Server, etcdctl_path, running_cluster

KVCTL = [sys.executable, "-m", "kvstore.cli.main"]


@pytest.fixture(params=["etcd", "kvstore"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    server: Server = request.param
    with running_cluster(server, size=3) as made:
        yield made


def run(program: list[str], endpoints: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ETCDCTL_API": "3"}
    command = [*program, f"--endpoints={','.join(endpoints)}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)


def masked(text: str) -> str:
    """Without ids and ports; members are listed by id, so in any order."""
    text = re.sub(r":\d{4,5}\b", ":PORT", re.sub(r" *\b[0-9a-f]{12,16}\b", " ID", text))  # ids are padded
    return re.sub(r'(?<=CLUSTER=")[^"]*', lambda found: ",".join(sorted(found[0].split(","))), text)


def last_line(text: str) -> str:
    """etcd makes a member's id of its URLs and the second, so an add repeated within that finds the id first."""
    line = text.rstrip("\n").rpartition("\n")[2].partition("; ")[0]
    return line.replace("member ID already exist", "Peer URLs already exists")


def test_what_is_printed_and_refused(cluster: Cluster) -> None:
    """Each command by etcdctl, and then by kvctl with another URL or id, must say the same."""
    first = ["member", "add", "first", "--learner", f"--peer-urls=http://127.0.0.1:{free_ports(1)[0]}"]
    # etcd takes no change within five seconds of its start.
    added = wait_for(lambda: run([etcdctl_path()], cluster.endpoints, *first).stdout, "a change is taken")
    removed = re.findall(r"Member\s+([0-9a-f]+) added", added)[0]
    assert run([etcdctl_path()], cluster.endpoints, "member", "remove", removed).returncode == 0
    seen: dict[str, list[tuple[int, str, str]]] = {"etcdctl": [], "kvctl": []}
    for name, program in (("etcdctl", [etcdctl_path()]), ("kvctl", KVCTL)):
        with socket.create_server(("127.0.0.1", 0)) as sock:
            url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        told = seen[name]

        def tell(*words: str, told: list[tuple[int, str, str]] = told, program: list[str] = program) -> str:
            done = run(program, cluster.endpoints, *words)
            told.append((done.returncode, masked(done.stdout), last_line(done.stderr)))
            return done.stdout

        added = tell("member", "add", "new", "--learner", f"--peer-urls={url}")
        member_id = re.findall(r"Member\s+([0-9a-f]+) added", added)[0]
        tell("member", "add", "again", "--learner", f"--peer-urls={url}")
        tell("member", "promote", member_id)
        tell("member", "update", member_id, f"--peer-urls={url}1")
        tell("member", "update", member_id, "--peer-urls=http://127.0.0.1:1", "-w", "fields")
        tell("member", "remove", member_id)
        tell("member", "remove", member_id)
        for words in (
            ["member", "add"],
            ["member", "add", "x"],
            ["member", "add", "x", "--peer-urls=nonsense"],
            ["member", "remove", "xyz"],
            ["member", "remove"],
            ["member", "promote", "1234"],
            ["member", "update", "1234"],
            ["move-leader", "xyz"],
            ["move-leader", "1234"],
        ):
            tell(*words)
        for write_out in ("simple", "json", "protobuf"):
            tell("move-leader", follower(cluster), "-w", write_out)
    assert seen["kvctl"] == seen["etcdctl"]


def follower(cluster: Cluster) -> str:
    """The id of a member that does not lead."""
    shown = run(KVCTL, cluster.endpoints, "endpoint", "status").stdout
    return next(row.split(", ")[1] for row in shown.splitlines() if row.split(", ")[4] == "false")


def start(
    cluster: TestCluster, folder: Path, name: str, ports: tuple[int, int], printed: str
) -> MemberHandle:
    initial = re.findall(r'ETCD_INITIAL_CLUSTER="([^"]+)"', printed)[0]
    member = MemberHandle(name, folder, ports, initial, ["--initial-cluster-state=existing"])
    cluster.members.append(member)
    member.start()
    return member


def test_added_promoted_replaced_and_leadership_moved_with_ours(tmp_path: Path) -> None:
    ports = free_ports(4)
    with running(tmp_path) as cluster:
        added = run(
            KVCTL, cluster.endpoints, "member", "add", "n4", f"--peer-urls=http://127.0.0.1:{ports[1]}"
        )
        assert added.returncode == 0, added.stderr
        fourth = start(cluster, tmp_path, "n4", (ports[0], ports[1]), added.stdout)
        wait_for(lambda: (s := fourth.status()) is not None and s.leader and not s.isLearner, "n4 votes")
        status = fourth.status()
        assert status is not None
        if status.leader != status.header.member_id:
            moved = run(KVCTL, cluster.endpoints, "move-leader", f"{status.header.member_id:x}")
            assert moved.returncode == 0, moved.stderr
            assert moved.stdout == (
                f"Leadership transferred from {status.leader:x} to {status.header.member_id:x}\n"
            )
        assert cluster.leader() is fourth
        command = ["member", "replace", f"{status.header.member_id:x}", "n5"]
        replaced = run(KVCTL, cluster.endpoints, *command, f"--peer-urls=http://127.0.0.1:{ports[3]}")
        assert replaced.returncode == 0, replaced.stderr
        start(cluster, tmp_path, "n5", (ports[2], ports[3]), replaced.stdout)
        assert fourth.wait_exit() == 0
        cluster.members.remove(fourth)
        listed = run(KVCTL, cluster.endpoints, "member", "list")
        assert sorted(re.findall(r"n\d", listed.stdout)) == ["n1", "n2", "n3", "n5"]
        assert "true" not in listed.stdout
