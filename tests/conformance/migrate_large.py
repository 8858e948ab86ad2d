"""The same with a database of gigabytes: python -m tests.conformance.migrate_large --gigabytes 1

Makes a snapshot in etcd's format, then has both sides do what an operator would: check it, restore it, serve it,
save it again under load. Prints a line for each step: how long it took, and the most memory it held, all of it
and without what is mapped from files (LMDB's and bbolt's pages, which the kernel may take back at any time).
Ends with status 1 where anything that should be equal is not. Not part of the tests: it takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvstore.etcd_db import schema
from kvstore.etcd_db.writer import write_database
from kvstore.pb.mvccpb_pb2 import KeyValue
from tests.conformance.etcd_process import (
    Cluster,
    Member,
    Server,
    clean_environment,
    etcdctl_path,
    running_cluster,
)
from tests.conformance.snapshots import KVCTL, RESTORE_FLAGS, Calls, etcdutl_path

VALUE_BYTES = 256
RECORD_BYTES = 17 + 16 + VALUE_BYTES + 40  # in the file, about
LOOK_S = 0.02
READY_LIMIT_S = 600.0  # etcd reads all of it before it serves
QUOTA = ("--quota-backend-bytes", str(64 << 30))


@dataclass
class Held:
    """The most memory some processes held at once, in bytes."""

    everything: int = 0
    anonymous: int = 0

    def look(self, pids: Sequence[int]) -> None:
        everything = anonymous = 0
        for pid in pids:
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except OSError:
                continue
            sizes = {
                name: int(rest.split()[0]) << 10
                for name, _, rest in (line.partition(":") for line in lines)
                if name in ("VmRSS", "RssAnon")
            }
            everything += sizes.get("VmRSS", 0)
            anonymous += sizes.get("RssAnon", 0)
        self.everything = max(self.everything, everything)
        self.anonymous = max(self.anonymous, anonymous)


def make(path: Path, gigabytes: float) -> int:
    """Two thirds of the versions are of keys of their own, the others of keys that were there; how many keys. The
    keys come in no order, as they would: that is what costs most to restore."""
    versions = int(gigabytes * (1 << 30) / RECORD_BYTES)
    keys = versions * 2 // 3
    random_ = random.Random(1)
    noise = random_.randbytes(1 << 20)

    def content() -> Iterator[tuple[bytes, bytes]]:
        for at in range(versions):
            number = at if at < keys else (at - keys) * 2  # of those some are written a second time
            start = random_.randrange(len(noise) - VALUE_BYTES)
            kv = KeyValue(
                key=b"services/%012d/instance" % (number * 2654435761 % 10**12),
                create_revision=number + 2,
                mod_revision=at + 2,
                version=1 + (at >= keys),
                value=noise[start : start + VALUE_BYTES],
            )
            yield schema.encode_revision(at + 2, 0), kv.SerializeToString()

    with path.open("wb", buffering=1 << 20) as file:
        write_database(file, [(schema.KEY, content()), (schema.LEASE, ()), (schema.META, ())])
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    with path.open("ab") as file:
        file.write(digest.digest())
    return keys


def step(what: str, command: Sequence[str]) -> str:
    """Runs it, watches its memory, prints the line; its stdout. Raises where it fails."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
    )
    with watched(lambda: [process.pid]) as held:
        out, errors = process.communicate()
    line(what, time.monotonic() - started, held)
    if process.returncode:
        raise SystemExit(f"{what} ended with {process.returncode}: {errors[-2000:]}")
    return out


def line(what: str, took_s: float, held: Held | None = None, more: str = "") -> None:
    memory = f"{held.everything >> 20:5d} MiB, {held.anonymous >> 20:4d} of its own" if held else ""
    print(f"{what:<36} {took_s:7.1f} s  {memory}{more}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--directory", help="where there is room for some four times as much")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kv-large-", dir=options.directory))
    try:
        return run(folder, options.gigabytes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(folder: Path, gigabytes: float) -> int:
    path, again = folder / "one.db", folder / "again.db"
    started = time.monotonic()
    keys = make(path, gigabytes)
    line(f"made {path.stat().st_size >> 20} MiB, {keys} keys", time.monotonic() - started)
    ours = step("kvctl snapshot status", [*KVCTL, "snapshot", "status", str(path), "-w", "json"])
    theirs = step("etcdutl snapshot status", [etcdutl_path(), "snapshot", "status", str(path), "-w", "json"])
    print(f"the same is printed: {ours == theirs}: {ours.strip()}")
    with serving("kvstore", path, folder / "ours") as cluster:
        member = cluster.members[0].process
        assert member is not None
        load = Load(cluster.endpoints[0])
        with load.running():
            time.sleep(5.0)
        line("puts one by one, nothing beside", load.took_s, more=load.told())
        with load.running(), watched(lambda: exporting(member.pid)) as held:
            step("kvctl snapshot save", [*KVCTL, *at(cluster), "snapshot", "save", str(again)])
        line("puts one by one, meanwhile", load.took_s, more=load.told())
        line("the process that writes the file", load.took_s, held)
        served = counted(cluster)
    step("etcdutl snapshot status of that", [etcdutl_path(), "snapshot", "status", str(again)])
    with serving("etcd", again, folder / "theirs") as cluster:
        there = counted(cluster)
        step(
            "etcdctl snapshot save, from etcd",
            [etcdctl_path(), *at(cluster), "snapshot", "save", f"{again}2"],
        )
    print(f"keys: {keys} made, {served} in the member, {there} in the etcd restored from it")
    return 0 if ours == theirs and keys <= there <= served <= keys + 1 else 1


def at(cluster: Cluster) -> list[str]:
    return [f"--endpoints={cluster.endpoints[0]}", "--command-timeout=600s"]


def counted(cluster: Cluster) -> int:
    calls = Calls(cluster.endpoints[0])
    try:
        return calls.count()
    finally:
        calls.close()


@contextlib.contextmanager
def serving(server: Server, path: Path, folder: Path) -> Iterator[Cluster]:
    """A member restored from the file; restoring and starting are steps."""
    folder.mkdir()
    program = KVCTL if server == "kvstore" else (etcdutl_path(),)
    more = ["--bump-revision=0"] if server == "kvstore" else []
    started = [0.0]

    def prepare(member: Member) -> None:
        flags = [word for name in RESTORE_FLAGS for word in (f"--{name}", member.flag(name))]
        command = [*program, "snapshot", "restore", str(path), *flags, *more]
        step(f"{Path(command[0]).name if server == 'etcd' else 'kvctl'} snapshot restore", command)
        started[0] = time.monotonic()
        member.ready_limit_s = READY_LIMIT_S

    with running_cluster(server, directory=folder, prepare=prepare, flags=QUOTA) as cluster:
        line(f"{server} starts on it", time.monotonic() - started[0])
        yield cluster
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def watched(pids: Callable[[], Sequence[int]]) -> Iterator[Held]:
    held, done = Held(), threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_S):
            held.look(pids())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield held
    finally:
        done.set()
        watcher.join()


def exporting(member_pid: int) -> list[int]:
    """The member's children that write snapshots."""
    found = []
    for task in Path(f"/proc/{member_pid}/task").iterdir():
        with contextlib.suppress(OSError):
            for pid in (task / "children").read_text().split():
                if b"export_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
    return found


class Load:
    """One client that puts one key again and again, and how long each took."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._latencies: list[float] = []
        self.took_s = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._latencies, done = [], threading.Event()
        thread = threading.Thread(target=self._put, args=(done,))
        started = time.monotonic()
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.took_s = time.monotonic() - started

    def _put(self, done: threading.Event) -> None:
        calls = Calls(self._endpoint)
        while not done.is_set():
            started = time.perf_counter()
            calls.put(b"load", b"x" * VALUE_BYTES)
            self._latencies.append(time.perf_counter() - started)
        calls.close()

    def told(self) -> str:
        sorted_ = sorted(self._latencies)
        at = {name: sorted_[int(len(sorted_) * share)] for name, share in (("p50", 0.5), ("p99", 0.99))}
        at["max"] = sorted_[-1]
        return f"{len(sorted_)} puts; " + ", ".join(
            f"{name} {value * 1e3:.2f} ms" for name, value in at.items()
        )


if __name__ == "__main__":
    sys.exit(main())
