"""KVSTORE_TRACE on real members: a put's whole way is in their files, and nothing is without the variable."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import trace
from benchmarks.bench import leader_of
from benchmarks.hops import traced, watching
from benchmarks.load import put_request
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT
from kvstore.demo.cluster import LocalCluster, server_program
from kvstore.demo.processes import Programs
from kvstore.tracing import path_of

PUTS = 20


async def test_the_way_of_every_put_is_seen(tmp_path: Path) -> None:
    with traced(tmp_path):
        async with Programs() as programs:
            cluster = await LocalCluster.start(server_program(), tmp_path, programs)
            leader = await leader_of(cluster)
            watcher = await watching(leader)
            client = await RawConnection.connect(leader.endpoint)
            request = put_request().SerializeToString()
            async with asyncio.timeout(60):
                for _ in range(PUTS):
                    await client.ask(PUT, request)
            client.close()
            watcher.close()
    members = []
    for member in cluster.members:
        text = Path(path_of(str(tmp_path), member.name)).read_text(encoding="ascii")
        members.append(trace.read(text.splitlines(keepends=True)))
    found = trace.ways(members)
    assert len(found) == PUTS
    for way in found:
        stamps = [way[stage] for stage in trace.STAGES]
        assert stamps == sorted(stamps)
        assert way["synced"] > way["appended"]
    assert (
        sum("watched" in way for way in found) >= PUTS - 1
    )  # the last may be under way when the watcher goes


def test_nothing_of_it_is_loaded_where_it_is_not_asked_for() -> None:
    code = "import sys, kvstore.member; sys.exit('kvstore.tracing' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "file"
    done = subprocess.run(
        [sys.executable, "-m", "kvstore", f"--data-dir={tmp_path / 'data'}", "--listen-peer-urls=http://127.0.0.1:0",
         "--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:1"],
        env={"KVSTORE_TRACE": str(path), "PATH": ""}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"KVSTORE_TRACE: {path}: No such file or directory" in done.stdout + done.stderr


@pytest.mark.parametrize(("given", "expected"), [("folder", "folder/m1.trace"), ("file", "file")])
def test_a_folder_holds_a_file_for_each_member(
    tmp_path: Path, given: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert path_of(given, "m1") == expected
