"""Snapshots carried over both ways: what one side saves, the other checks, restores and serves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.etcd_process import Server, etcdctl_path, running_cluster
from tests.conformance.snapshots import (
    KVCTL,
    Calls,
    Contents,
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
    path: Path
    chunks: list[tuple[int, int]]  # bytes remaining, bytes in it


@pytest.fixture(scope="module", params=["etcd", "kvstore"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    path = tmp_path_factory.mktemp("saved") / "snapshot.db"
    with running_cluster(request.param) as cluster:
        endpoint = cluster.endpoints[0]
        calls = Calls(endpoint)
        populate(calls)
        compacted = 44
        before = contents(calls, compacted)
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
        request.param, before, compacted, path, [(chunk.remaining_bytes, len(chunk.blob)) for chunk in chunks]
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
def test_status_is_etcdutls(saved: Saved, form: str) -> None:
    """etcdutl runs bbolt's own check of every page before it prints anything."""
    theirs = done((etcdutl_path(),), "snapshot", "status", str(saved.path), "-w", form)
    assert done(KVCTL, "snapshot", "status", str(saved.path), "-w", form) == theirs
    if form == "json":
        assert json.loads(theirs)["revision"] == saved.contents.revision


@pytest.mark.parametrize("server", ["etcd", "kvstore"])
def test_restored_it_serves_the_same(saved: Saved, server: Server) -> None:
    """Keys, values, revisions, versions, leases, and all of history that is not compacted."""
    if server == saved.server == "etcd":
        pytest.skip("that is etcd's own affair")
    program = (etcdutl_path(),) if server == "etcd" else KVCTL
    more = [] if server == "etcd" else ["--bump-revision=0"]
    with running_cluster(
        server,
        prepare=lambda member: restore(program, saved.path, member, *more),
    ) as cluster:
        calls = Calls(cluster.endpoints[0])
        assert contents(calls, saved.compact_revision) == saved.contents
        calls.put(b"after", b"it")
        assert calls.everything().header.revision == saved.contents.revision + 1
        calls.close()
