"""The builtin proxy's connections: one pool of keep-alive connections per instance, and what was counted there.

An instance that goes takes its pool with it: requests on their way are left to finish, and the pool is closed with
the last of them. An instance that comes back at another address gets a new pool. Websockets to an instance that
drains or has gone stay open for the drain limit, and are then asked to leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from kvstore.readiness.instance import Instance
from kvstore.routing.retry import Fault

KEEPALIVE_S = 4.0  # below the 5 s after which common servers close an idle connection themselves
HEAD_BYTES = 64 * 1024  # of one header of an answer


@dataclass(frozen=True, slots=True)
class Timeouts:
    """connect_s: until a connection stands; read_s: between two pieces of a body, in either direction, and for the
    other side to take one; drain_s: how long websockets to an instance that is to get nothing new stay open."""

    connect_s: float = 1.0
    read_s: float = 60.0
    drain_s: float = 60.0


class Leaving(Protocol):
    """Something that goes on for long, and can be asked to end."""

    def leave(self) -> None: ...


@dataclass(slots=True)
class Counts:
    """Since the instance was first seen here. answers: by the first digit of the status."""

    answers: list[int] = field(default_factory=lambda: [0] * 10)
    faults: dict[Fault, int] = field(default_factory=lambda: dict.fromkeys(Fault, 0))


class Upstream:
    """One instance's pool. Invariant: closed exactly when it is retired and nothing is in flight."""

    def __init__(self, instance: Instance, timeouts: Timeouts, closing: set[asyncio.Task[None]]) -> None:
        self.instance = instance
        self.in_flight_count = 0
        self.counts = Counts()
        self._tunnels: set[Leaving] = set()
        self._timeouts = timeouts
        self._closing = closing
        self._is_retired = False
        self._limit: asyncio.TimerHandle | None = None
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=5),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=timeouts.connect_s, sock_read=timeouts.read_s
            ),
            auto_decompress=False,
            max_line_size=HEAD_BYTES,
            max_field_size=HEAD_BYTES,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    def begin(self) -> None:
        self.in_flight_count += 1

    def end(self) -> None:
        self.in_flight_count -= 1
        if self._is_retired:
            self._close_when_done()

    @property
    def tunnel_count(self) -> int:
        return len(self._tunnels)

    def hold(self, tunnel: Leaving) -> None:
        self._tunnels.add(tunnel)
        if self._is_retired or not self.instance.is_ready:
            self._set_limit()

    def let_go(self, tunnel: Leaving) -> None:
        self._tunnels.discard(tunnel)

    def become(self, instance: Instance) -> None:
        """The same address, and maybe another state."""
        self.instance = instance
        if not instance.is_ready:
            self._set_limit()
        elif self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def retire(self) -> None:
        self._is_retired = True
        self._set_limit()
        self._close_when_done()

    def dismiss(self) -> None:
        """Asks what goes on for long to end."""
        self._limit = None
        for tunnel in self._tunnels:
            tunnel.leave()

    def _set_limit(self) -> None:
        if self._limit is None and self._tunnels:
            self._limit = asyncio.get_running_loop().call_later(self._timeouts.drain_s, self.dismiss)

    def _close_when_done(self) -> None:
        if self.in_flight_count == 0 and not self.session.closed:
            if self._limit is not None:
                self._limit.cancel()
            task = asyncio.ensure_future(self.session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


class Upstreams:
    """Converges on the set it is told."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._by_id: dict[str, Upstream] = {}
        self._retired: set[Upstream] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def reconcile(self, instances: Sequence[Instance]) -> None:
        before, self._by_id = self._by_id, {}
        for instance in instances:
            known = before.get(instance.id)
            if known is not None and known.instance.address == instance.address:
                self._by_id[instance.id] = before.pop(instance.id)
                known.become(instance)
            else:
                self._by_id[instance.id] = Upstream(instance, self._timeouts, self._closing)
        self._retired = {one for one in self._retired if one.in_flight_count}
        for gone in before.values():
            gone.retire()
            self._retired.add(gone)

    def of(self, instance: Instance) -> Upstream:
        return self._by_id[instance.id]

    def all(self) -> list[Upstream]:
        return list(self._by_id.values())

    @property
    def tunnel_count(self) -> int:
        return sum(one.tunnel_count for one in (*self._by_id.values(), *self._retired))

    def dismiss(self) -> None:
        for upstream in (*self._by_id.values(), *self._retired):
            upstream.dismiss()

    async def close(self) -> None:
        """Every pool, and every request still on its way."""
        for upstream in (*self._by_id.values(), *self._retired):
            await upstream.session.close()
        if self._closing:
            await asyncio.wait(set(self._closing))
