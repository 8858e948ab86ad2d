"""The writer: frames, what a kill leaves behind, and how the member hears of a failure."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from kvstore.commands import Kind, encode_batch
from kvstore.pb.etcdserverpb_pb2 import CompactionRequest, DeleteRangeRequest, PutRequest
from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.state.backend import ProcessBackend, StorageFailed
from kvstore.state.machine import StateMachine
from kvstore.state.records import NO_REVISION, REVISION
from kvstore.state.storage_process import (
    HISTORY,
    KEYS,
    BadFrame,
    commit,
    encode_frame,
    open_environment,
    open_tables,
)
from tests.unit.state.harness import MAP_BYTES, Replica


def frame_of(*values: bytes, first: int = 2) -> memoryview:
    records = [
        REVISION.pack(first + number, 0)
        + NO_REVISION * 2
        + b"\0\0"
        + KeyValue(key=b"k%d" % number, value=value).SerializeToString()
        for number, value in enumerate(values)
    ]
    return memoryview(encode_frame(7, records, [], [], {(2, b"m"): b"1"}))


def test_a_frame_stored_twice_is_stored_once_and_a_different_one_is_refused(tmp_path: Path) -> None:
    env = open_environment(str(tmp_path / "db"), map_bytes=MAP_BYTES, sync=False)
    tables = open_tables(env, create=True)
    assert commit(env, tables, frame_of(b"a", b"b")) == 7
    entries = env.stat(), [env.begin().stat(table)["entries"] for table in tables]
    assert commit(env, tables, frame_of(b"a", b"b")) == 7
    assert (env.stat(), [env.begin().stat(table)["entries"] for table in tables]) == entries
    with pytest.raises(BadFrame, match="below the highest stored"):
        commit(env, tables, frame_of(b"a", b"other"))
    with pytest.raises(BadFrame, match="understood"):
        commit(env, tables, memoryview(bytes(frame_of(b"c", first=9)) + b"x"))
    assert [env.begin().stat(table)["entries"] for table in tables] == entries[1], "all or nothing"
    env.close()


def test_both_backends_store_the_same(tmp_path: Path) -> None:
    hashes, tables = [], []
    for backend in ("sync", "lmdb"):
        (tmp_path / backend).mkdir()
        replica = Replica(str(tmp_path / backend), backend)
        for number in range(50):
            replica.put(b"k%d" % (number % 7), b"%d" % number)
        replica.delete(b"k3")
        replica.reopen(crash=False)
        hashes.append(replica.machine.hash_kv())
        tables.append([dict(replica.machine._reader.table(number)) for number in range(8)])
        replica.machine.flush_and_close()
    assert hashes[0] == hashes[1]
    assert tables[0] == tables[1]


def test_a_killed_writer_is_reported_and_nothing_is_lost_that_was_durable(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path), "lmdb")
    failures: list[Exception] = []
    replica.machine._on_failure = failures.append
    for number in range(20):
        replica.put(b"k%d" % number, b"x")
    replica.machine.flush()
    durable = replica.machine.durable_index
    assert durable == 20
    replica.put(b"later", b"y")
    wanted = replica.machine.hash_kv()
    backend = replica.machine._backend
    assert isinstance(backend, ProcessBackend)
    os.kill(backend.process_id, signal.SIGKILL)
    with pytest.raises(StorageFailed):
        replica.machine.flush()
    assert len(failures) == 1
    with pytest.raises(RuntimeError):
        replica.put(b"refused")
    replica.log.pop()
    replica.machine.abandon()
    reopened = StateMachine.open(str(tmp_path), backend="lmdb", map_bytes=MAP_BYTES, sync=False)
    assert reopened.applied_index == durable
    replica.machine = reopened
    replica.replay()
    assert replica.machine.hash_kv() == wanted
    replica.machine.flush_and_close()


MEMBER = """
    import sys
    import time
    from kvstore.state.machine import StateMachine
    from tests.unit.state.test_storage_process import entry
    machine = StateMachine.open(
        sys.argv[1], map_bytes=1 << 30, now=time.monotonic, call_later=lambda delay, call: None
    )
    for number in range(1, 100_000):
        machine.apply(number, 1, entry(number))
        machine.turn()
        if number % 50 == 0:
            print(number, machine.durable_index, flush=True)
"""


def stored_in(machine: StateMachine) -> list[tuple[bytes, bytes]]:
    """Every version and every key in LMDB."""
    reader = machine._reader
    return list(reader.table(HISTORY)) + list(reader.table(KEYS))


def entry(number: int) -> bytes:
    put = PutRequest(key=b"k%d" % (number % 97), value=b"%d" % number).SerializeToString()
    gone = DeleteRangeRequest(key=b"k%d" % (number * 7 % 97)).SerializeToString()
    batch = [(int(Kind.PUT), put), (int(Kind.DELETE_RANGE), gone)]
    if number % 400 == 0:
        compaction = CompactionRequest(revision=number)  # an entry is a revision or two
        batch.append((int(Kind.COMPACT), compaction.SerializeToString()))
    return encode_batch(batch, origin=1, incarnation=1, sequence=number)


@pytest.mark.parametrize("after_lines", [1, 9, 23])
def test_a_killed_member_replays_to_the_same_state(tmp_path: Path, after_lines: int) -> None:
    """kill -9 wherever it is, a compaction half done among it; what the log holds above the applied index brings
    back the same state, and the removal goes on to the same end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(MEMBER), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    for _ in range(after_lines):
        applied, durable = map(int, process.stdout.readline().split())
    process.kill()
    process.wait()
    process.stdout.close()
    crashed = StateMachine.open(str(tmp_path), backend="sync", map_bytes=MAP_BYTES, sync=False)
    assert crashed.applied_index >= durable
    last = max(applied, crashed.applied_index)
    (tmp_path / "fresh").mkdir()
    fresh = StateMachine.open(str(tmp_path / "fresh"), backend="sync", map_bytes=MAP_BYTES, sync=False)
    for number in range(1, last + 1):
        crashed.apply(number, 1, entry(number))
        fresh.apply(number, 1, entry(number))
    assert crashed.hash_kv() == fresh.hash_kv()
    assert crashed.revision == fresh.revision
    for machine in (crashed, fresh):
        while machine.turn():
            pass
        machine.flush()
        assert machine.physical_compact_revision == machine.compact_revision
    assert crashed.hash_kv() == fresh.hash_kv()
    assert stored_in(crashed) == stored_in(fresh)
    crashed.abandon()
    fresh.abandon()


def test_the_writer_ends_with_its_member_and_ignores_signals(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path), "lmdb")
    backend = replica.machine._backend
    assert isinstance(backend, ProcessBackend)
    os.kill(backend.process_id, signal.SIGTERM)
    os.kill(backend.process_id, signal.SIGINT)
    replica.put(b"k")
    replica.machine.flush_and_close()
    assert backend._process.returncode == 0


def test_the_writer_stands_back_and_imports_next_to_nothing(tmp_path: Path) -> None:
    """What it imports is in the memory of every member."""
    machine = StateMachine.open(str(tmp_path), map_bytes=MAP_BYTES, sync=False)
    backend = machine._backend
    assert isinstance(backend, ProcessBackend)
    assert os.sched_getscheduler(backend.process_id) == os.SCHED_BATCH
    blocked = re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{backend.process_id}/status").read_text())
    assert blocked is not None
    assert int(blocked[1], 16) >> (signal.SIGTERM - 1) & 1
    machine.flush_and_close()
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "and the member hears it"
    roots = [str(Path(__file__).parents[3]), str(Path(lmdb.__file__).parents[1])]
    program = (
        f"import sys; sys.path[:0] = {roots!r}; import kvstore.state.storage_process; print(*sys.modules)"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "lmdb" in modules
    assert not {"typing", "enum", "re", "socket", "signal", "contextlib", "site", "google"} & set(modules)


def test_the_writer_holds_the_descriptors_it_was_given(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    machine = StateMachine.open(str(tmp_path), map_bytes=MAP_BYTES, sync=False, inherit_fds=[lock])
    backend = machine._backend
    assert isinstance(backend, ProcessBackend)
    held = {os.readlink(link) for link in Path(f"/proc/{backend.process_id}/fd").iterdir()}
    assert str(tmp_path / "lock") in held
    machine.flush_and_close()
    os.close(lock)


def test_a_reply_that_comes_after_the_state_was_replaced_is_nobodys(tmp_path: Path) -> None:
    calls: list[Callable[[], None]] = []
    replica = Replica(str(tmp_path), "lmdb")
    replica.machine.flush_and_close()
    machine = StateMachine.open(
        str(tmp_path), map_bytes=MAP_BYTES, sync=False, call_soon_threadsafe=calls.append
    )
    replica.machine = machine
    replica.put(b"k", b"1")
    machine.flush()
    machine.snapshot_to(str(tmp_path / "copy"))
    replica.put(b"k", b"2")
    machine.turn()  # a frame is under way, and is not waited for
    machine.reopen_from(str(tmp_path / "copy"))
    for call in calls:
        call()
    assert (machine.applied_index, machine.durable_index, replica.values()) == (1, 1, {b"k": b"1"})
    replica.replay()
    assert replica.values() == {b"k": b"2"}
    machine.flush_and_close()
    calls.clear()
    late = StateMachine.open(
        str(tmp_path), map_bytes=MAP_BYTES, sync=False, call_soon_threadsafe=_closed_loop
    )
    replica.machine = late
    replica.put(b"k", b"3")
    replica.put(b"k", b"4")
    late.flush_and_close()
    assert Replica(str(tmp_path)).values() == {b"k": b"4"}


def test_a_writer_that_dies_while_nothing_is_written_is_noticed(tmp_path: Path) -> None:
    heard = threading.Event()
    failures: list[Exception] = []
    machine = StateMachine.open(
        str(tmp_path),
        map_bytes=MAP_BYTES,
        sync=False,
        on_failure=failures.append,
        call_soon_threadsafe=lambda call: heard.set(),
    )
    backend = machine._backend
    assert isinstance(backend, ProcessBackend)
    os.kill(backend.process_id, signal.SIGKILL)
    assert heard.wait(15)
    machine.turn()
    assert len(failures) == 1
    machine.abandon()


def _closed_loop(call: Callable[[], None]) -> None:
    raise RuntimeError("Event loop is closed")
