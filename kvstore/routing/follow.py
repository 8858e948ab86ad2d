"""Feeds a view from the store and hands every new set to the driver: list, then watch from the revision after.

Nothing here is polled: a batch of the watch becomes a call of reconcile() in the same turn of the event loop.

    list ──► watch from revision + 1 ──► batch, batch, …
     ▲          │ Compacted, or no endpoint left to resume at
     └──────────┘            meanwhile the driver keeps the last set it was given

A watch that only lost its connection is resumed by the client, at another endpoint if need be. A fresh list is taken
when that is not possible, and from time to time all the same (resync_s), so that a store which was replaced by an
older one behind our back is noticed too: a watch would wait for ever for revisions that are not coming.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from kvstore.client import Client, ClientError
from kvstore.client.errors import Compacted
from kvstore.readiness.instance import Instance, prefix
from kvstore.readiness.roster import Item
from kvstore.readiness.trouble import Trouble
from kvstore.routing.driver import Driver
from kvstore.routing.view import DEFAULT_KEEP_S, View

RESYNC_S = 60.0

log = logging.getLogger(__name__)


class Follower:
    """run() goes on until it is cancelled. listed is set once the first list has reached the driver."""

    def __init__(
        self,
        client: Client,
        service: str,
        driver: Driver,
        *,
        keep_s: float = DEFAULT_KEEP_S,
        resync_s: float = RESYNC_S,
    ) -> None:
        self._client = client
        self._prefix = prefix(service)
        self._driver = driver
        self._resync_s = resync_s
        self._view = View(keep_s=keep_s)
        self._told: list[Instance] | None = None
        self._refused: dict[bytes, str] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.listed = asyncio.Event()

    @property
    def revision(self) -> int:
        return self._view.revision

    async def run(self) -> None:
        trouble = Trouble("routing on with the last known instances and trying again")
        try:
            while True:
                try:
                    await self._list()
                    trouble.over()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._resync_s):
                            await self._watch()
                except Compacted:
                    log.info(
                        "the store has compacted what came after revision %d; listing again", self.revision
                    )
                except ClientError as problem:
                    await trouble.met(problem)
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _list(self) -> None:
        found = await self._client.get(self._prefix, prefix=True)
        if found.revision < self.revision:
            log.warning(
                "the store went back from revision %d to %d; starting over", self.revision, found.revision
            )
        items = [Item(kv.key, kv.value) for kv in found.kvs]
        self._view.load(items, found.revision, self._now())
        self._tell()
        self.listed.set()

    async def _watch(self) -> None:
        watch = self._client.watch(self._prefix, prefix=True, start_revision=self.revision + 1)
        try:
            async for batch in watch:
                items = [Item(e.kv.key, e.kv.value if e.type == "PUT" else None) for e in batch.events]
                self._view.apply(items, batch.revision, self._now())
                if items:
                    self._tell()
        finally:
            await watch.cancel()

    def _tell(self) -> None:
        """Hands the set to the driver when it differs from the last, and arms the timer of what is kept."""
        serving = self._view.serving()
        if serving != self._told:
            before, self._told = self._told or [], serving
            self._driver.reconcile(serving)
            self._report(before, serving)  # the log may wait, the proxy may not
        for key, reason in self._view.refused.items():
            if self._refused.get(key) != reason:
                log.warning("%s is not routed to: %s", key.decode(errors="replace"), reason)
        self._refused = dict(self._view.refused)
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (deadline := self._view.next_deadline) is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._view.expire(self._now())
        self._tell()

    def _report(self, before: Sequence[Instance], after: Sequence[Instance]) -> None:
        old, new = ({one.id: one.address for one in set_ if one.is_ready} for set_ in (before, after))
        came = [f"+{name}" for name in new if new[name] != old.get(name)]
        went = [f"-{name}" for name in old if name not in new]
        if came or went:
            log.info("%d ready: %s (revision %d)", len(new), " ".join(came + went), self.revision)
        if self._view.kept_count:
            seconds = (self._view.next_deadline or 0.0) - self._now()
            log.warning(
                "%d vanished at once and nobody is left: kept for %.1f s", self._view.kept_count, seconds
            )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
