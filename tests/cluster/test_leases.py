"""Leases on real members: what is left of them outlives the leader."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kvstore.client import Client
from tests.cluster.harness import TestCluster, running, wait_for

QUICK = ("--heartbeat-interval=50", "--election-timeout=500")


def left_s(cluster: TestCluster, lease_id: int) -> int:
    async def ask() -> int:
        endpoints = [member.endpoint for member in cluster.members if member.process is not None]
        async with Client(endpoints, timeout_s=20.0) as client:
            return (await client.lease_time_to_live(lease_id)).ttl_s

    return asyncio.run(ask())


def test_what_is_left_of_a_lease_outlives_the_leader(tmp_path: Path) -> None:
    """To a tenth of its time, two seconds at least; and a renewal gives it all of it again, under whoever leads."""
    with running(tmp_path, extra=QUICK) as cluster:

        async def grant() -> tuple[int, int]:
            async with Client(cluster.endpoints) as client:
                return (await client.lease_grant(40)).id, (await client.lease_grant(40)).id

        idle, renewed = asyncio.run(grant())
        wait_for(lambda: left_s(cluster, idle) <= 33, "some of its time is over", 60.0)
        cluster.leader().kill()
        assert left_s(cluster, idle) <= 36

        async def renew() -> int:
            members = [member.endpoint for member in cluster.members if member.process is not None]
            async with Client(members, timeout_s=20.0) as client:
                return (await client.lease_keep_alive_once(renewed)).ttl_s

        assert asyncio.run(renew()) == 40
        assert left_s(cluster, renewed) >= left_s(cluster, idle) + 1
