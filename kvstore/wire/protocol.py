"""The asyncio half of a connection: reads feed the state machine, and a turn's output is one write."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from kvstore.rpc import Methods
from kvstore.wire.calm import Calm
from kvstore.wire.connection import Connection
from kvstore.wire.frames import PREFACE, ConnectionFault
from kvstore.wire.limits import Limits
from kvstore.wire.traffic import Traffic

_HTTP1_VERBS = (
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"TRACE ",
    b"CONNECT ",
)
RESTING_BYTES_MAX = 16 << 10
"""Kept of a connection that has to wait: more than a client's first words are."""
MUCH_BYTES = 128 << 10
"""Read at once: then others have their turn. libuv would go on, up to 32 times as much (uv__read)."""
Http1Factory = Callable[[], asyncio.Protocol]


class WireProtocol(asyncio.Protocol):
    """One client connection on the client port, whichever of HTTP/2 and HTTP/1.1 it turns out to speak."""

    def __init__(
        self,
        methods: Methods,
        limits: Limits,
        connections: set[WireProtocol],
        http1_factory: Http1Factory | None,
        common_name: str = "",
        traffic: Traffic | None = None,
        calm: Calm | None = None,
    ) -> None:
        """connections, traffic, calm: those of all the server's connections."""
        self._traffic = traffic or Traffic()
        self._calm = calm or Calm(limits.calm_s)
        self._methods = methods
        self._limits = limits
        self._connections = connections
        self._http1_factory = http1_factory
        self._common_name = common_name  # for gRPC alone: over HTTP/1.1 a certificate names nobody
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._connection: Connection | None = None
        self._early = b""
        self._resting = False
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._last_received = 0.0
        self._keepalive: asyncio.TimerHandle | None = None

    # From the socket

    @property
    def _host(self) -> str:
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(peer[0]) if isinstance(peer, tuple) else ""

    @property
    def _address(self) -> str:
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._transport = stream
        self._connections.add(self)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.set_write_buffer_limits(high=4 << 20)
        self._keepalive = self._loop.call_later(self._limits.preface_timeout_s, self._check_preface)
        wait_s = self._calm.wait_s(self._host, self._loop.time())
        if wait_s > 0:
            self._resting = True
            self._loop.call_soon(self._rest, wait_s)

    def _rest(self, wait_s: float) -> None:
        """Nothing is read for so long. uvloop begins to read when connection_made() has returned, whatever that has
        asked for, and may read once before this is called: that little is kept."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_later(wait_s, self._rested)

    def _rested(self) -> None:
        self._resting = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            data, self._early = self._early, b""
            if data:
                self.data_received(data)

    def data_received(self, data: bytes) -> None:
        connection = self._connection
        if connection is None:
            data = self._early + data
            if self._resting:
                self._early = data
                if len(data) > RESTING_BYTES_MAX:
                    self._end()
                return
            connection = self._sniff(data)
            if connection is None:
                return
        self._traffic.received_bytes += len(data)
        self._receive(connection, data)

    def _receive(self, connection: Connection, data: bytes) -> None:
        self._last_received = now = self._loop.time()
        self._traffic.at(now)
        try:
            connection.receive(data, now)
        except ConnectionFault as fault:
            judged = self._calm.flooded if fault.is_flood else self._calm.faulted
            judged(self._host, now)
            connection.fail(fault)
            self._flush()
            self._end()
            return
        if connection.output or self._closing:  # a reset writes nothing, yet may be what closing waited for
            self._flush()
        else:
            connection.resume()
        if connection.has_more or len(data) >= MUCH_BYTES:
            self._go_on_later()
        deadline = connection.next_deadline
        if deadline is not None and (self._timer is None or deadline < self._timer_at):
            self._arm(deadline)

    def _go_on_later(self) -> None:
        """The rest of what was read, once others have had their turn; nothing more is read meanwhile."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        connection, transport = self._connection, self._transport
        if connection is None or transport is None or transport.is_closing():
            return
        transport.resume_reading()
        if connection.has_more:
            self._receive(connection, b"")

    def _sniff(self, data: bytes) -> Connection | None:
        """Decides by the first bytes who is to read this connection; None while undecided or given away."""
        if data[: len(PREFACE)] == PREFACE[: len(data)]:
            if len(data) < len(PREFACE) and data[:4] != b"PRI ":
                self._early = data
                return None
            self._early = b""
            self._connection = Connection(
                self._methods,
                self._limits,
                now=self._loop.time(),
                on_output=self._schedule_flush,
                traffic=self._traffic,
            )
            self._connection.common_name = self._common_name
            self._connection.remote = self._address
            return self._connection
        words = any(verb.startswith(data[: len(verb)]) for verb in _HTTP1_VERBS)
        if words and self._http1_factory is not None:
            self._hand_over(data)
        else:
            self._end()
        return None

    def _hand_over(self, data: bytes) -> None:
        assert self._transport is not None and self._http1_factory is not None
        self._connections.discard(self)
        if self._keepalive is not None:
            self._keepalive.cancel()
        protocol = self._http1_factory()
        self._transport.set_write_buffer_limits()  # the default: HTTP's writers wait for the socket
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        for timer in (self._timer, self._keepalive):
            if timer is not None:
                timer.cancel()
        self._transport = None
        if self._connection is not None:
            self._connection.lost()

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.socket_full()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.socket_ready()

    # To the socket

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        connection, transport = self._connection, self._transport
        if connection is None or transport is None:
            return
        if connection.is_overfull:
            transport.abort()
            return
        if connection.output:
            data = b"".join(connection.take_output())
            self._traffic.sent_bytes += len(data)
            transport.write(data)
            if transport.get_write_buffer_size() > self._limits.queued_bytes:
                transport.abort()  # it asks without reading; answers without DATA obey no window
                return
            connection.resume()
        if self._closing and connection.is_idle:
            self._end()

    # Time

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._deadline)

    def _deadline(self) -> None:
        self._timer = None
        connection = self._connection
        if connection is None:
            return
        connection.check_deadlines(self._loop.time())
        if connection.output:
            self._schedule_flush()
        if connection.next_deadline is not None:
            self._arm(connection.next_deadline)

    def _check_preface(self) -> None:
        if self._connection is None or not self._connection.has_spoken:
            self._end()
        elif self._limits.keepalive_interval_s > 0 and self._limits.keepalive_timeout_s > 0:
            self._keepalive = self._loop.call_later(self._limits.keepalive_interval_s, self._check_alive)

    def _check_alive(self) -> None:
        """Pings a client that has been silent for the interval; one that stays silent is gone."""
        connection, silent = self._connection, self._loop.time() - self._last_received
        if connection is None:
            return
        if silent < self._limits.keepalive_interval_s:
            wait = self._limits.keepalive_interval_s - silent
            self._keepalive = self._loop.call_later(wait, self._check_alive)
            return
        asked = self._loop.time()
        connection.ping(b"kvstore\0")

        def judge() -> None:
            if self._last_received < asked and self._transport is not None:
                self._transport.abort()
            else:
                self._check_alive()

        self._keepalive = self._loop.call_later(self._limits.keepalive_timeout_s, judge)

    # Ending

    _closing = False

    def begin_close(self) -> None:
        """Says goodbye, lets the calls under way finish, then closes."""
        self._closing = True
        if self._connection is None:
            self._end()
        else:
            self._connection.begin_close()
            self._schedule_flush()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        if self._transport is not None:
            self._transport.close()
