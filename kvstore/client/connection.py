"""The asyncio half of one connection: what is read feeds the state machine, what it puts out is written.

The first write of a turn of the loop leaves at once, because it is most often the only one; what follows in the same
turn is one write more, in the next.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from typing import cast

from kvstore.client.calls import Call, Sink
from kvstore.client.http2 import Http2
from kvstore.wire.frames import ConnectionFault

_PING = b"kvclient"
_LAST_LOOK_S = 0.001
CLOSE_TIMEOUT_S = 0.25
HUNG_UP = "the server closed the connection"


class Connection(asyncio.Protocol):
    """ready is done when the server has sent its settings, or never will: then failure says why. on_change is called
    when it takes no new calls any more, and when it is gone."""

    def __init__(
        self,
        max_message_bytes: int,
        keepalive_s: float,
        keepalive_timeout_s: float,
        on_change: Callable[[Connection], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._machine = Http2(max_message_bytes)
        self._keepalive_s = keepalive_s
        self._keepalive_timeout_s = keepalive_timeout_s
        self._on_change = on_change
        self._transport: asyncio.Transport | None = None
        self._was_made = False
        self._has_written = False  # in this turn of the loop
        self._received_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._keepalive: asyncio.TimerHandle | None = None
        self._first = b""
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self.failure: str | BaseException = ""
        """Why it is gone: a text of ours, or what the socket or TLS raised."""

    @property
    def takes_calls(self) -> bool:
        return not self._machine.is_draining and self._transport is not None

    @property
    def is_gone(self) -> bool:
        return self._was_made and self._transport is None

    @property
    def too_many_pings(self) -> bool:
        return self._machine.too_many_pings

    @property
    def why(self) -> str:
        """Why it takes no calls, in plain words."""
        return self._machine.goodbye or words(self.failure) or HUNG_UP

    @property
    def first_bytes(self) -> bytes:
        """Of a server that has sent something else than its settings."""
        return self._first

    # Calls

    def open(
        self,
        block: bytes,
        sink: Sink,
        *,
        message: bytes | None = None,
        ends: bool = False,
        deadline: float | None = None,
        holds: bool = False,
    ) -> Call:
        """As Http2.open(). Without a message the headers wait for the first, at most until the next turn."""
        if not self._machine.is_busy:
            self._received_at = (
                self._loop.time()
            )  # it may have been silent for long; only now that is unusual
            self._arm_keepalive()
        call = self._machine.open(block, sink, message=message, ends=ends, deadline=deadline, holds=holds)
        if message is not None:
            self._flush()
        else:
            self._flush_later()
        self._arm()
        return call

    def send(self, call: Call, message: bytes) -> None:
        self._machine.send(call, message)
        self._flush()

    def is_clogged(self, call: Call) -> bool:
        return self._machine.is_clogged(call)

    def taken(self, call: Call, message: bytes) -> None:
        self._machine.taken(call, message)
        if self._machine.output:
            self._flush()

    def cancel(self, call: Call) -> None:
        self._machine.cancel(call)
        self._flush()
        self._close_when_idle()

    # Bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._was_made = True
        self._flush()

    def data_received(self, data: bytes) -> None:
        machine = self._machine
        self._received_at = self._loop.time()
        if not machine.is_ready:
            self._first = (self._first + data)[:64]
        try:
            machine.receive(data)
        except ConnectionFault as fault:
            self.failure = f"the server broke HTTP/2: {fault.reason}"
            machine.fail(fault)
            self._end()
            return
        if machine.output:
            self._flush()
        if machine.is_ready and not self.ready.done():
            self.ready.set_result(None)
        if machine.is_draining:
            self._on_change(self)
            self._close_when_idle()

    def connection_lost(self, error: Exception | None) -> None:
        self.failure = self.failure or error or HUNG_UP
        self._transport = None
        for timer in (self._timer, self._keepalive):
            if timer is not None:
                timer.cancel()
        self._machine.lost(words(self.failure))
        if not self.ready.done():
            self.ready.set_result(None)
        if not self._gone.done():
            self._gone.set_result(None)
        self._on_change(self)

    def pause_writing(self) -> None:
        self._machine.socket_full()

    def resume_writing(self) -> None:
        self._machine.socket_ready()
        self._flush()

    def _flush(self) -> None:
        if self._has_written or not self._machine.output:
            return
        if self._transport is None or self._transport.is_closing() or self._loop.is_closed():
            self._machine.output.clear()
            return
        self._has_written = True
        self._loop.call_soon(self._next_turn)
        self._write()

    def _write(self) -> None:
        assert self._transport is not None, "a write to nobody"
        if not self._machine.output:
            return
        output = self._machine.output
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        self._transport.write(data)

    def _flush_later(self) -> None:
        if not self._has_written:
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._has_written = False
        self._flush()

    # Time

    def _arm(self) -> None:
        deadline = self._machine.next_deadline
        if deadline is None or (self._timer is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        # A loop may call a timer a little early, by the resolution of its clock.
        self._machine.expire(max(self._loop.time(), self._timer_at))
        self._flush()
        self._close_when_idle()
        self._arm()

    def _arm_keepalive(self) -> None:
        if self._keepalive is None and self._keepalive_s > 0:
            self._keepalive = self._loop.call_at(self._received_at + self._keepalive_s, self._check_alive)

    def _check_alive(self) -> None:
        """Pings a server that has been silent with calls on it; one that stays silent is gone."""
        self._keepalive = None
        if not self._machine.is_busy:
            return
        asked_at = self._loop.time()
        if asked_at < self._received_at + self._keepalive_s:
            self._arm_keepalive()
            return
        self._machine.ping(_PING)
        self._flush()

        def judge() -> None:
            # A loop that was busy for long may come to its timers before it reads: one more look at the socket.
            self._keepalive = self._loop.call_later(_LAST_LOOK_S, verdict)

        def verdict() -> None:
            self._keepalive = None
            if self._received_at < asked_at:
                self.abort(f"no answer to a keepalive ping within {self._keepalive_timeout_s:.3g} s")
            else:
                self._check_alive()

        self._keepalive = self._loop.call_later(self._keepalive_timeout_s, judge)

    # Ending

    def _close_when_idle(self) -> None:
        if self._machine.is_draining and not self._machine.is_busy:
            self._end()

    def _end(self) -> None:
        """A server that does not take the last bytes, or does not answer the end of TLS, is not waited for."""
        if self._transport is None or self._transport.is_closing():
            return
        self._write()
        self._transport.close()
        if self._keepalive is not None:
            self._keepalive.cancel()
        self._keepalive = self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def abort(self, why: str) -> None:
        """Ends it and every call on it, at once."""
        self.failure = self.failure or why
        self._machine.lost(why)
        if self._transport is not None:
            self._transport.abort()

    async def close(self, why: str) -> None:
        """As abort(), but what was written still goes out, for a moment; it is gone when this returns."""
        self.failure = self.failure or why
        self._machine.lost(why)
        if self._transport is None:
            return
        if not self._transport.is_closing():
            self._write()
            self._transport.close()
        await asyncio.wait((self._gone,), timeout=CLOSE_TIMEOUT_S)
        if self._transport is not None:
            self._transport.abort()
            await asyncio.wait((self._gone,), timeout=CLOSE_TIMEOUT_S)


def words(failure: str | BaseException) -> str:
    """In plain words, as "Connection reset by peer"."""
    if isinstance(failure, str):
        return failure
    if isinstance(failure, ssl.SSLError):
        return f"TLS: {(failure.reason or str(failure)).replace('_', ' ').lower()}"
    if isinstance(failure, OSError) and failure.errno:
        return os.strerror(failure.errno)
    return str(failure) or type(failure).__name__
