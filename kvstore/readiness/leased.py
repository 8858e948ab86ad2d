"""Announcing with what every etcd has: a lease, a put, and a renewal every third of its TTL.

The lease is granted before it is needed, while the instance is still starting, so that announcing is one round trip:
one put. Withdrawing is one too: the lease is revoked, which cannot delete what another announcer has put under the
same key since.

Whatever goes wrong is tried again for as long as the instance is wanted: a put is repeated even when its outcome is
unknown, because writing the same value under the same lease twice is writing it once. A lease that is lost (the
store was away for longer than its TTL, or came back empty) is replaced and the instance announced again under it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kvstore.client import Client, ClientError, LeaseSession
from kvstore.client.errors import LeaseNotFound
from kvstore.readiness.instance import Instance, encode
from kvstore.readiness.trouble import Trouble, say_announced

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
    ) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._withdraw_timeout_s = withdraw_timeout_s
        self._told = told
        self._wanted: Instance | None = None
        self._announced: Instance | None = None
        self._touched = False  # the key may be in the store, under the lease held now
        self._changed = asyncio.Event()
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
                    self._trouble.over()
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
        revision = (await self._client.put(instance.key, encode(instance), lease=lease.id)).revision
        self._announced = instance
        self._trouble.over()
        say_announced(instance, revision)
        self._told(lease.id)

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
