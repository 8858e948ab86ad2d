"""The builtin proxy's connections: one pool of keep-alive connections per instance.

An instance that goes takes its pool with it: idle connections are closed at once, requests on their way are left to
finish, and the pool is closed with the last of them. An instance that comes back at another address gets a new pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp

from kvstore.readiness.instance import Instance

KEEPALIVE_S = 4.0  # below the 5 s after which common servers close an idle connection themselves


@dataclass(frozen=True, slots=True)
class Timeouts:
    """connect_s: until a connection stands; read_s: between two pieces of an answer."""

    connect_s: float = 1.0
    read_s: float = 60.0


class Upstream:
    """One instance's pool. Invariant: closed exactly when it is retired and nothing is in flight."""

    def __init__(self, instance: Instance, timeouts: Timeouts, closing: set[asyncio.Task[None]]) -> None:
        self.instance = instance
        self.in_flight_count = 0
        self._closing = closing
        self._is_retired = False
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=5),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=timeouts.connect_s, sock_read=timeouts.read_s
            ),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    @contextmanager
    def request(self) -> Iterator[aiohttp.ClientSession]:
        self.in_flight_count += 1
        try:
            yield self.session
        finally:
            self.in_flight_count -= 1
            self._close_when_done()

    def retire(self) -> None:
        self._is_retired = True
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._is_retired and self.in_flight_count == 0 and not self.session.closed:
            task = asyncio.ensure_future(self.session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


class Upstreams:
    """Converges on the set it is told."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._by_id: dict[str, Upstream] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def reconcile(self, instances: Sequence[Instance]) -> None:
        before, self._by_id = self._by_id, {}
        for instance in instances:
            known = before.get(instance.id)
            if known is not None and known.instance.address == instance.address:
                self._by_id[instance.id] = before.pop(instance.id)
            else:
                self._by_id[instance.id] = Upstream(instance, self._timeouts, self._closing)
        for gone in before.values():
            gone.retire()

    def of(self, instance: Instance) -> Upstream:
        return self._by_id[instance.id]

    async def close(self) -> None:
        """Every pool, and every request still on its way."""
        for upstream in self._by_id.values():
            await upstream.session.close()
        if self._closing:
            await asyncio.wait(set(self._closing))
