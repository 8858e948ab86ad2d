"""The seam between a transport and the services: what one remote call looks like from either side.

A service is a table from gRPC path to method. It never learns which transport carries it: kvstore/wire
drives these callbacks in production, and the tests mount the same tables on grpc.aio. Everything here runs
on one event loop; nothing blocks and nothing is awaited, because a put that cost a task and a future would
cost more than the put.

    unary:   transport calls UnaryHandler(call, request bytes); the service, then or later, calls
             call.reply(bytes) or call.fail(status, text)
    stream:  transport calls StreamOpener(call) and gets a StreamHandler; then handler.message(bytes) for
             each message, .half_closed(), .cancelled(); the service calls call.send(bytes), call.finish()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class Status(IntEnum):
    """gRPC status codes (https://grpc.github.io/grpc/core/md_doc_statuscodes.html)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class UnaryCall(Protocol):
    """One unary call in flight. Exactly one of reply() and fail() ends it; after the caller has gone
    (cancelled is True) either is accepted and does nothing."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Request metadata, lower-case names; binary (-bin) values left base64-encoded."""

    @property
    def common_name(self) -> str:
        """Of the client certificate this transport has verified; "" where there is none."""

    @property
    def deadline(self) -> float | None:
        """Monotonic loop time (seconds) at which the transport answers DEADLINE_EXCEEDED by itself."""

    @property
    def cancelled(self) -> bool: ...

    def when_cancelled(self, tell: Callable[[], None]) -> None:
        """tell() is called once should the caller go before the call has ended: for what waits long, and holds
        something meanwhile."""

    @property
    def congested(self) -> bool:
        """The caller has not taken much of what it asked for before: a large answer had better wait for
        when_room(), so that what is made for it stays bounded."""

    def when_room(self, go_on: Callable[[], None]) -> None:
        """go_on() is called once the caller has taken enough, never where it goes before that."""

    def reply(self, message: bytes) -> None:
        """Ends the call with OK and this encoded message."""

    def fail(self, status: int, message: str) -> None:
        """Ends the call with a status other than OK."""


class StreamCall(Protocol):
    """The server's half of one streaming call."""

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def common_name(self) -> str: ...

    @property
    def deadline(self) -> float | None: ...

    @property
    def cancelled(self) -> bool: ...

    @property
    def buffered_bytes(self) -> int:
        """Bytes given to send() that flow control or the socket has not taken yet. A handler that produces
        without bound must stop above a mark of its own and go on at StreamHandler.drained()."""

    def send(self, message: bytes) -> None:
        """Queues one encoded message; after cancellation it does nothing."""

    def finish(self, status: int = 0, message: str = "") -> None:
        """Ends the stream with trailers."""


class StreamHandler(Protocol):
    """The service's half of one streaming call: what the transport tells it."""

    def message(self, data: bytes) -> None:
        """One whole request message arrived."""

    def half_closed(self) -> None:
        """The client will send no more; it may still be listening."""

    def cancelled(self) -> None:
        """The call is gone (reset, connection lost, deadline). Called once, also after finish() is not."""

    def drained(self) -> None:
        """buffered_bytes fell to zero after having been above it."""


UnaryHandler = Callable[[UnaryCall, bytes], None]
StreamOpener = Callable[[StreamCall], StreamHandler]


@dataclass(frozen=True)
class UnaryMethod:
    handler: UnaryHandler


@dataclass(frozen=True)
class StreamMethod:
    """Any method with a stream on either side; a server-stream method gets its one request by message()."""

    opener: StreamOpener


Methods = Mapping[str, UnaryMethod | StreamMethod]
"""From path, such as "/etcdserverpb.KV/Put", to method."""
