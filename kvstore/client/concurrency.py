"""Locks and elections out of keys and a lease, with etcd's layout of keys, so that its clients take part.

Whoever wants its turn puts a key of its own, name/lease, held by its lease; the oldest key under name/ has the
turn. Everybody waits for the one key just before its own to go, so that a turn that ends wakes one waiter.

A turn is only as good as its lease: a holder that was cut off for longer than that has lost it, and may not
know yet. What must never happen twice has to compare the key's create revision in its own transactions.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from kvstore.client.compare import Compare, Op, to_bytes
from kvstore.client.errors import ClientError, Compacted, OutcomeUnknown
from kvstore.client.results import Header, KeyValue, PutResult, RangeResult

if TYPE_CHECKING:
    from kvstore.client.client import Client


class SessionExpired(ClientError):
    """The lease ended while waiting, and the place in the queue with it."""


class Turn:
    """One wish for a turn. key is known from the start; revision is that of its creation, 0 before join()."""

    def __init__(self, client: Client, name: str | bytes, lease_id: int) -> None:
        self.prefix = to_bytes(name) + b"/"
        self.key = self.prefix + b"%x" % lease_id
        self.revision = 0
        self.header = Header()
        """Of the answer that gave the turn."""
        self._client = client
        self._lease_id = lease_id
        self._value = b""

    async def acquire(self, value: str | bytes = b"") -> None:
        """Waits for the turn, and gives the place up if it is cancelled meanwhile. Raises SessionExpired."""
        try:
            if await self._join(to_bytes(value)):
                return
            await self._wait_for_older()
            mine = await self._client.get(self.key)
            if not mine.kvs or mine.kvs[0].create_revision != self.revision:
                raise SessionExpired("the session expired while waiting")
            self.header = mine.header
        except BaseException:
            with contextlib.suppress(ClientError):
                await self.release()
            raise

    async def release(self) -> None:
        """Ends the turn, or the wish. Twice does no harm."""
        if not self.revision:
            return
        created, self.revision = self.revision, 0
        request = [Compare.create_revision(self.key) == created], [Op.delete(self.key)]
        try:
            await self._client.txn(*request)
        except OutcomeUnknown:
            await self._client.txn(*request)  # it compares, so it may be repeated

    async def _join(self, value: bytes) -> bool:
        """Puts the key, or finds the one this lease has put before. Returns whether it is the oldest."""
        oldest = Op.get(self.prefix, prefix=True, sort_target="create", sort_order="ascend", limit=1)
        while True:
            try:
                joined = await self._client.txn(
                    [Compare.create_revision(self.key) == 0],
                    [Op.put(self.key, value, lease=self._lease_id), oldest],
                    [Op.get(self.key), oldest],
                )
                break
            except OutcomeUnknown:
                continue  # should it have been done, the next one finds it
        own, first = joined.responses
        assert isinstance(first, RangeResult)
        if isinstance(own, PutResult):
            self.revision = joined.revision
        else:
            assert isinstance(own, RangeResult)
            self.revision = own.kvs[0].create_revision
            if own.kvs[0].value != value:
                await self._client.put(self.key, value, ignore_lease=True)
        self.header = joined.header
        return first.kvs[0].create_revision == self.revision

    async def _wait_for_older(self) -> None:
        while True:
            older = await self._client.get(
                self.prefix,
                prefix=True,
                sort_target="create",
                sort_order="descend",
                limit=1,
                max_create_revision=self.revision - 1,
            )
            if not older.kvs:
                return
            async with self._client.watch(older.kvs[0].key, start_revision=older.revision + 1) as watch:
                with contextlib.suppress(Compacted):  # then look again
                    async for batch in watch:
                        if any(event.type == "DELETE" for event in batch.events):
                            break


async def observe(client: Client, name: str | bytes) -> AsyncIterator[tuple[Header, KeyValue]]:
    """Whose turn it is, now and whenever that or its value changes, without end. Each comes with the header
    of the answer that told it. Raises Compacted when too much has happened to follow."""
    prefix = to_bytes(name) + b"/"
    while True:
        found = await client.get(prefix, prefix=True, sort_target="create", sort_order="ascend", limit=1)
        if found.kvs:
            header, holder = found.header, found.kvs[0]
        else:
            header, holder = await _first_put(client, prefix, found.revision + 1)
        yield header, holder
        async with client.watch(holder.key, start_revision=header.revision + 1) as watch:
            async for batch in watch:
                deleted = False
                for event in batch.events:
                    deleted = deleted or event.type == "DELETE"
                    if not deleted:
                        yield batch.header, event.kv
                if deleted:
                    break


async def _first_put(client: Client, prefix: bytes, start_revision: int) -> tuple[Header, KeyValue]:
    async with client.watch(prefix, prefix=True, start_revision=start_revision, no_delete=True) as watch:
        async for batch in watch:
            for event in batch.events:
                header = Header(
                    batch.header.cluster_id,
                    batch.header.member_id,
                    event.kv.mod_revision,
                    batch.header.raft_term,
                )
                return header, event.kv
    raise ClientError("the watch ended")
