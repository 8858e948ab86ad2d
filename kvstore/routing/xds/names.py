"""Host names to IP addresses, kept up to date: EDS has room for addresses alone."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping

AGAIN_S, AGAIN_FAILED_S = 10.0, 1.0
LOOKUP_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


class Names:
    """want() says of which hosts; resolved is called with all that are known whenever that changes. A name that
    cannot be looked up any more keeps its last address. run() goes on until it is cancelled."""

    def __init__(self, resolved: Callable[[Mapping[str, str]], None]) -> None:
        self._resolved = resolved
        self._due: dict[str, float] = {}
        self._known: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._wake = asyncio.Event()

    def want(self, hosts: Iterable[str]) -> None:
        """Exactly these from now on."""
        wanted = set(hosts)
        if wanted != self._due.keys():
            self._due = {host: self._due.get(host, 0.0) for host in sorted(wanted)}
            self._known = {host: ip for host, ip in self._known.items() if host in wanted}
            self._failed = {host: why for host, why in self._failed.items() if host in wanted}
            self._wake.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            before = dict(self._known)
            for host in [host for host, due in self._due.items() if due <= loop.time()]:
                is_known = await self._look_up(host)
                if host in self._due:
                    self._due[host] = loop.time() + (AGAIN_S if is_known else AGAIN_FAILED_S)
            if self._known != before:
                self._resolved(dict(self._known))
            first = min(self._due.values(), default=None)
            try:
                async with asyncio.timeout(None if first is None else max(first - loop.time(), 0.0)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look_up(self, host: str) -> bool:
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as problem:
            why = getattr(problem, "strerror", None) or "no answer"
            if self._failed.get(host) != why:
                last = "; going on with its last address" if host in self._known else "; it is not routed to"
                log.warning("%s cannot be looked up: %s%s", host, why, last)
            self._failed[host] = why
            return False
        self._failed.pop(host, None)
        addresses = sorted(str(answer[4][0]) for answer in found)
        if host in self._due and self._known.get(host) not in addresses:
            self._known[host] = addresses[0]
        return True
