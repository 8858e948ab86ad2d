"""The same with a database of gigabytes: python -m tests.conformance.migrate_large --gigabytes 1

Makes a snapshot in etcd's format, then has both sides do what an operator would: check it, restore it into a cluster
of ours (--members 3: each from the same file), serve it, save it again under load from one of them, and restore that
into an etcd. Keys, values, revisions, versions, leases, users, roles and passwords are compared with what was made, at
every member by reads of its own. Prints a line for each step: how long it took, and the most memory it held, all of
it and without what is mapped from files (LMDB's and bbolt's pages, which the kernel may take back at any time).
Ends with status 1 where anything that should be equal is not. Not part of the tests: it takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.conformance.etcd_process import (
    Cluster,
    Member,
    Server,
    clean_environment,
    etcdctl_path,
    running_cluster,
)
from tests.conformance.large_store import VALUE_BYTES, Store, make, read
from tests.conformance.snapshots import KVCTL, RESTORE_FLAGS, Calls, assert_passwords, etcdutl_path

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
    parser.add_argument("--members", type=int, default=3, help="of our cluster; etcd's has one")
    parser.add_argument("--directory", help="where there is room for eight times as much, with three members")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kv-large-", dir=options.directory))
    try:
        return run(folder, options.gigabytes, options.members)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(folder: Path, gigabytes: float, members: int) -> int:
    path, again = folder / "one.db", folder / "again.db"
    started = time.monotonic()
    made = make(path, gigabytes, Told("making"))
    what = f"made {path.stat().st_size >> 20} MiB, {made.newest.count} keys"
    line(what, time.monotonic() - started)
    ours = step("kvctl snapshot status", [*KVCTL, "snapshot", "status", str(path), "-w", "json"])
    theirs = step("etcdutl snapshot status", [etcdutl_path(), "snapshot", "status", str(path), "-w", "json"])
    print(f"the same is printed: {ours == theirs}: {ours.strip()}", flush=True)
    equal = ours == theirs
    with serving("kvstore", path, folder / "ours", members) as cluster:
        equal &= compared(cluster, made, "kvstore")
        saved_from = cluster.members[-1]
        member = saved_from.process
        assert member is not None
        load = Load(cluster.endpoints[0])
        with load.running():
            time.sleep(5.0)
        line("puts one by one, nothing beside", load.took_s, more=load.told())
        with load.running(), watched(lambda: exporting(member.pid)) as held:
            step("kvctl snapshot save", [*KVCTL, *at(saved_from), "snapshot", "save", str(again)])
        line("puts one by one, meanwhile", load.took_s, more=load.told())
        line("the process that writes the file", load.took_s, held)
        equal &= hashes_equal(cluster)
        passwords(cluster)
    saved = json.loads(
        step(
            "etcdutl snapshot status of that",
            [etcdutl_path(), "snapshot", "status", str(again), "-w", "json"],
        )
    )
    with serving("etcd", again, folder / "theirs", 1) as cluster:
        equal &= compared(cluster, made, "etcd", loaded_to=saved["revision"])
        step(
            "etcdctl snapshot save, from etcd",
            [etcdctl_path(), *at(cluster.members[0]), "snapshot", "save", f"{again}2"],
        )
        passwords(cluster)
    print("all is equal" if equal else "NOT EQUAL, see above")
    return 0 if equal else 1


class Told:
    """Where a long step has come, a line now and then."""

    EVERY_S = 10.0

    def __init__(self, what: str) -> None:
        self._what = what
        self._due = time.monotonic() + self.EVERY_S

    def __call__(self, where: str) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self.EVERY_S
            print(f"  … {self._what}: {where}", flush=True)


def compared(cluster: Cluster, made: Store, server: Server, loaded_to: int = 0) -> bool:
    """Whether each member has what was made; prints what differs. loaded_to: the revision that puts of another key
    brought since."""
    equal = True
    for member in cluster.members:
        what, started = f"{server} {member.name}", time.monotonic()
        calls = Calls(member.endpoint)
        found = read(calls, made, Told(what), revision=made.revision)
        calls.close()
        differences = replace(made, revision=loaded_to or made.revision).differences(found)
        more = f"{found.newest.count} keys, {len(found.leases)} leases, {len(found.users)} users"
        line(f"{what} compared", time.monotonic() - started, more=f"{more}: {differences or True}")
        equal &= not differences
    return equal


def hashes_equal(cluster: Cluster) -> bool:
    """After the load: the members' own hash of all their history, at the revision that all of them have."""
    calls = [Calls(endpoint) for endpoint in cluster.endpoints]
    revision = calls[0].first_key().header.revision
    for each in calls:
        each.first_key()  # linearizable: from here on this member has that revision
    found = [
        each(
            "Maintenance/HashKV",
            pb.HashKVRequest(revision=revision),
            pb.HashKVResponse,
            timeout_s=READY_LIMIT_S,
        )
        for each in calls
    ]
    for each in calls:
        each.close()
    equal = len({(each.hash, each.compact_revision) for each in found}) == 1
    print(f"HashKV at revision {revision}: {[each.hash for each in found]}: {equal}", flush=True)
    return equal


def passwords(cluster: Cluster) -> None:
    """Turns authentication on: the last thing that is asked of a cluster here."""
    calls = Calls(cluster.endpoints[0])
    assert_passwords(calls)
    calls.close()
    print("passwords are right, and others are refused", flush=True)


def at(member: Member) -> list[str]:
    return [f"--endpoints={member.endpoint}", "--command-timeout=600s"]


@contextlib.contextmanager
def serving(server: Server, path: Path, folder: Path, size: int) -> Iterator[Cluster]:
    """A cluster whose members are each restored from the file; restoring and starting are steps."""
    folder.mkdir()
    program = KVCTL if server == "kvstore" else (etcdutl_path(),)
    more = ["--bump-revision=0"] if server == "kvstore" else []
    started = [0.0]

    def prepare(member: Member) -> None:
        flags = [word for name in RESTORE_FLAGS for word in (f"--{name}", member.flag(name))]
        command = [*program, "snapshot", "restore", str(path), *flags, *more]
        name = "etcdutl" if server == "etcd" else "kvctl"
        step(f"{name} snapshot restore, {member.name}", command)
        started[0] = time.monotonic()
        member.ready_limit_s = READY_LIMIT_S

    with running_cluster(server, size=size, directory=folder, prepare=prepare, flags=QUOTA) as cluster:
        line(f"{server} starts on it, {size} of {size}", time.monotonic() - started[0])
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
