"""What a member does by itself to stay well, and what it shows of that: one object that member.py builds and ticks.

Nothing here takes part in agreeing on anything: each part looks, and where something must be done proposes a command
or asks another member, as any client could.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kvstore.http.pages import Route
from kvstore.metrics.page import MetricsPage
from kvstore.metrics.serving import METRICS, MetricsServer
from kvstore.metrics.sources import Beats, Sources
from kvstore.replication.corruption import HASH_KV, CorruptionCheck
from kvstore.replication.round_trips import ROUND_TRIP, RoundTrips
from kvstore.replication.space_alarm import SpaceAlarm
from kvstore.wire.traffic import Traffic

if TYPE_CHECKING:
    from kvstore.api.context import Context
    from kvstore.api.watch import WatchService
    from kvstore.config import Config
    from kvstore.http.server import HttpServer
    from kvstore.replication.lease_keeper import LeaseKeeper
    from kvstore.replication.member_changes import MemberChanges
    from kvstore.replication.peers import PeerTransport
    from kvstore.replication.wal_writer import WalWriter
    from kvstore.rpc import Methods

Reply = Callable[[bytes | None], None]


def open_traffic(config: Config) -> Traffic:
    return Traffic(
        clock=time.monotonic,
        exact=config.metrics == "extensive",
        slow_after_s=config.warning_unary_request_s or float("inf"),
    )


class Upkeep:
    def __init__(
        self,
        context: Context,
        *,
        methods: Methods,
        traffic: Traffic,
        transport: PeerTransport,
        log_writer: WalWriter,
        keeper: LeaseKeeper,
        changes: MemberChanges,
        watches: WatchService,
    ) -> None:
        config = context.config
        self._context = context
        self._traffic = traffic
        self._loop = asyncio.get_running_loop()
        self._beats = Beats(config.heartbeat_interval_ms / 1000)
        self._space_alarm = SpaceAlarm(context.driver, context.machine, auto_disarm=config.auto_disarm)
        self._corruption = CorruptionCheck(
            context.driver,
            context.machine,
            transport,
            interval_s=config.corrupt_check_s,
            call_soon=self._loop.call_soon,
        )
        self._round_trips = RoundTrips(transport, clock=time.perf_counter)
        context.machine.meter.slow_apply_s = config.warning_apply_s or float("inf")
        sources = Sources(
            context=context,
            methods=methods,
            traffic=traffic,
            transport=transport,
            log_writer=log_writer,
            keeper=keeper,
            changes=changes,
            watches=watches,
            beats=self._beats,
            exact=config.metrics == "extensive",
        )
        self._page = MetricsPage(sources)
        self._metrics = MetricsServer(context, self._page)

    async def serve(self, http: HttpServer, metrics_sockets: Sequence[socket.socket]) -> None:
        http.routes.append(Route(METRICS, self._page))
        await self._metrics.serve(metrics_sockets)

    def tick(self) -> None:
        now = self._loop.time()
        self._traffic.at(now)
        self._beats.tick(now, self._context.driver.is_leader)
        self._round_trips.tick(now)
        self._space_alarm.tick(now)
        self._corruption.tick(now)

    def serves(self, kind: int, payload: bytes, reply: Reply) -> bool:
        """Another member's question, where it is one for this."""
        if kind == ROUND_TRIP:
            reply(b"")
            return True
        if kind == HASH_KV:
            self._corruption.serve(payload, reply)
            return True
        return False

    async def close(self) -> None:
        await self._metrics.close()
