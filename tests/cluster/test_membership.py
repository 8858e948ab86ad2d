"""A cluster of processes grown 1 → 3 → 5 and shrunk to 3 with etcdctl, under a steady load, with the joining member
killed at every step: no write lost, no stale read, and no longer pause than an election or two."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from kvstore.client import Client, ClientError
from kvstore.demo.processes import free_ports
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.cluster.harness import MemberHandle, TestCluster, running, wait_for
from tests.conformance.etcd_process import etcdctl_path

PUTS_PER_S = 500
ELECTION_TIMEOUT_S = 1.0


def etcdctl(cluster: TestCluster, *words: str) -> subprocess.CompletedProcess[str]:
    running_ones = ",".join(m.endpoint for m in cluster.members if m.process is not None)
    return subprocess.run(
        [etcdctl_path(), f"--endpoints={running_ones}", *words], capture_output=True, text=True, timeout=30
    )


def done(cluster: TestCluster, *words: str) -> str:
    """Runs until it succeeds, as somebody would who repeats a step that was refused for now."""

    refused = ""

    def attempt() -> str | None:
        nonlocal refused
        result = etcdctl(cluster, *words)
        refused = result.stderr
        return result.stdout or "done" if result.returncode == 0 else None

    try:
        return str(wait_for(attempt, f"etcdctl {' '.join(words)}"))
    except AssertionError as problem:
        raise AssertionError(f"{problem}: {refused}") from None


@dataclass
class Load:
    """Puts of a growing number to one key, 500 a second, and reads that must never see an older one than was
    acknowledged before they were asked."""

    endpoints: list[str]
    acknowledged: int = 0
    puts: int = 0
    reads: int = 0
    unknown: int = 0
    refused: int = 0
    pauses_s: list[float] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    async def write(self) -> None:
        async with Client(self.endpoints, timeout_s=10) as client:
            number, last, due = 0, time.monotonic(), time.monotonic()
            while True:
                number += 1
                try:
                    await client.put("counter", str(number))
                except ClientError as problem:
                    self.unknown += not problem.definite
                    self.refused += problem.definite
                else:
                    self.acknowledged = number
                    self.puts += 1
                    now = time.monotonic()
                    self.pauses_s.append(now - last)
                    last = now
                due = max(due + 1 / PUTS_PER_S, time.monotonic())
                await asyncio.sleep(due - time.monotonic())

    async def read(self) -> None:
        async with Client(self.endpoints, timeout_s=10) as client:
            while True:
                before = self.acknowledged
                with contextlib.suppress(ClientError):
                    found = await client.get("counter")
                    seen = int(found.kvs[0].value) if found.kvs else 0
                    self.reads += 1
                    if seen < before:
                        self.stale.append(f"read {seen} after {before} was acknowledged")
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def load(endpoints: list[str]) -> AsyncIterator[Load]:
    made = Load(endpoints)
    tasks = [asyncio.ensure_future(made.write()), asyncio.ensure_future(made.read())]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results


def add(cluster: TestCluster, folder: Path, name: str, ports: tuple[int, int]) -> tuple[MemberHandle, str]:
    """`member add --learner`, and the member that its output describes, not started yet."""
    said = done(cluster, "member", "add", name, "--learner", f"--peer-urls=http://127.0.0.1:{ports[1]}")
    member_id = re.findall(r"Member\s+([0-9a-f]+) added", said)[0]
    initial = re.findall(r'ETCD_INITIAL_CLUSTER="([^"]+)"', said)[0]
    member = MemberHandle(name, folder, ports, initial, ["--initial-cluster-state=existing"])
    cluster.members.append(member)
    return member, member_id


def kill_soon(member: MemberHandle, after_s: float) -> None:
    member.start()
    time.sleep(after_s)
    member.kill()


def grow(cluster: TestCluster, folder: Path, name: str, ports: tuple[int, int]) -> None:
    """One member more, killed while it joins, when it has joined, and after its promotion."""
    member, member_id = add(cluster, folder, name, ports)
    for after_s in (0.25, 0.5, 0.8):  # importing, bootstrapping, catching up
        kill_soon(member, after_s)
    refused = etcdctl(cluster, "member", "promote", member_id)
    assert refused.returncode != 0 or member.has_logged("ready to serve client requests")
    member.start()
    try:
        done(cluster, "member", "promote", member_id)
    except AssertionError as problem:
        said = "\n".join(member.log_path.read_text().splitlines()[-20:])
        raise AssertionError(f"{problem}\n{name} is at {member.status()} and said last:\n{said}") from None
    if len(cluster.members) > 2:  # of two voters none can be missed
        member.kill()
        member.start()
    wait_for(lambda: (s := member.status()) is not None and s.leader and not s.isLearner, f"{name} votes")


def voters(cluster: TestCluster) -> set[str]:
    listed = json.loads(done(cluster, "member", "list", "-w", "json"))
    assert not any(member.get("isLearner") for member in listed["members"])
    return {member["name"] for member in listed["members"]}


def remove(cluster: TestCluster, member: MemberHandle) -> None:
    status = member.status()
    assert status is not None
    done(cluster, "member", "remove", f"{status.header.member_id:x}")
    assert member.wait_exit() == 0
    assert member.has_logged("server error")
    cluster.members.remove(member)


def grow_and_shrink(cluster: TestCluster, folder: Path, ports: list[int]) -> None:
    (first,) = cluster.members
    for at, name in enumerate(("n2", "n3", "n4", "n5")):
        grow(cluster, folder, name, (ports[at], ports[4 + at]))
        assert voters(cluster) == {member.name for member in cluster.members}
    successor = cluster.members[2].status()
    assert successor is not None
    leader = cluster.leader()
    if leader is not cluster.members[2]:
        moved = etcdctl(cluster, "move-leader", f"{successor.header.member_id:x}")
        assert moved.returncode == 0, moved.stderr
    assert cluster.leader() is cluster.members[2]
    remove(cluster, cluster.members[2])  # the leader itself
    remove(cluster, first)  # the founder
    assert voters(cluster) == {"n2", "n4", "n5"}


async def test_grown_and_shrunk_under_load(tmp_path: Path) -> None:
    ports = free_ports(8)
    with running(tmp_path, size=1) as cluster:
        endpoints = [*cluster.endpoints, *(f"127.0.0.1:{port}" for port in ports[:4])]
        async with load(endpoints) as seen:
            await asyncio.to_thread(grow_and_shrink, cluster, tmp_path, ports)
        print(
            f"{seen.puts} puts, {seen.reads} reads, longest pause {max(seen.pauses_s):.2f} s, "
            f"{seen.unknown} unknown, {seen.refused} refused"
        )
        assert seen.stale == []
        assert seen.puts > 500
        assert max(seen.pauses_s) < 2 * ELECTION_TIMEOUT_S
        cluster.wait_equal()
        hashes = {(h.hash, h.compact_revision) for h in (m.calls.hash_kv() for m in cluster.members)}
        assert len(hashes) == 1
        async with Client(cluster.endpoints) as client:
            assert int((await client.get("counter")).kvs[0].value) >= seen.acknowledged


def test_a_member_joins_a_cluster_that_is_slow_to_answer(tmp_path: Path) -> None:
    """The only one to ask is stopped while the new one starts, for longer than a connection may take."""
    ports = free_ports(2)
    with running(tmp_path, size=1) as cluster:
        (first,) = cluster.members
        member, _ = add(cluster, tmp_path, "n2", (ports[0], ports[1]))
        assert first.process is not None
        first.process.send_signal(signal.SIGSTOP)
        try:
            member.start()
            wait_for(
                lambda: member.has_logged("waiting for a member of the cluster to answer"), "it asks again"
            )
        finally:
            first.process.send_signal(signal.SIGCONT)
        wait_for(lambda: (s := member.status()) is not None and s.leader and s.isLearner, "n2 has joined")


async def test_a_removed_member_never_comes_back(tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        victim = cluster.members[2]
        assert victim.status() is not None
        remove(cluster, victim)
        victim.start()
        assert victim.wait_exit() == 0  # refused, with what to do
        assert any("permanently removed" in line.get("error", "") for line in victim.log_lines())
        assert len(voters(cluster)) == 2


async def test_going_on_alone_after_a_disaster(tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        async with Client(cluster.endpoints) as client:
            await client.put("kept", "x")
        survivor, *lost = cluster.members
        cluster.wait_equal()
        for member in cluster.members:
            member.kill()
        survivor._flags.append("--force-new-cluster")
        survivor.start()
        cluster.members = [survivor]
        cluster.wait_ready()
        assert voters(cluster) == {"n1"}
        survivor._flags.remove("--force-new-cluster")
        assert survivor.stop() == -15
        survivor.start()
        cluster.wait_ready()
        async with Client(cluster.endpoints) as client:
            assert (await client.get("kept")).kvs[0].value == b"x"
            await client.put("more", "y")
        for member in lost:
            member.calls.close()
        ports = free_ports(2)
        grow(cluster, tmp_path, "n4", (ports[0], ports[1]))
        assert voters(cluster) == {"n1", "n4"}


def added_by_itself(cluster: TestCluster, folder: Path, name: str, **metadata: str) -> MemberHandle:
    """A learner that the leader promotes; metadata is what rides on MemberAdd beside etcd's own request."""
    client, peer = free_ports(2)
    url = f"http://127.0.0.1:{peer}"
    at = cluster.leader().calls._channel.unary_unary(
        "/etcdserverpb.Cluster/MemberAdd",
        request_serializer=pb.MemberAddRequest.SerializeToString,
        response_deserializer=pb.MemberAddResponse.FromString,
    )
    given = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
    answer = at(pb.MemberAddRequest(peerURLs=[url], isLearner=True), timeout=10, metadata=given)
    everybody = [f"{m.name}={m.peerURLs[0]}" for m in answer.members if m.name] + [f"{name}={url}"]
    member = MemberHandle(
        name, folder, (client, peer), ",".join(everybody), ["--initial-cluster-state=existing"]
    )
    cluster.members.append(member)
    member.start()
    return member


async def test_a_learner_is_promoted_and_takes_anothers_place_by_itself(tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        for number in range(200):
            cluster.members[0].calls.put(b"k%d" % number, b"v")
        replaced = cluster.leader()  # the hardest to replace
        status = replaced.status()
        assert status is not None
        member = added_by_itself(
            cluster, tmp_path, "n4", kvstore_promote="true", kvstore_replaces=f"{status.header.member_id:x}"
        )
        assert replaced.wait_exit() == 0
        cluster.members.remove(replaced)
        wait_for(lambda: (s := member.status()) is not None and s.leader and not s.isLearner, "n4 votes")
        assert voters(cluster) == {m.name for m in cluster.members}
        assert len(cluster.members) == 3
        cluster.wait_equal()
        hashes = {(h.hash, h.compact_revision) for h in (m.calls.hash_kv() for m in cluster.members)}
        assert len(hashes) == 1
