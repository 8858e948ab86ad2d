"""The client against a real server: every operation, and the errors a server answers with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from kvstore.client import Client, Compare, Op, PutResult, RangeResult, TxnResult, errors
from tests.conformance.etcd_process import SUITE, Cluster, running_cluster


@pytest.fixture(scope="module", params=SUITE)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with running_cluster(request.param) as running:
        yield running


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with Client(cluster.endpoints) as made:
        await made.delete("", prefix=True)
        yield made


async def test_put_get_delete(client: Client) -> None:
    first = await client.put("a", "1")
    second = await client.put(b"a", b"\xff\0", prev_kv=True)
    assert second.revision == first.revision + 1
    assert second.prev_kv is not None and second.prev_kv.value == b"1"
    found = await client.get("a")
    (pair,) = found.kvs
    assert (pair.key, pair.value, pair.version) == (b"a", b"\xff\0", 2)
    assert (pair.create_revision, pair.mod_revision) == (first.revision, second.revision)
    assert (await client.get("a", revision=first.revision)).kvs[0].value == b"1"
    gone = await client.delete("a", prev_kv=True)
    assert (gone.deleted, gone.prev_kvs) == (1, [pair])
    assert (await client.get("a")).count == 0


async def test_ranges(client: Client) -> None:
    for number, key in enumerate("abcd"):
        await client.put("k/" + key, str(9 - number))

    async def keys(key: str, **how: object) -> list[str]:
        return [kv.key.decode() for kv in (await client.get(key, **how)).kvs]  # type: ignore[arg-type]

    assert await keys("k/", prefix=True) == ["k/a", "k/b", "k/c", "k/d"]
    assert await keys("k/b", from_key=True) == ["k/b", "k/c", "k/d"]
    assert await keys("k/a", range_end="k/c") == ["k/a", "k/b"]
    assert await keys("", prefix=True, sort_order="descend") == ["k/d", "k/c", "k/b", "k/a"]
    assert await keys("k/", prefix=True, sort_order="ascend", sort_target="value", limit=2) == ["k/d", "k/c"]
    limited = await client.get("k/", prefix=True, limit=3, keys_only=True, serializable=True)
    assert (len(limited.kvs), limited.more, limited.count, limited.kvs[0].value) == (3, True, 4, b"")
    counted = await client.get("k/", prefix=True, count_only=True)
    assert (counted.kvs, counted.count) == ([], 4)
    newest = limited.revision
    assert await keys("k/", prefix=True, min_mod_revision=newest) == ["k/d"]


async def test_transactions(client: Client) -> None:
    create = [Op.put("lock", "me"), Op.get("lock")]
    done = await client.txn([Compare.version("lock") == 0], create, [Op.get("lock")])
    assert done.succeeded
    put, read = done.responses
    assert isinstance(put, PutResult) and isinstance(read, RangeResult)
    assert read.kvs[0].value == b"me"
    again = await client.txn([Compare.version("lock") == 0], create, [Op.get("lock")])
    assert not again.succeeded and again.revision == done.revision
    nested = await client.txn(success=[Op.txn([Compare.value("lock") == "me"], [Op.delete("lock")])])
    (inner,) = nested.responses
    assert isinstance(inner, TxnResult) and inner.succeeded
    assert (await client.get("lock")).count == 0


@pytest.mark.parametrize("holds", [True, False])
async def test_every_comparison(client: Client, holds: bool) -> None:
    put = await client.put("k", "m")
    revision, offset = put.revision, 0 if holds else 5
    conditions = [
        Compare.version("k") == 1 + offset,
        Compare.create_revision("k") == revision + offset,
        Compare.mod_revision("k") < revision + (1 if holds else 0),
        Compare.value("k") > ("a" if holds else "z"),
        Compare.value("k") != ("x" if holds else "m"),
        Compare.lease("k") == 0 + offset,
        Compare.version("", prefix=True) == 1 + offset,
        Compare.version("k", range_end="l") > 0 + offset,
    ]
    for condition in conditions:
        assert (await client.txn([condition])).succeeded is holds, condition


async def test_errors_of_the_request(client: Client) -> None:
    with pytest.raises(errors.EmptyKey):
        await client.put("", "1")
    with pytest.raises(errors.KeyNotFound):
        await client.put("nobody", ignore_value=True)
    with pytest.raises(errors.LeaseNotFound) as lost:
        await client.put("a", "1", lease=12345)
    assert lost.value.definite and lost.value.message == "etcdserver: requested lease not found"
    with pytest.raises(errors.DuplicateKey):
        await client.txn(success=[Op.put("a", "1"), Op.put("a", "2")])
    with pytest.raises(errors.TooManyOperations):
        await client.txn(success=[Op.put(f"k{i}", "") for i in range(200)])
    with pytest.raises(errors.RequestTooLarge):
        await client.put("a", b"x" * 1_800_000)
    with pytest.raises(errors.RequestTooLarge):
        await client.put("a", b"x" * 3_000_000)
    with pytest.raises(errors.FutureRevision):
        await client.get("a", revision=10**9)


async def test_compaction(client: Client) -> None:
    await client.put("a", "1")
    last = (await client.put("a", "2")).revision
    await client.compact(last, physical=True)
    with pytest.raises(errors.Compacted):
        await client.get("a", revision=last - 1)
    with pytest.raises(errors.Compacted):
        await client.compact(last)


async def test_a_reply_above_the_limit_is_an_error(cluster: Cluster) -> None:
    async with Client(cluster.endpoints, max_message_bytes=100_000) as small:
        async with Client(cluster.endpoints) as client:
            await client.put("big", b"x" * 200_000)
            assert len((await client.get("big")).kvs[0].value) == 200_000
            with pytest.raises(errors.ClientError, match="larger than max"):
                await small.get("big")
            with pytest.raises(errors.OutcomeUnknown):  # it was deleted, but the answer did not fit
                await small.delete("big", prev_kv=True)
            assert (await client.get("big")).count == 0
        with pytest.raises(errors.RequestTooLarge):
            await small.put("big", b"x" * 200_000)


async def test_leases(client: Client) -> None:
    lease = await client.lease_grant(60)
    assert lease.ttl_s == 60
    await client.put("a", "1", lease=lease.id)
    status = await client.lease_time_to_live(lease.id, keys=True)
    assert (status.granted_ttl_s, status.keys) == (60, [b"a"]) and 55 < status.ttl_s <= 60
    assert lease.id in await client.leases()
    assert await client.lease_keep_alive_once(lease.id) == lease
    with pytest.raises(errors.LeaseExists):
        await client.lease_grant(60, lease.id)
    await client.lease_revoke(lease.id)
    assert (await client.get("a")).count == 0
    assert (await client.lease_time_to_live(lease.id)).ttl_s == -1
    with pytest.raises(errors.LeaseNotFound):
        await client.lease_revoke(lease.id)
    with pytest.raises(errors.LeaseNotFound):
        await client.lease_keep_alive_once(lease.id)


async def test_a_lease_session_lives_as_long_as_its_block(client: Client) -> None:
    async with client.lease(2) as lease:
        await client.put("a", "1", lease=lease.id)
        # Longer than the TTL and etcd's half second of grace: only renewals can have kept the key.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lease.lost.wait(), 3)
        assert (await client.get("a")).count == 1
    assert (await client.get("a")).count == 0


async def test_a_lease_session_notices_its_loss(client: Client) -> None:
    async with client.lease(2) as lease:
        await client.lease_revoke(lease.id)
        await asyncio.wait_for(lease.lost.wait(), 2)


async def test_members_and_status(client: Client, cluster: Cluster) -> None:
    (member,) = await client.members()
    status = await client.status()
    assert status.member_id == member.id == status.leader
    assert member.client_urls == [f"http://{cluster.endpoints[0]}"]
    assert (await client.status(f"http://{cluster.endpoints[0]}")).member_id == member.id


async def test_a_closed_client_refuses(cluster: Cluster) -> None:
    client = Client(cluster.endpoints)
    await client.get("a")
    await client.close()
    with pytest.raises(errors.ClientClosed):
        await client.get("a")
    with pytest.raises(errors.ClientClosed):
        await client.put("a", "1")
