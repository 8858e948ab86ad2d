"""kill -9 of leaders and followers under writes: nothing acknowledged is lost, a watch misses and repeats nothing,
and all members end with the same bytes."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from kvstore.client import Client, ClientError
from tests.cluster.harness import MemberHandle, TestCluster, running

PUTS = 2_000
KILLS = 5


@dataclass
class Written:
    """What the writers know: acknowledged values with their revisions, and writes whose outcome they do not."""

    acknowledged: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    attempts: int = 0

    @property
    def done(self) -> bool:
        return len(self.acknowledged) >= PUTS


async def write(endpoint: str, name: str, written: Written) -> None:
    """Puts through one endpoint alone, a new key each, until enough are acknowledged in all."""
    number = 0
    async with Client(endpoint, timeout_s=10) as client:
        while not written.done:
            key, number = f"w/{name}/{number}", number + 1
            value = f"{key}={number}".encode()
            written.attempts += 1
            try:
                result = await client.put(key, value)
            except ClientError as problem:
                if problem.definite:
                    written.refused[str(problem)] += 1
                else:
                    written.unknown.add(key)
                await asyncio.sleep(0.02)
            else:
                written.acknowledged[key] = (value, result.revision)


async def follow(endpoints: list[str], seen: list[tuple[int, bytes, bytes]]) -> None:
    async with Client(endpoints) as client:
        async for batch in client.watch("w/", prefix=True, start_revision=1):
            seen += [(event.kv.mod_revision, event.kv.key, event.kv.value) for event in batch.events]


async def kill_in_turns(cluster: TestCluster, written: Written) -> None:
    """A leader, a follower, a leader, …: each comes back before the next goes."""
    for round_ in range(2 * KILLS):
        target = written.attempts + PUTS // (2 * KILLS + 2)
        while written.attempts < target and not written.done:  # noqa: ASYNC110  another's progress
            await asyncio.sleep(0.01)
        leader = await asyncio.to_thread(cluster.leader)
        victim = leader if round_ % 2 == 0 else next(m for m in cluster.members if m is not leader)
        victim.kill()
        await asyncio.sleep(0.1)
        victim.start()
        await asyncio.to_thread(cluster.wait_ready)


def contents(member: MemberHandle) -> list[tuple[bytes, bytes, int, int, int, int]]:
    found = member.calls.range(b"\0", range_end=b"\0", serializable=True).kvs
    return [(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease) for kv in found]


def check(cluster: TestCluster, written: Written, seen: list[tuple[int, bytes, bytes]]) -> None:
    states = [contents(member) for member in cluster.members]
    assert states[0] == states[1] == states[2]
    hashes = {
        (h.hash, h.compact_revision, h.header.revision) for h in (m.calls.hash_kv() for m in cluster.members)
    }
    assert len(hashes) == 1, hashes
    stored = {key.decode(): (value, mod) for key, value, _, mod, _, _ in states[0]}
    lost = {key for key, expected in written.acknowledged.items() if stored.get(key) != expected}
    assert not lost, f"{len(lost)} acknowledged writes are gone, such as {sorted(lost)[:3]}"
    invented = stored.keys() - written.acknowledged.keys() - written.unknown
    assert not invented, f"writes took effect that were refused for certain: {sorted(invented)[:3]}"
    twice = [key for key, _, create, mod, version, _ in states[0] if version != 1 or create != mod]
    assert not twice, f"applied twice: {twice[:3]}"
    revision = cluster.members[0].calls.status().header.revision
    assert [at for at, _, _ in seen] == list(range(2, revision + 1))


async def test_nothing_is_lost_while_members_are_killed(tmp_path: Path) -> None:
    flags = ["--heartbeat-interval", "50", "--election-timeout", "400"]
    with running(tmp_path, 3, flags) as cluster:
        written, seen = Written(), list[tuple[int, bytes, bytes]]()
        watching = asyncio.create_task(follow(cluster.endpoints, seen))
        writers = [
            asyncio.create_task(write(endpoint, f"{at}-{copy}", written))
            for at, endpoint in enumerate(cluster.endpoints)
            for copy in range(2)
        ]
        await kill_in_turns(cluster, written)
        await asyncio.gather(*writers)
        await asyncio.to_thread(cluster.wait_equal)
        revision = cluster.members[0].calls.status().header.revision
        async with asyncio.timeout(20):
            while not seen or seen[-1][0] < revision:  # noqa: ASYNC110  the watch fills the list
                await asyncio.sleep(0.02)
        watching.cancel()
        print(
            f"{len(written.acknowledged)} acknowledged, {len(written.unknown)} unknown, "
            f"{sum(written.refused.values())} refused, revision {revision}"
        )
        check(cluster, written, seen)
