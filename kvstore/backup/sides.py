"""The two stores of a live migration, as what it needs of each: pages in key order, writes, leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kvstore.client import Client
from kvstore.client.errors import LeaseExists, LeaseNotFound
from kvstore.client.methods import LEASE_GRANT, LEASE_LEASES, LEASE_REVOKE, LEASE_TIME_TO_LIVE, RANGE, TXN
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.mvccpb_pb2 import KeyValue

Item = TypeVar("Item")

PAGE_KEYS_FIRST, PAGE_KEYS_MAX = 200, 4000
PAGE_BYTES = 4 << 20
TXN_OPS = 128  # etcd's limit
TXN_BYTES = 5 << 18  # a bit below etcd's 1.5 MiB, unless one pair alone is more
AT_ONCE = 8


@dataclass(frozen=True)
class Change:
    """One key as it is to be; value None: not there."""

    key: bytes
    value: bytes | None
    lease: int = 0

    @property
    def size(self) -> int:
        return len(self.key) + len(self.value or b"") + 32

    def op(self) -> pb.RequestOp:
        if self.value is None:
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=self.key))
        return pb.RequestOp(request_put=pb.PutRequest(key=self.key, value=self.value, lease=self.lease))


@dataclass
class Side:
    """One store. What it raises is ClientError's."""

    client: Client

    async def header(self) -> pb.ResponseHeader:
        """Of a linearizable read: the revision now, and whose it is."""
        return (await self.client.caller.read(RANGE, pb.RangeRequest(key=b"\0", count_only=True))).header

    async def count(self, revision: int = 0) -> int:
        request = pb.RangeRequest(key=b"\0", range_end=b"\0", count_only=True, revision=revision)
        return (await self.client.caller.read(RANGE, request)).count

    async def pairs(self, revision: int, start: bytes = b"\0") -> AsyncIterator[KeyValue]:
        """Everything at a revision in key order, in pages of a few megabytes. Raises Compacted."""
        limit = PAGE_KEYS_FIRST
        while True:
            request = pb.RangeRequest(key=start, range_end=b"\0", revision=revision, limit=limit)
            page = await self.client.caller.read(RANGE, request)
            for kv in page.kvs:
                yield kv
            if not page.more:
                return
            start = page.kvs[-1].key + b"\0"
            limit = fitting_limit(page.ByteSize(), len(page.kvs))

    async def write(self, changes: Sequence[Change]) -> None:
        """Makes them true, each key once, several transactions at once. Repeating does no harm, so what became of
        a lost call is not asked."""
        batches = chunked(changes)
        for at in range(0, len(batches), AT_ONCE):
            await gathered([self._txn(batch) for batch in batches[at : at + AT_ONCE]])

    async def follow(self, revisions: Sequence[Sequence[Change]]) -> None:
        """One revision's changes after another's, none of them split unless no transaction takes it whole."""
        for batch in packed(revisions):
            await self._txn(batch)

    async def _txn(self, changes: Sequence[Change]) -> None:
        request = pb.TxnRequest(success=[change.op() for change in changes])
        await self.client.caller.read(TXN, request)

    async def leases(self) -> dict[int, int]:
        """Id -> granted TTL in seconds, of those that are alive."""
        listed = await self.client.caller.read(LEASE_LEASES, pb.LeaseLeasesRequest())
        found: dict[int, int] = {}
        ids = [each.ID for each in listed.leases]
        for at in range(0, len(ids), AT_ONCE * 4):
            part = ids[at : at + AT_ONCE * 4]
            ttls = await gathered([self.granted_ttl(lease_id) for lease_id in part])
            found.update({lease_id: ttl for lease_id, ttl in zip(part, ttls) if ttl})
        return found

    async def lease_ids(self) -> set[int]:
        listed = await self.client.caller.read(LEASE_LEASES, pb.LeaseLeasesRequest())
        return {each.ID for each in listed.leases}

    async def granted_ttl(self, lease_id: int) -> int:
        """0 where it is gone."""
        request = pb.LeaseTimeToLiveRequest(ID=lease_id)
        found = await self.client.caller.read(LEASE_TIME_TO_LIVE, request)
        return found.grantedTTL if found.TTL >= 0 else 0

    async def grant(self, lease_id: int, ttl_s: int) -> None:
        """Of this id; one that is there already stays as it is."""
        try:
            await self.client.caller.read(LEASE_GRANT, pb.LeaseGrantRequest(ID=lease_id, TTL=ttl_s))
        except LeaseExists:
            return

    async def revoke(self, lease_id: int) -> None:
        try:
            await self.client.caller.read(LEASE_REVOKE, pb.LeaseRevokeRequest(ID=lease_id))
        except LeaseNotFound:
            return


async def merged(
    one: AsyncIterator[KeyValue], other: AsyncIterator[KeyValue]
) -> AsyncIterator[tuple[KeyValue | None, KeyValue | None]]:
    """Both in key order, side by side: for each key what either has."""
    left, right = await anext(one, None), await anext(other, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.key < right.key):
            yield left, None
            left = await anext(one, None)
        elif left is None or right.key < left.key:
            yield None, right
            right = await anext(other, None)
        else:
            yield left, right
            left, right = await anext(one, None), await anext(other, None)


def fitting_limit(page_bytes: int, keys: int) -> int:
    """How many keys make a page of PAGE_BYTES, going by the last one."""
    return max(1, min(PAGE_KEYS_MAX, keys * PAGE_BYTES // max(page_bytes, 1)))


def packed(revisions: Sequence[Sequence[Change]]) -> list[list[Change]]:
    """Transactions of whole revisions, as many as fit; no key comes twice in one, which etcd refuses."""
    packs: list[list[Change]] = []
    size, keys = 0, set[bytes]()
    for changes in revisions:
        own = sum(change.size for change in changes)
        room = packs and len(packs[-1]) + len(changes) <= TXN_OPS and size + own <= TXN_BYTES
        if room and keys.isdisjoint(change.key for change in changes):
            packs[-1] += changes
        else:
            packs += chunked(changes)
            size, keys = 0, set()
        size += own
        keys.update(change.key for change in changes)
    return packs


def chunked(changes: Sequence[Change]) -> list[list[Change]]:
    """Cut to what one transaction takes."""
    chunks: list[list[Change]] = []
    size = 0
    for change in changes:
        if not chunks or len(chunks[-1]) == TXN_OPS or size + change.size > TXN_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(change)
        size += change.size
    return chunks


async def gathered(work: Sequence[Coroutine[Any, Any, Item]]) -> list[Item]:
    """All of it, or the first error, with nothing left running."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
