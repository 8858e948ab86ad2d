"""Members as processes: starting, stopping, refusing, and what an operator sees."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import grpc
import pytest

from kvstore.demo.processes import free_ports
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.cluster.harness import KVSTORE, TestCluster, running, wait_for


def run_kvstore(*flags: str, timeout_s: float = 15.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*KVSTORE, *flags], capture_output=True, text=True, timeout=timeout_s)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_readiness_lines_and_a_clean_stop_within_two_seconds(tmp_path: Path) -> None:
    with running(tmp_path, 3) as cluster:
        for member in cluster.members:
            for line in (
                "published local member to cluster through raft",
                "enabled capabilities for version",
                "ready to serve client requests",
            ):
                wait_for(lambda m=member, text=line: m.has_logged(text), f"{member.name}: {line}")  # type: ignore[misc]
        cluster.leader().calls.put(b"a", b"b")
        leader = cluster.leader()
        started = time.monotonic()
        assert leader.stop() == -signal.SIGTERM  # ended by the signal itself, as etcd is
        assert time.monotonic() - started < 2.0
        survivor = next(member for member in cluster.members if member.process is not None)
        assert survivor.calls.range(b"a").kvs[0].value == b"b"
        leader.start()
        cluster.wait_ready()
        assert leader.calls.range(b"a").kvs[0].value == b"b"


def test_a_member_alone_keeps_what_it_acknowledged_over_kill_9(tmp_path: Path) -> None:
    with running(tmp_path, 1) as cluster:
        (member,) = cluster.members
        for round_ in range(3):
            for number in range(50):
                member.calls.put(b"k%d" % number, b"%d" % round_)
            before = member.calls.range(b"k", range_end=b"l")
            member.kill()
            member.start()
            cluster.wait_ready()
            after = member.calls.range(b"k", range_end=b"l")
            assert after.kvs == before.kvs
            assert after.header.revision == before.header.revision
        assert member.stop() == -signal.SIGTERM


def test_a_wiped_member_does_not_vote_again(tmp_path: Path) -> None:
    with running(tmp_path, 3) as cluster:
        victim = next(m for m in cluster.members if m is not cluster.leader())
        for member in cluster.members:
            wait_for(lambda m=member: m.has_logged("ready to serve client requests"), "published")  # type: ignore[misc]
        victim.calls.put(b"a", b"b")
        victim.kill()
        shutil.rmtree(victim.data_dir)
        victim.start()
        assert victim.wait_exit() == 1
        last = victim.log_lines()[-1]
        assert last["level"] == "fatal"
        assert "has already been bootstrapped" in last["error"]
        assert "add it as a new one" in last["error"]


def test_a_wiped_member_that_starts_while_its_peers_are_down_is_refused_later(tmp_path: Path) -> None:
    """etcd asks its peers once, at the start; here every peer refuses it at every connection too."""
    with running(tmp_path, 3) as cluster:
        for member in cluster.members:
            wait_for(lambda m=member: m.has_logged("ready to serve client requests"), "published")  # type: ignore[misc]
        cluster.wait_equal()
        for member in cluster.members:
            member.kill()
        wiped, *others = cluster.members
        shutil.rmtree(wiped.data_dir)
        wiped.start()
        wait_for(lambda: wiped.status() is not None, "the wiped member answers Status")
        for member in others:
            member.start()
        assert wiped.wait_exit() == 1
        assert "has already been bootstrapped" in wiped.log_lines()[-1]["error"]
        cluster.wait_ready()


@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        (["--bogus"], 2, "flag provided but not defined: -bogus"),
        (["--listen-client-urls", "foo"], 2, 'invalid value "foo" for flag -listen-client-urls'),
        (["--name", "x", "--initial-cluster", "y=http://127.0.0.1:1"], 1, "couldn't find local name"),
        (
            ["--initial-cluster-state", "existing"],
            1,
            "could not retrieve cluster information from the given URLs",
        ),
    ],
)
def test_bad_flags_say_what_and_change_nothing(
    tmp_path: Path, flags: list[str], status: int, text: str
) -> None:
    client, peer = free_ports(2)
    where = [] if flags[0].startswith("--listen") else [f"--listen-client-urls=http://127.0.0.1:{client}"]
    done = run_kvstore(
        "--data-dir", str(tmp_path / "d"), f"--listen-peer-urls=http://127.0.0.1:{peer}", *where, *flags
    )
    assert done.returncode == status, done.stderr
    assert text in done.stderr
    assert not (tmp_path / "d" / "member").exists()


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_kvstore("--data-dir", str(tmp_path / "d"), f"--listen-client-urls=http://127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"listen tcp 127.0.0.1:{port}: bind: Address already in use" in done.stderr
    assert not (tmp_path / "d").exists()


def test_a_directory_in_use_or_of_another_cluster_is_left_alone(tmp_path: Path) -> None:
    client, peer, other = free_ports(3)
    own = ["--data-dir", str(tmp_path / "n1"), f"--listen-peer-urls=http://127.0.0.1:{peer}"]
    listen = [f"--listen-client-urls=http://127.0.0.1:{client}"]
    with running(tmp_path, 1) as cluster:
        (member,) = cluster.members
        member.calls.put(b"a", b"b")
        done = run_kvstore(*own, *listen, "--initial-cluster", "default=http://localhost:2380")
        assert done.returncode == 1
        assert "is in use by another member" in done.stderr
        member.stop()
        before = tree(tmp_path / "n1")
        url = f"http://127.0.0.1:{other}"
        done = run_kvstore(
            *own, *listen, f"--initial-advertise-peer-urls={url}", f"--initial-cluster=default={url}"
        )
        assert done.returncode == 1
        assert "belongs to member" in done.stderr
        assert tree(tmp_path / "n1") == before


def test_a_corrupt_log_stops_the_start_and_is_not_altered(tmp_path: Path) -> None:
    with running(tmp_path, 1) as cluster:
        (member,) = cluster.members
        for number in range(20):
            member.calls.put(b"k%d" % number, b"x" * 100)
        member.stop()
        (segment,) = sorted((member.data_dir / "member" / "wal").glob("*.wal"))
        data = bytearray(segment.read_bytes())
        at = data.index(b"x" * 100)
        data[at + 50] ^= 0x40
        segment.write_bytes(data)
        before = segment.read_bytes()
        member.start()
        assert member.wait_exit() == 1
        error = member.log_lines()[-1]["error"]
        assert "corrupt" in error and str(segment) in error and "at byte" in error
        assert segment.read_bytes() == before


def test_etcds_version_lines_and_help() -> None:
    version = run_kvstore("--version")
    assert version.returncode == 0
    assert version.stdout.startswith("etcd Version: 3.5.")
    assert [line.partition(":")[0] for line in version.stdout.splitlines()] == [
        "etcd Version",
        "Git SHA",
        "Go Version",
        "Go OS/Arch",
    ]
    shown = run_kvstore("--help")
    assert shown.returncode == 0
    assert "--initial-cluster" in shown.stdout


def test_a_flag_without_meaning_is_warned_of_once(tmp_path: Path) -> None:
    with running(tmp_path, 1, ["--logger=zap", "--max-wals", "5"]) as cluster:
        warned = [
            line["flag"]
            for line in cluster.members[0].log_lines()
            if line["msg"] == "flag has no meaning here and is ignored"
        ]
        assert warned == ["logger", "max-wals"]


def test_a_follower_far_behind_comes_back_through_a_snapshot(tmp_path: Path) -> None:
    """While writes go on. A small --snapshot-count makes the log's tail short."""
    with running(tmp_path, 3, ["--snapshot-count", "500"]) as cluster:
        victim = next(m for m in cluster.members if m is not cluster.leader())
        victim.kill()
        leader = cluster.leader()
        for number in range(8_000):
            leader.calls.put(b"k%d" % (number % 300), b"%d" % number)
        victim.start()
        for number in range(500):
            leader.calls.put(b"more%d" % number, b"x")
        cluster.wait_ready()
        cluster.wait_equal()
        assert victim.has_logged("installed a snapshot")
        hashes = {(h.hash, h.compact_revision) for h in (m.calls.hash_kv() for m in cluster.members)}
        assert len(hashes) == 1


def test_bytes_that_are_neither_http_2_nor_1_end_their_connection_only(tmp_path: Path) -> None:
    with running(tmp_path, 1) as cluster:
        (member,) = cluster.members
        for garbage in (b"\0" * 100, b"\x16\x03\x01" + os.urandom(200), b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", member.client_port), timeout=5) as sock:
                sock.sendall(garbage)
                while sock.recv(4096):
                    pass
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(300)):
            with socket.create_connection(("127.0.0.1", member.peer_port), timeout=5) as sock:
                sock.sendall(garbage)
                while sock.recv(4096):
                    pass
        assert member.calls.put(b"still", b"here").header.revision == 2


def test_without_a_quorum_writes_fail_and_serializable_reads_do_not(tmp_path: Path) -> None:
    flags = ["--heartbeat-interval", "20", "--election-timeout", "100"]
    with running(tmp_path, 3, flags) as cluster:
        survivor, *others = cluster.members
        survivor.calls.put(b"a", b"b")
        cluster.wait_equal()
        for member in others:
            member.kill()
        wait_for(lambda: survivor.calls.status().leader == 0, "the leader is given up")
        assert survivor.calls.range(b"a", serializable=True).kvs[0].value == b"b"
        with pytest.raises(grpc.RpcError) as caught:
            survivor.calls.put(b"a", b"c", timeout_s=20)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() in ("etcdserver: no leader", "etcdserver: request timed out")
        others[0].start()
        cluster.wait_ready()
        assert isinstance(survivor.calls.put(b"a", b"d"), pb.PutResponse)


__all__ = ["TestCluster"]
