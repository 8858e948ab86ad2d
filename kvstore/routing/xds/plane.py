"""What all streams look at: the catalogue, and that there is something new in it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence

from kvstore.readiness.instance import Instance
from kvstore.routing.xds.catalogue import Catalogue
from kvstore.routing.xds.kinds import Refusal, Snapshot
from kvstore.routing.xds.names import Names

NAMES_SAID_MAX = 5
SAID_AGAIN_S = 10.0
SAID_MAX = 256

log = logging.getLogger(__name__)


class ServiceDriver:
    """One service: a driver (kvstore/routing/driver.py)."""

    def __init__(self, plane: Plane, service: str) -> None:
        self._plane = plane
        self._service = service

    def reconcile(self, instances: Sequence[Instance]) -> None:
        self._plane.put(self._service, instances)


class Plane:
    """Nothing runs in it but the looking up of host names, which close() ends."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._names = Names(self._resolved)
        self._wakes: set[asyncio.Event] = set()
        self._said: dict[tuple[object, ...], float] = {}

    async def close(self) -> None:
        await self._names.close()

    def put(self, service: str, instances: Sequence[Instance]) -> None:
        self._catalogue.put(service, instances)
        self._names.want(self._catalogue.host_names)
        self._wake_all()

    def snapshot(self, zone: str) -> Snapshot | None:
        return self._catalogue.snapshot(zone)

    @contextlib.contextmanager
    def news(self) -> Iterator[asyncio.Event]:
        """An event that is set when snapshot() may say something new."""
        wake = asyncio.Event()
        self._wakes.add(wake)
        try:
            yield wake
        finally:
            self._wakes.discard(wake)

    def refused(self, client: str, refusal: Refusal) -> None:
        """Says so; of clients that refuse the same for the same reason, once in SAID_AGAIN_S."""
        now = asyncio.get_running_loop().time()
        what = (refusal.kind, refusal.names, refusal.error)
        if now - self._said.get(what, -SAID_AGAIN_S) < SAID_AGAIN_S:
            return
        if len(self._said) >= SAID_MAX:
            self._said.clear()
        self._said[what] = now
        names = ", ".join(refusal.names[:NAMES_SAID_MAX]) or "an earlier version"
        more = len(refusal.names) - NAMES_SAID_MAX
        log.warning(
            "%s refused %s %s%s: %s; it goes on with what it had, and gets the next version in %g s at the earliest",
            client,
            refusal.kind.label,
            names,
            f" and {more} more" if more > 0 else "",
            refusal.error,
            refusal.pause_s,
        )

    def _resolved(self, ip_of: Mapping[str, str]) -> None:
        self._catalogue.resolve(ip_of)
        self._wake_all()

    def _wake_all(self) -> None:
        for wake in self._wakes:
            wake.set()
