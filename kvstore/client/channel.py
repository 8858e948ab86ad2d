"""One endpoint: its connection, made when it is asked for and kept, and the calls on it.

    idle ── connect() ──► dialing ── the server's settings ──► connected ── lost, GOAWAY ──► idle
                             └── failed ──► resting: connect() fails at once, with what dialing failed with

A rest is 50 ms at first and doubles to 1 s. A connection that the server takes leave of (GOAWAY) is kept for the calls
on it, and new calls get a new one. A request is given only to a connection whose server has sent its settings, so one
that finds nobody home is known never to have left.
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
import ssl
from typing import Protocol

from kvstore.client.calls import Call, Sink
from kvstore.client.connection import Connection
from kvstore.client.dial import DialFailed, dial
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import ClientClosed, Unreachable
from kvstore.client.replies import Ending, Fate
from kvstore.rpc import Status
from kvstore.version import VERSION
from kvstore.wire.literals import literal

Metadata = tuple[tuple[str, str], ...]
REST_FIRST_S = 0.05
REST_LONGEST_S = 1.0
_BLOCKS_MAX = 256
CLOSED = "the client was closed"
_LOST = DialFailed("the connection was lost")


class Limits(Protocol):
    """What a channel needs of the client's settings, which caller.py describes."""

    @property
    def dial_timeout_s(self) -> float: ...
    @property
    def max_message_bytes(self) -> int: ...
    @property
    def keepalive_s(self) -> float: ...
    @property
    def keepalive_timeout_s(self) -> float: ...


class _Answer:
    """The sink of a unary call."""

    __slots__ = ("data", "done", "is_one")

    def __init__(self, done: asyncio.Future[Ending]) -> None:
        self.done = done
        self.data: bytes | None = None
        self.is_one = True

    def message(self, data: bytes) -> None:
        self.is_one = self.data is None
        self.data = data

    def ended(self, ending: Ending) -> None:
        if not self.done.done():
            self.done.set_result(ending)

    def drained(self) -> None:
        pass


class Channel:
    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None, limits: Limits) -> None:
        """context: for TLS."""
        self._endpoint = endpoint
        self._context = context
        self._limits = limits
        self._keepalive_s = limits.keepalive_s
        self._connection: Connection | None = None
        self._connections: set[Connection] = set()  # those that end, and the one that does not
        self._dialing: asyncio.Task[None] | None = None
        self._failure: DialFailed | None = None
        self._rest_s = REST_FIRST_S
        self._rests_until = 0.0
        self._closed = False
        authority = "localhost" if endpoint.target.startswith("unix:") else endpoint.target
        self._begin = b"\x83" + (b"\x86" if context is None else b"\x87")  # POST, and the scheme
        self._common = (
            literal(":authority", authority)
            + literal("content-type", "application/grpc")
            + literal("te", "trailers")
            + literal("grpc-accept-encoding", "identity,gzip")
            + literal("user-agent", f"grpc-python-kvstore/{VERSION}")
        )
        self._blocks: dict[tuple[str, Metadata], bytes] = {}

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.takes_calls

    async def connect(self, timeout_s: float) -> None:
        """Afterwards there is a connection that takes calls. Raises Unreachable, ClientClosed."""
        if self.is_connected:
            return
        if self._closed:
            raise ClientClosed("the client is closed")
        loop = asyncio.get_running_loop()
        if self._dialing is None:
            if self._failure is not None and loop.time() < self._rests_until:
                raise self._unreachable(self._failure)
            self._dialing = loop.create_task(self._dial(), name=f"dial {self._endpoint.name}")
        dialing, limit_s = self._dialing, min(timeout_s, self._limits.dial_timeout_s)
        await asyncio.wait((dialing,), timeout=max(limit_s, 0.0))
        if self._closed:
            raise ClientClosed("the client is closed")
        if self.is_connected:
            return
        if not dialing.done():
            raise self._unreachable(self._too_long(limit_s))
        dialing.result()
        raise self._unreachable(self._failure or _LOST)

    async def _dial(self) -> None:
        limit_s = self._limits.dial_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                connection = await dial(self._endpoint, self._context, self._make)
        except TimeoutError:
            self._failed(self._too_long(limit_s))
        except DialFailed as problem:
            self._failed(problem)
        else:
            self._connection = connection
            self._connections.add(connection)
            self._failure = None
            self._rest_s = REST_FIRST_S
        finally:
            self._dialing = None

    def _make(self) -> Connection:
        limits = self._limits
        return Connection(
            limits.max_message_bytes, self._keepalive_s, limits.keepalive_timeout_s, self._changed
        )

    def _failed(self, problem: DialFailed) -> None:
        self._failure = problem
        # Many clients lose a server at the same moment, and need not all come back at the same moment.
        self._rests_until = asyncio.get_running_loop().time() + self._rest_s * random.uniform(0.8, 1.2)
        self._rest_s = min(self._rest_s * 2, REST_LONGEST_S)

    def _changed(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None
            if connection.too_many_pings:  # as gRPC's keepalive asks of clients
                self._keepalive_s *= 2
        if connection.is_gone:
            self._connections.discard(connection)

    def _too_long(self, limit_s: float) -> DialFailed:
        return DialFailed(f"no connection to {self._endpoint.name} within {limit_s:.3g} s")

    def _unreachable(self, problem: DialFailed) -> Unreachable:
        reasons = {self._endpoint.name: problem.reason}
        return Unreachable(problem.reason, reasons=reasons, by_tls=problem.by_tls)

    async def close(self) -> None:
        self._closed = True
        if self._dialing is not None:
            self._dialing.cancel()
            await asyncio.wait((self._dialing,))
        self._connection = None
        closing = [connection.close(CLOSED) for connection in list(self._connections)]
        await asyncio.gather(*closing)

    # Calls

    async def unary(
        self, path: str, metadata: Metadata, message: bytes, deadline: float
    ) -> tuple[Ending, bytes]:
        """How the call ended, and the answer where that is OK. deadline: by the loop's clock."""
        connection, loop = self._connection, asyncio.get_running_loop()
        if connection is None or not connection.takes_calls:
            return Ending(Status.UNAVAILABLE, _LOST.reason, Fate.UNSENT), b""
        answer = _Answer(loop.create_future())
        block = self._block(path, metadata) + _timeout(_rounded(deadline - loop.time()))
        call = connection.open(block, answer, message=message, ends=True, deadline=deadline)
        try:
            ending = await answer.done
        except asyncio.CancelledError:
            connection.cancel(call)
            raise
        if ending.status is not Status.OK:
            return ending, b""
        if answer.data is None or not answer.is_one:
            return Ending(Status.INTERNAL, "the server answered with no message, or with several"), b""
        return ending, answer.data

    def open(
        self, path: str, metadata: Metadata, sink: Sink, message: bytes | None = None
    ) -> tuple[Connection, Call]:
        """A call of many messages. message: the only one from this side. Raises Unreachable."""
        connection = self._connection
        if self._closed:
            raise ClientClosed("the client is closed")
        if connection is None or not connection.takes_calls:
            raise self._unreachable(_LOST)
        block = self._block(path, metadata)
        call = connection.open(block, sink, message=message, ends=message is not None, holds=True)
        return connection, call

    def _block(self, path: str, metadata: Metadata) -> bytes:
        block = self._blocks.get((path, metadata))
        if block is None:
            if len(self._blocks) >= _BLOCKS_MAX:
                self._blocks.clear()  # of tokens that came and went
            more = b"".join(literal(name, value) for name, value in metadata)
            block = self._blocks[path, metadata] = self._begin + literal(":path", path) + self._common + more
        return block


def _rounded(timeout_s: float) -> int:
    """Milliseconds for the server, not below what is left. Few different ones, so that a server which remembers
    header blocks sees the same again; the time is kept here."""
    if timeout_s > 1:
        return math.ceil(timeout_s * 10 - 1e-6) * 100
    return max(math.ceil(timeout_s * 1000), 1)


@functools.lru_cache(maxsize=256)
def _timeout(milliseconds: int) -> bytes:
    value = f"{milliseconds}m" if milliseconds < 100_000_000 else f"{min(milliseconds // 1000, 99_999_999)}S"
    return literal("grpc-timeout", value)
