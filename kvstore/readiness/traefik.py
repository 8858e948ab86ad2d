"""An instance's keys for Traefik (traefik_schema.py), beside its own and under its lease.

What is the instance's goes in the same revision as the instance, for whatever reason that goes. What belongs to all
of them is under no lease and stays: a router whose service has no server answers 503, as every other proxy here does,
where one that came and went with somebody's lease would answer 404, and would go with it while others still serve.
When instances say different rules, the one announced last counts; what others have put beside these keys (TLS,
middlewares) is left alone.

An order to drain takes the server out, and its end puts it in again: nobody else would tell Traefik.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping

from kvstore.client import Client, ClientError
from kvstore.client.compare import Compare, Op
from kvstore.client.errors import Compacted, LeaseNotFound
from kvstore.readiness.instance import Instance, drain_key
from kvstore.readiness.traefik_schema import ROOT, Route, gaps, server_keys, server_prefix, shared_keys
from kvstore.readiness.trouble import Trouble

log = logging.getLogger(__name__)


class TraefikKeys:
    """told() says under which lease the instance is announced, run() keeps the keys there."""

    def __init__(self, client: Client, instance: Instance, route: Route) -> None:
        self._client = client
        self._instance = instance
        self._route = route
        self._lease_id = 0
        self._drains: bool | None = None  # None: not known yet
        self._changed = asyncio.Event()

    def told(self, lease_id: int) -> None:
        """0: it is not announced, and its keys are gone with the lease. The same again: it may have been gone."""
        self._lease_id = lease_id
        self._changed.set()

    async def run(self) -> None:
        """Goes on until it is cancelled. Deletes nothing at the end: the lease does."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(), name="traefik keys")
            group.create_task(self._follow_drain(), name="drain order")

    async def _keep(self) -> None:
        trouble = Trouble("Traefik is told when it does")
        while True:
            self._changed.clear()
            try:
                if self._lease_id and self._drains is not None:
                    await (self._remove() if self._drains else self._write(self._lease_id))
                    trouble.over()
            except LeaseNotFound:
                pass  # gone since; told() comes again
            except ClientError as problem:
                await trouble.met(problem)
                continue
            await self._changed.wait()

    async def _write(self, lease_id: int) -> None:
        """In one revision, and in none when it is all there."""
        own, shared = server_keys(self._instance), shared_keys(self._instance.service, self._route)
        entrypoints = f"{ROOT}/routers/{self._instance.service}/entrypoints/"
        stale = gaps(entrypoints, [key for key in shared if key.startswith(entrypoints)])
        is_there = [Compare.value(key) == value for key, value in (own | shared).items()]
        is_there += [Compare.lease(key) == lease_id for key in own]
        is_there += [Compare.create_revision(first, range_end=end) == 0 for first, end in stale]
        changes = _puts(own, lease_id) + _puts(shared, 0)
        changes += [Op.delete(first, range_end=end) for first, end in stale]
        done = await self._client.txn(is_there, [], changes)
        if not done.succeeded:
            log.info("Traefik: in service %s by %s", self._instance.service, self._route.rule)

    async def _remove(self) -> None:
        await self._client.delete(server_prefix(self._instance), prefix=True)
        log.info("Traefik: out of service %s while it drains", self._instance.service)

    async def _follow_drain(self) -> None:
        trouble = Trouble("an order to drain reaches Traefik when it does")
        key = drain_key(self._instance.key)
        while True:
            try:
                found = await self._client.get(key)
                trouble.over()
                self._set_drains(bool(found.kvs))
                watch = self._client.watch(key, start_revision=found.revision + 1)
                try:
                    async for batch in watch:
                        for event in batch.events:
                            self._set_drains(event.type == "PUT")
                finally:
                    await watch.cancel()
            except Compacted:
                continue
            except ClientError as problem:
                await trouble.met(problem)

    def _set_drains(self, drains: bool) -> None:
        if drains != self._drains:
            self._drains = drains
            self._changed.set()


def _puts(keys: Mapping[str, str], lease_id: int) -> list[Op]:
    return [Op.put(key, value, lease=lease_id) for key, value in keys.items()]


@contextlib.asynccontextmanager
async def beside(
    client: Client, instance: Instance, route: Route | None
) -> AsyncIterator[Callable[[int], None]]:
    """Keeps the keys for as long as the block runs, when there is a route; what it yields is to be told the lease."""
    if route is None:
        yield lambda lease_id: None
        return
    keys = TraefikKeys(client, instance, route)
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(keys.run(), name="traefik")
        try:
            yield keys.told
        finally:
            keeping.cancel()
