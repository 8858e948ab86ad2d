"""Keeps the store in agreement with what is wanted of one instance: announced as it is now, or not there.

Through the store's own announce call where there is one (streamed.py), and else with a lease as on every etcd
(leased.py). Which it is shows at the first connection, before anything is announced.
"""

from __future__ import annotations

from collections.abc import Callable

from kvstore.client import Client
from kvstore.client.errors import Unimplemented
from kvstore.readiness.instance import Instance
from kvstore.readiness.leased import Leased
from kvstore.readiness.streamed import Streamed

GRACE_MS = 500


class Registrar:
    """want() says what should be so, run() makes it so; cancelling run() withdraws and ends it. told is called with
    the lease each time the instance has been announced under it, and with 0 when it is not announced any more."""

    def __init__(
        self,
        client: Client,
        ttl_ms: int,
        *,
        grace_ms: int = GRACE_MS,
        withdraw_timeout_s: float = 1.0,
        told: Callable[[int], None] = lambda lease_id: None,
        take_over: bool = False,
    ) -> None:
        self._client = client
        self._ttl_ms = ttl_ms
        self._withdraw_timeout_s = withdraw_timeout_s
        self._told = told
        self._take_over = take_over
        self._way: Streamed | Leased = Streamed(
            client,
            ttl_ms,
            grace_ms=grace_ms,
            withdraw_timeout_s=withdraw_timeout_s,
            told=told,
            take_over=take_over,
        )
        self._wanted: Instance | None = None

    @property
    def announced(self) -> Instance | None:
        """What the store is known to hold."""
        return self._way.announced

    def want(self, instance: Instance | None) -> None:
        self._wanted = instance
        self._way.want(instance)

    async def run(self) -> None:
        try:
            await self._way.run()
        except Unimplemented:
            ttl_s = -(-self._ttl_ms // 1000)
            self._way = Leased(
                self._client,
                ttl_s,
                withdraw_timeout_s=self._withdraw_timeout_s,
                told=self._told,
                take_over=self._take_over,
            )
            self._way.want(self._wanted)
            await self._way.run()
