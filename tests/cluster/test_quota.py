"""Quotas on real members: they agree on use whatever happens to them, and each lets through its share of requests."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

import grpc
import pytest

from kvstore.cli.main import main as kvctl
from kvstore.client import Client
from kvstore.client.errors import InvalidRequest, QuotaExceeded, QuotaNotFound
from kvstore.client.quota import Quota
from kvstore.client.results import PutResult
from kvstore.rpc import Status
from tests.cluster.harness import MemberHandle, running, wait_for


def quota_at(member: MemberHandle, prefix: str = "p/") -> Quota:
    """As this member knows it, once it has what was acknowledged."""

    async def ask() -> Quota:
        async with Client(member.endpoint) as client:
            return await client.quota(prefix)

    return asyncio.run(ask())


def metric(member: MemberHandle, name: str) -> float:
    with urllib.request.urlopen(f"http://{member.endpoint}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(name + " ")).rpartition(" ")[2])


def test_members_agree_through_crashes_and_snapshots(tmp_path: Path) -> None:
    """One is killed and starts again from its own disk; then one is away for longer than the log is kept."""
    flags = ["--snapshot-count=50", "--heartbeat-interval=50", "--election-timeout=500"]
    with running(tmp_path, extra=flags) as cluster:
        first, second, third = cluster.members

        async def fill(endpoint: str, numbers: range) -> list[int]:
            refused = []
            async with Client(endpoint) as client:
                for number in numbers:
                    try:
                        await client.put(f"p/{number % 40}", b"x" * (number % 7))
                    except QuotaExceeded as problem:
                        assert problem.definite and problem.code is Status.RESOURCE_EXHAUSTED
                        refused.append(number)
            return refused

        async def flood(endpoint: str) -> None:
            async with Client(endpoint, timeout_s=60.0) as client:
                for start in range(0, 8000, 200):
                    numbers = range(start, start + 200)
                    puts = (client.put(f"p/{number % 40}", b"y" * (number % 5)) for number in numbers)
                    done = await asyncio.gather(*puts, return_exceptions=True)
                    assert {type(each) for each in done} == {PutResult, QuotaExceeded}

        async def limit() -> None:
            async with Client(first.endpoint) as client:
                assert (await client.quota_set("p/", keys_max=30)).used_keys == 0
                await client.quota_set("p/1", bytes_max=1000)
                with pytest.raises(InvalidRequest):
                    await client.quota_set("p/", keys_max=0)
                with pytest.raises(QuotaNotFound):
                    await client.quota("q")

        asyncio.run(limit())
        assert asyncio.run(fill(first.endpoint, range(60))) == [*range(30, 40)]
        third.kill()
        asyncio.run(fill(second.endpoint, range(100)))
        third.start()
        cluster.wait_ready()
        known = [(quota_at(member), quota_at(member, "p/1")) for member in cluster.members]
        assert len(set(known)) == 1 and known[0][0].used_keys == 30
        third.kill()
        asyncio.run(flood(second.endpoint))  # more than its log may lag behind
        third.start()
        cluster.wait_ready()
        wait_for(lambda: third.has_logged("installed a snapshot"), "a snapshot")
        known = [(quota_at(member), quota_at(member, "p/1")) for member in cluster.members]
        assert len(set(known)) == 1
        listed = first.calls.range(b"p/", range_end=b"p0")
        assert known[0][0].used_keys == len(listed.kvs) == 30
        assert known[0][0].used_bytes == sum(len(kv.key) + len(kv.value) for kv in listed.kvs)


def test_a_member_lets_through_its_share_of_requests(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path) as cluster:
        member = cluster.members[1]
        where = ["--endpoints", member.endpoint]
        assert kvctl([*where, "quota", "set", "p/", "--qps", "6"]) == 0
        assert capfd.readouterr().out == "p/, bytes 0/-, keys 0/-, qps 6\n"

        def refusal() -> str:
            """Asks for more than two a second until it is told so."""
            try:
                member.calls.range(b"p/1", serializable=True)
            except grpc.RpcError as problem:
                assert problem.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                return str(problem.details())
            return ""

        told = wait_for(refusal, "a refusal")
        assert told.startswith(
            'kvstore: quota on "p/" exceeded: 6 requests a second allowed, 2 of them at this'
        )
        for _ in range(20):
            member.calls.range(b"q", serializable=True)
        assert metric(member, 'kvstore_quota_refusals_total{limit="qps",prefix="p/"}') >= 1
        assert metric(member, 'kvstore_quota_limit{limit="qps",prefix="p/"}') == 6
        assert kvctl([*where, "quota", "set", "p/", "--qps", "many"]) == 128
        assert "bad --qps 'many'" in capfd.readouterr().err
        wait_for(lambda: kvctl([*where, "quota", "remove", "p/"]) == 0, "removed")
        for _ in range(20):
            member.calls.range(b"p/1", serializable=True)
