"""Moving in from a running cluster: copy at one revision, follow by watch, compare at the end.

    copy      source and target side by side in key order; what differs is written, what the source lacks goes
    follow    the source's revisions from there on, each whole
    compare   the source at the last revision followed, and the target: every key, value and lease

Copying looks before it writes, so it can begin anywhere, any number of times: after an interruption, after the
source has compacted what was to be followed, after a lease was lost. Revisions and versions become the target's
own; only a snapshot carries those. While it runs nobody else may write to the target.

Leases keep their id and their granted TTL. While the source has a lease, the target's is kept alive from here,
so that it cannot run out before the owner has moved over; from the end on its whole TTL is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from kvstore.backup.journal import Journal
from kvstore.backup.sides import Change, Side, gathered, merged
from kvstore.client.errors import ClientError, Compacted, LeaseNotFound
from kvstore.client.methods import LEASE_KEEP_ALIVE
from kvstore.client.results import Event, WatchBatch
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.mvccpb_pb2 import KeyValue

FLUSH_CHANGES = 2000
FLUSH_BYTES = 8 << 20
LEASE_LOOK_S = 1.0
ATTEMPTS = 3

Report = Callable[[str, int, int], object]
"""What is going on ("copy", "follow", "compare"), how many keys or revisions of how many."""


class MigrationFailed(Exception):
    """One line."""


@dataclass
class Comparison:
    """Both stores at the end: number of keys, and SHA-256 of every key, value and lease in order."""

    revision: int = 0
    source_keys: int = 0
    target_keys: int = 0
    source_hash: str = ""
    target_hash: str = ""
    differing: list[bytes] = field(default_factory=list)  # the first few
    source_leases: int = 0
    missing_leases: list[int] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        same = (self.source_keys, self.source_hash) == (self.target_keys, self.target_hash)
        return same and not self.missing_leases


class Migration:
    def __init__(self, source: Side, target: Side, journal: Journal, report: Report) -> None:
        self._source = source
        self._target = target
        self._journal = journal
        self._report = report
        self._leases: dict[int, int] = {}  # id -> granted TTL, of those the target has been given
        self._renew_at: dict[int, float] = {}
        self._ended: set[int] = set()
        self._looking = asyncio.Lock()
        self._lost = False  # a lease ended on the target alone, and took its keys along
        self.following = False
        self.copied_keys = 0
        self.followed_revisions = 0

    async def run(self, stop: asyncio.Event, *, follow: bool) -> Comparison:
        """Until it has caught up, or (follow) until stop is set; then compares. Raises MigrationFailed and
        ClientError; the journal then says where the next run goes on."""
        await self._take_leases()
        keeping = asyncio.ensure_future(self._keep_leases())
        try:
            for _ in range(ATTEMPTS):
                try:
                    if not self._journal.copied or self._lost:
                        await self._copy()
                    await self._follow(stop, keeping, follow=follow)
                    if self._lost:
                        continue
                    compared = await self._compare()
                except Compacted:
                    self._journal.begin_copy(
                        0
                    )  # too slow for the source's compaction: look at all of it again
                    continue
                if not self._lost:
                    await self._end_leases()
                    return compared
            raise MigrationFailed(
                f"the source compacted what was being read {ATTEMPTS} times over, or leases ran out: "
                "run this closer to both clusters, or pause compaction meanwhile"
            )
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    # Copying

    async def _copy(self) -> None:
        journal, self._lost = self._journal, False
        if not journal.revision:
            journal.begin_copy((await self._source.header()).revision)
        target_revision = (await self._target.header()).revision
        total = await self._source.count(journal.revision)
        start, done = journal.next_key or b"\0", 0
        changes: list[Change] = []
        size = 0
        sides = merged(
            self._source.pairs(journal.revision, start), self._target.pairs(target_revision, start)
        )
        async for ours, theirs in sides:
            change = self._difference(ours, theirs)
            done += ours is not None
            if change is not None:
                changes.append(change)
                size += change.size
            if len(changes) >= FLUSH_CHANGES or size >= FLUSH_BYTES:
                await self._write([changes], follow=False)
                journal.reached(changes[-1].key + b"\0")
                changes, size = [], 0
            self._report("copy", done, total)
        await self._write([changes], follow=False)
        self.copied_keys += done
        journal.end_copy()

    def _difference(self, source: KeyValue | None, target: KeyValue | None) -> Change | None:
        """What makes the target's pair the source's; None where they are alike."""
        if source is None:
            assert target is not None, "merged() yields at least one"
            return Change(target.key, None)
        if target is not None and (target.value, target.lease) == (source.value, source.lease):
            return None
        return Change(source.key, source.value, source.lease)

    # Following

    async def _follow(self, stop: asyncio.Event, keeping: asyncio.Future[None], *, follow: bool) -> None:
        """Applies what the source did since. Ends when it has caught up, or (follow) was told to stop and has."""
        journal, self.following = self._journal, True
        goal = (await self._source.header()).revision
        watch = self._source.client.watch(b"\0", from_key=True, start_revision=journal.revision + 1)
        async with watch:
            while not self._lost:
                if journal.revision >= goal and (not follow or stop.is_set()):
                    return
                reading = asyncio.ensure_future(watch.__anext__())
                stopping = asyncio.ensure_future(stop.wait())
                waited: set[asyncio.Future[Any]] = {reading, keeping}
                if not stop.is_set():
                    waited.add(stopping)
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                if keeping.done():
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                    keeping.result()
                if reading.done():
                    await self._apply(reading.result())
                else:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                if stop.is_set() and follow:
                    follow = False
                    goal = (await self._source.header()).revision
                self._report("follow", journal.revision, max(goal, journal.revision))

    async def _apply(self, batch: WatchBatch) -> None:
        if batch.events:
            revisions = [
                [_change(event) for event in events]
                for _, events in groupby(batch.events, lambda event: event.kv.mod_revision)
            ]
            await self._write(revisions, follow=True)
            self.followed_revisions += len(revisions)
        self._journal.followed(batch.revision)

    async def _write(self, revisions: Sequence[Sequence[Change]], *, follow: bool) -> None:
        """With leases the target does not have yet granted first; a lease the source has lost meanwhile is left
        out: the deletion of its keys follows."""
        for _ in range(ATTEMPTS):
            for lease_id in {change.lease for changes in revisions for change in changes} - {0}:
                if lease_id not in self._leases:
                    await self._take_lease(lease_id, await self._source.granted_ttl(lease_id))
            known = [
                [change if change.lease in self._leases else _bare(change) for change in changes]
                for changes in revisions
            ]
            try:
                if follow:
                    await self._target.follow(known)
                else:
                    await self._target.write(known[0])
                return
            except LeaseNotFound:
                self._renew_at.update(dict.fromkeys(self._leases, 0.0))
                await self._look_at_leases()
        raise MigrationFailed("leases end on the target as soon as they are granted")

    # Leases

    async def _take_leases(self) -> None:
        wanted = await self._source.leases()
        for lease_id, ttl_s in wanted.items():
            await self._take_lease(lease_id, ttl_s)

    async def _take_lease(self, lease_id: int, ttl_s: int) -> None:
        if ttl_s > 0:
            await self._target.grant(lease_id, ttl_s)
            self._leases[lease_id] = ttl_s
            self._renew_at[lease_id] = 0.0

    async def _keep_leases(self) -> None:
        """Looks every second which leases the source has, and renews the target's in time."""
        while True:
            with contextlib.suppress(ClientError):  # soon again; a lease that ends meanwhile is noticed
                await self._look_at_leases()
            await asyncio.sleep(LEASE_LOOK_S)

    async def _look_at_leases(self) -> None:
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        """A lease that ended at the source is let be: its keys go when the source's deletions are followed, and
        not before, or what is compared would not be of one moment."""
        wanted = await self._source.lease_ids()
        for lease_id in self._leases.keys() - wanted:
            del self._leases[lease_id]
            self._ended.add(lease_id)
        for lease_id in wanted - self._leases.keys():
            await self._take_lease(lease_id, await self._source.granted_ttl(lease_id))
        now = asyncio.get_running_loop().time()
        due = [lease_id for lease_id in self._leases if self._renew_at[lease_id] <= now]
        if not due:
            return
        for lease_id in await self._renew(due):
            self._renew_at[lease_id] = now + self._leases.get(lease_id, 0) / 3
        for lease_id in due:
            if lease_id in self._leases and self._renew_at[lease_id] <= now:
                del self._leases[lease_id]  # ended on the target: its keys are gone there and nowhere else
                self._lost = True

    async def _end_leases(self) -> None:
        """Those that the source has no more, and so no key hangs on."""
        for lease_id in sorted(self._ended - self._leases.keys()):
            await self._target.revoke(lease_id)
        self._ended.clear()

    async def _renew(self, due: Sequence[int]) -> list[int]:
        """Those of them that are alive on the target, each with its whole TTL again."""
        caller = self._target.client.caller
        endpoint = caller.choice.pinned
        await caller.connect(endpoint, caller.settings.dial_timeout_s)
        stream = caller.open_stream(endpoint, LEASE_KEEP_ALIVE)
        alive: list[int] = []
        try:
            for lease_id in due:
                await stream.write(pb.LeaseKeepAliveRequest(ID=lease_id))
                answer = await stream.read(caller.settings.timeout_s)
                if answer.TTL > 0:
                    alive.append(lease_id)
        finally:
            await stream.close()
        return alive

    # Comparing

    async def _compare(self) -> Comparison:
        """The source at the last revision followed, so that writes to it since then do not matter."""
        revision = self._journal.revision
        found = Comparison(revision=revision)
        digests = hashlib.sha256(), hashlib.sha256()
        target_revision = (await self._target.header()).revision
        total = await self._source.count(revision)
        sides = merged(self._source.pairs(revision), self._target.pairs(target_revision))
        async for source, target in sides:
            for digest, kv in zip(digests, (source, target)):
                if kv is not None:
                    digest.update(KeyValue(key=kv.key, value=kv.value, lease=kv.lease).SerializeToString())
            found.source_keys += source is not None
            found.target_keys += target is not None
            if self._difference(source, target) is not None and len(found.differing) < 10:
                found.differing.append((source or target or KeyValue()).key)
            self._report("compare", found.source_keys, total)
        found.source_hash, found.target_hash = (digest.hexdigest() for digest in digests)
        await self._look_at_leases()
        mine, theirs = await gathered([self._source.lease_ids(), self._target.lease_ids()])
        found.source_leases = len(mine)
        found.missing_leases = sorted(mine - theirs)
        return found


def _change(event: Event) -> Change:
    if event.type == "DELETE":
        return Change(event.kv.key, None)
    return Change(event.kv.key, event.kv.value, event.kv.lease)


def _bare(change: Change) -> Change:
    return Change(change.key, change.value)
