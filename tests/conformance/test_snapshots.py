"""Snapshots carried over both ways: what one side saves, the other checks, restores and serves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from kvstore.cli.main import main as kvctl
from kvstore.demo.processes import free_ports
from kvstore.etcd_db.reader import Bucket, Database
from kvstore.etcd_db.status import hash_of
from tests.cluster.harness import wait_for
from tests.conformance.etcd_process import (
    Member,
    Server,
    etcdctl_path,
    program_path,
    running_cluster,
)
from tests.conformance.snapshots import (
    KVCTL,
    Calls,
    Contents,
    assert_passwords,
    contents,
    done,
    etcdutl_path,
    populate,
    restore,
)

CHUNK_BYTES = 32 << 10


@dataclass(frozen=True)
class Saved:
    """A populated store, what it held, and its snapshot by its own side's program."""

    server: Server
    contents: Contents
    compact_revision: int
    hash: int  # the server's own, Maintenance.Hash
    path: Path
    chunks: list[tuple[int, int]]  # bytes remaining, bytes in it


@pytest.fixture(scope="module", params=["etcd", "kvstore"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    path = tmp_path_factory.mktemp("saved") / "snapshot.db"
    with running_cluster(request.param) as cluster:
        endpoint = cluster.endpoints[0]
        calls = Calls(endpoint)
        populate(calls)
        if request.param == "kvstore":  # which is a bucket that etcd passes over
            done(KVCTL, f"--endpoints={endpoint}", "quota", "set", "k", "--keys", "1000")
        compacted = 44
        before = contents(calls, compacted)
        hash_ = calls.hash()
        chunks = calls.snapshot()
        # Each side's program saves the other's server too.
        program = KVCTL if request.param == "etcd" else (etcdctl_path(),)
        shown = done(program, f"--endpoints={endpoint}", "snapshot", "save", str(path))
        assert shown == f"Snapshot saved at {path}\n"
        calls.close()
    data = b"".join(chunk.blob for chunk in chunks[:-1])
    assert chunks[-1].blob == hashlib.sha256(data).digest()
    assert not chunks[0].HasField("header")
    yield Saved(
        request.param,
        before,
        compacted,
        hash_,
        path,
        [(chunk.remaining_bytes, len(chunk.blob)) for chunk in chunks],
    )


def test_chunks_count_down_and_a_digest_follows(saved: Saved) -> None:
    total = sum(size for _, size in saved.chunks[:-1])
    sent = 0
    for remaining, size in saved.chunks[:-1]:
        sent += size
        assert size == CHUNK_BYTES or remaining == 0
        assert remaining == total - sent
    assert saved.chunks[-1] == (0, 32)
    assert saved.path.stat().st_size == total + 32


@pytest.mark.parametrize("form", ["simple", "json", "fields", "table"])
def test_status_is_etcdutls(saved: Saved, form: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """etcdutl runs bbolt's own check of every page before it prints anything."""
    words = ["snapshot", "status", str(saved.path), "-w", form]
    theirs = done((etcdutl_path(),), *words)
    assert kvctl(words) == 0
    assert capfdbinary.readouterr().out.decode() == theirs
    if form == "json":
        assert json.loads(theirs)["revision"] == saved.contents.revision


def test_hash_is_of_what_the_snapshot_holds(saved: Saved) -> None:
    """Maintenance.Hash, of both servers, from the file alone."""
    with Database(str(saved.path)) as database:
        buckets = [
            (name, [(key, value) for key, value in content if isinstance(value, bytes)])
            for name, content in database.root
            if isinstance(content, Bucket)
        ]
    assert hash_of(buckets) == saved.hash


@pytest.mark.parametrize(
    ("saved", "server"),
    [("kvstore", "etcd"), ("kvstore", "kvstore"), ("etcd", "kvstore")],  # the fourth is etcd's own affair
    indirect=["saved"],
)
def test_restored_it_serves_the_same(saved: Saved, server: Server) -> None:
    """Keys, values, revisions, versions, leases, and all of history that is not compacted."""
    program = (etcdutl_path(),) if server == "etcd" else KVCTL
    more = (
        [] if server == "etcd" else ["--bump-revision=0", "--wal-dir=/somewhere"]
    )  # the latter is passed over
    with running_cluster(
        server,
        prepare=lambda member: restore(program, saved.path, member, *more),
    ) as cluster:
        calls = Calls(cluster.endpoints[0])
        assert contents(calls, saved.compact_revision) == saved.contents
        calls.put(b"after", b"it")
        assert calls.everything().header.revision == saved.contents.revision + 1
        assert_passwords(calls)
        calls.close()


@pytest.mark.parametrize(
    "saved", ["etcd"], indirect=True
)  # its origin makes no difference to what is looked at
def test_three_members_restored_alike_and_one_that_joins(saved: Saved, tmp_path: Path) -> None:
    """With the defaults: whoever resumes at an old revision is told, and the fourth is sent what no log holds."""
    (port, peer_port) = free_ports(2)
    with running_cluster("kvstore", size=3, prepare=lambda each: restore(KVCTL, saved.path, each)) as cluster:
        members = [Calls(endpoint) for endpoint in cluster.endpoints]
        peer_url = f"http://127.0.0.1:{peer_port}"
        joined = wait_for(lambda: members[0].add_learner(peer_url), "a member is added")
        flags = cluster.members[0].flag("initial-cluster") + f",m4={peer_url}"
        client_url = f"http://127.0.0.1:{port}"
        command = [
            *(program_path("kvstore"), "--name", "m4", "--data-dir", str(tmp_path / "m4")),
            *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
            *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
            *("--initial-cluster", flags, "--initial-cluster-state", "existing", "--log-level", "warn"),
        ]
        fourth = Member("m4", f"127.0.0.1:{port}", command, tmp_path / "m4.log")
        fourth.start()
        try:
            fourth.wait_ready()
            members.append(Calls(fourth.endpoint))
            revision = saved.contents.revision + 1_000_000_000
            expected = [kv[:2] for kv in saved.contents.newest]
            for calls in members:
                found = calls.everything()
                assert [(kv.key, kv.value) for kv in found.kvs] == expected
                assert (found.header.revision, found.header.cluster_id) == (revision, joined.cluster_id)
            # It covers who the members are: once all have heard that the fourth is there, they agree.
            wait_for(lambda: len({calls.hash() for calls in members}) == 1, "equal members hash equally")
            with pytest.raises(grpc.RpcError, match="compacted"):
                members[1].everything(saved.contents.revision)
            assert members[2].compacted_watch(saved.contents.revision) == revision
        finally:
            fourth.stop()
            for calls in members:
                calls.close()
