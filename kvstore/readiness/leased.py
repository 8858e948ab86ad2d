"""Announcing with what every etcd has: a lease, a put, and a renewal every third of its TTL.

The lease is granted before it is needed, while the instance is still starting, so that announcing is one round trip:
one transaction, which puts the key where nobody has it. Where somebody has, it is taken only from an earlier run of
the same instance (the same host and address), or with take_over; the other is not told, as etcd has no way to.
Withdrawing is one round trip too: the lease is revoked, which cannot delete what another announcer has put under the
same key since.

Whatever goes wrong is tried again for as long as the instance is wanted: a put is repeated even when its outcome is
unknown, because writing the same value under the same lease twice is writing it once. A lease that is lost (the
store was away for longer than its TTL, or came back empty) is replaced and the instance announced again under it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kvstore.client import Client, ClientError, Compare, LeaseSession, Op, RangeResult
from kvstore.client.errors import InstanceTaken, LeaseNotFound, PermissionDenied
from kvstore.readiness.instance import Instance, InvalidInstance, decode, encode
from kvstore.readiness.trouble import Trouble, say_announced, taken

log = logging.getLogger(__name__)


class Leased:
    """want() says what should be so, run() makes it so; cancelling run() withdraws and ends it."""

    def __init__(
        self,
        client: Client,
        ttl_s: int,
        *,
        withdraw_timeout_s: float = 1.0,
        told: Callable[[int], None] = lambda lease_id: None,
        take_over: bool = False,
    ) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._withdraw_timeout_s = withdraw_timeout_s
        self._told = told
        self._wanted: Instance | None = None
        self._announced: Instance | None = None
        self._touched = False  # the key may be in the store, under the lease held now
        self._changed = asyncio.Event()
        self._take_over = take_over
        self._may_read = True
        self._trouble = Trouble("trying again until it does")

    @property
    def announced(self) -> Instance | None:
        """What the store is known to hold."""
        return self._announced

    def want(self, instance: Instance | None) -> None:
        self._wanted = instance
        self._changed.set()

    async def run(self) -> None:
        while True:
            try:
                async with self._client.lease(self._ttl_s) as lease:
                    self._trouble.answered()
                    try:
                        await self._hold(lease)
                    finally:
                        await self._let_go(lease)
            except ClientError as problem:
                await self._trouble.met(problem)

    async def _hold(self, lease: LeaseSession) -> None:
        """Returns when another lease is needed: this one is lost, or has been used and is wanted no more."""
        while not lease.lost.is_set():
            self._changed.clear()
            wanted = self._wanted
            if wanted is None and self._touched:
                return
            if wanted is not None and wanted != self._announced:
                try:
                    await self._put(wanted, lease)
                except LeaseNotFound:
                    break
                except ClientError as problem:
                    await self._trouble.met(problem)
                continue
            await self._wait(lease)
        lease.lost.set()
        if self._touched:
            log.warning("the lease is lost; announcing again under a new one")

    async def _put(self, instance: Instance, lease: LeaseSession) -> None:
        self._touched = True
        try:
            revision = await self._put_where_free(instance, lease)
        except InstanceTaken:
            self._touched = False
            raise
        self._announced, self._take_over = instance, False
        self._trouble.over()
        say_announced(instance, revision)
        self._told(lease.id)

    async def _put_where_free(self, instance: Instance, lease: LeaseSession) -> int:
        """The revision it was put at. Raises InstanceTaken."""
        key, value = instance.key, encode(instance)
        put = Op.put(key, value, lease=lease.id)
        condition = Compare.version(key) == 0
        while self._may_read:
            try:
                done = await self._client.txn([condition], [put], [Op.get(key)])
            except PermissionDenied:  # who may only write cannot ask whose it is
                self._may_read = False
                break
            if done.succeeded:
                return done.revision
            (found,) = done.responses
            assert isinstance(found, RangeResult), "the operation was a get"
            if not found.kvs:
                condition = Compare.version(key) == 0
                continue
            there = found.kvs[0]
            if there.lease != lease.id and not self._take_over and not _is_same(instance, there.value):
                raise taken(instance, there.value)
            condition = Compare.mod_revision(key) == there.mod_revision
        return (await self._client.put(key, value, lease=lease.id)).revision

    async def _wait(self, lease: LeaseSession) -> None:
        waits = [asyncio.ensure_future(self._changed.wait()), asyncio.ensure_future(lease.lost.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _let_go(self, lease: LeaseSession) -> None:
        """Revokes a lease that was used. lost is set when nothing is left to revoke for the session."""
        touched, self._touched, self._announced = self._touched, False, None
        self._told(0)
        if not touched or lease.lost.is_set():
            return
        try:
            async with asyncio.timeout(self._withdraw_timeout_s):
                await self._client.lease_revoke(lease.id)
        except LeaseNotFound:
            pass
        except (ClientError, TimeoutError) as problem:
            reason = str(problem) or "no answer in time"
            log.warning("not withdrawn (%s); the store drops it within %d s by itself", reason, lease.ttl_s)
            lease.lost.set()
            return
        lease.lost.set()
        log.info("withdrawn")


def _is_same(instance: Instance, value: bytes) -> bool:
    """What is there was put by an earlier run of the same instance."""
    try:
        there = decode(instance.key, value)
    except InvalidInstance:
        return False
    return there.address == instance.address and there.host in ("", instance.host)
