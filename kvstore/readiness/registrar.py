"""Keeps the store in agreement with what is wanted of one instance: announced as it is now, or not there.

The lease is granted before it is needed, while the instance is still starting, so that announcing is one round trip:
one put. Withdrawing is one too: the lease is revoked, which cannot delete what another announcer has put under the
same key since. Against a plain etcd this is all there is; an announce call of the store's own takes this class's
place without anybody above noticing.

Whatever goes wrong is tried again for as long as the instance is wanted: a put is repeated even when its outcome is
unknown, because writing the same value under the same lease twice is writing it once. A lease that is lost (the
store was away for longer than its TTL, or came back empty) is replaced and the instance announced again under it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from kvstore.client import Client, ClientError, LeaseSession
from kvstore.client.errors import LeaseNotFound, Unreachable
from kvstore.readiness.instance import Instance, encode

PAUSE_FIRST_S = 0.05
PAUSE_LONGEST_S = 0.5
REMIND_S = 10.0

log = logging.getLogger(__name__)


class Trouble:
    """Says once that the store cannot be used, again every REMIND_S, and that it can again; paces the retries."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._since: float | None = None
        self._said_at = 0.0
        self._pause_s = PAUSE_FIRST_S

    async def met(self, problem: ClientError) -> None:
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since, self._pause_s = now, PAUSE_FIRST_S
        if self._said_at == 0.0 or now - self._said_at >= REMIND_S:
            self._said_at = now
            what = "the store cannot be reached" if isinstance(problem, Unreachable) else "the store answered"
            log.warning("%s: %s; %s", what, problem.message or type(problem).__name__, self._doing)
        await asyncio.sleep(self._pause_s * random.uniform(0.7, 1.0))
        self._pause_s = min(self._pause_s * 2, PAUSE_LONGEST_S)

    def over(self) -> None:
        if self._since is not None:
            away_s = asyncio.get_running_loop().time() - self._since
            self._since, self._said_at = None, 0.0
            log.info("the store answers again after %.1f s", away_s)


class Registrar:
    """want() says what should be so, run() makes it so; cancelling run() withdraws and ends it."""

    def __init__(
        self,
        client: Client,
        ttl_s: int,
        *,
        withdraw_timeout_s: float = 1.0,
        on_announced: Callable[[Instance, int], None] | None = None,
    ) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._withdraw_timeout_s = withdraw_timeout_s
        self._on_announced = on_announced
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
        log.info(
            "announced %s/%s at %s (%s), revision %d",
            instance.service,
            instance.id,
            instance.address,
            instance.state,
            revision,
        )
        if self._on_announced is not None:
            self._on_announced(instance, revision)

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
