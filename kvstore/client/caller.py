"""Channels, and one call with failover: the I/O around endpoints.py (whom to ask) and errors.py (may it be repeated).

A request is handed to a channel only once that channel is connected, so a request that finds nobody home is known
never to have left. Connections are made on first use and kept.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from kvstore.client.channel import Channel, Metadata
from kvstore.client.endpoints import Endpoint, EndpointChoice
from kvstore.client.errors import (
    ClientClosed,
    ClientError,
    OutcomeUnknown,
    RequestTooLarge,
    Unreachable,
    from_ending,
)
from kvstore.client.login import Login
from kvstore.client.methods import AUTHENTICATE, Method
from kvstore.client.replies import Fate
from kvstore.client.stream import Stream
from kvstore.client.tls import Tls
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.rpc import Status

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

LEADER_METADATA: Metadata = (("hasleader", "true"),)
PAUSE_FIRST_S = 0.02
PAUSE_LONGEST_S = 0.5
ATTEMPT_SHORTEST_S = 0.5


@dataclass(frozen=True)
class Settings:
    """timeout_s: one operation, retries included. dial_timeout_s: one connection.
    wait_for_endpoints: with every endpoint refusing connections, go on trying until timeout_s (a restart or
    an election then only takes longer); False gives up after each was tried once.
    tls makes TLS of endpoints without a scheme; http:// stays plain, https:// is TLS always.
    keepalive_s: HTTP/2 pings on a connection with calls on it; etcd ends connections that ping below 5 s."""

    timeout_s: float = 5.0
    dial_timeout_s: float = 2.0
    wait_for_endpoints: bool = True
    require_leader: bool = True
    max_message_bytes: int = 2**31 - 1
    keepalive_s: float = 10.0
    keepalive_timeout_s: float = 5.0
    tls: Tls | None = None
    user: str = ""
    password: str = ""


class Caller:
    def __init__(self, choice: EndpointChoice, settings: Settings) -> None:
        self.choice = choice
        self.settings = settings
        self.closed = False
        self._login: Login | None = None
        if settings.user:
            self._login = Login(settings.user, settings.password, self._authenticate)
        self._channels: dict[Endpoint, Channel] = {}
        self._context: ssl.SSLContext | None = settings.tls.context() if settings.tls is not None else None

    async def close(self) -> None:
        self.closed = True
        channels, self._channels = list(self._channels.values()), {}
        await asyncio.gather(*(channel.close() for channel in channels))

    async def read(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        leader: bool = True,
        timeout_s: float | None = None,
    ) -> Response:
        """Repeats the call at other endpoints until one answers or the time is up.
        leader: have a member without a leader refuse at once; False for what a lone member can answer."""
        return await self._call(method, request, write=False, leader=leader, timeout_s=timeout_s)

    async def write(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float | None = None,
        metadata: Metadata = (),
    ) -> Response:
        """Repeats the call only while it is certain that no endpoint took it. Raises OutcomeUnknown else."""
        return await self._call(
            method, request, write=True, leader=True, timeout_s=timeout_s, metadata=metadata
        )

    async def at(
        self,
        endpoint: Endpoint,
        method: Method[Request, Response],
        request: Request,
        *,
        write: bool = False,
        timeout_s: float | None = None,
    ) -> Response:
        """One attempt at one endpoint, which need not be one of the client's."""
        timeout_s = self.settings.timeout_s if timeout_s is None else timeout_s
        return await self._attempt(endpoint, method, request, write=write, leader=False, timeout_s=timeout_s)

    async def _call(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        write: bool,
        leader: bool,
        timeout_s: float | None,
        metadata: Metadata = (),
    ) -> Response:
        clock = asyncio.get_running_loop().time
        deadline = clock() + (self.settings.timeout_s if timeout_s is None else timeout_s)
        pause_s = PAUSE_FIRST_S
        while True:
            failures: dict[Endpoint, ClientError] = {}
            round_ = self.choice.order(clock())
            for position, endpoint in enumerate(round_):
                left_s = deadline - clock()
                if left_s <= 0 and failures:
                    break
                share = 1.0 if write or position == len(round_) - 1 else 0.5
                attempt_s = min(left_s, max(left_s * share, ATTEMPT_SHORTEST_S))
                try:
                    response = await self._attempt(
                        endpoint,
                        method,
                        request,
                        write=write,
                        leader=leader,
                        timeout_s=attempt_s,
                        metadata=metadata,
                    )
                except ClientError as error:
                    self.note(endpoint, error)
                    if not repeatable(error, write=write):
                        raise
                    failures[endpoint] = error
                else:
                    self.choice.answered(endpoint)
                    return response
            if self.given_up(failures) or clock() + pause_s >= deadline:
                raise summary(failures)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_LONGEST_S)

    def given_up(self, failures: dict[Endpoint, ClientError]) -> bool:
        """After a whole round: nobody could be reached, and the settings say not to wait for them."""
        return not self.settings.wait_for_endpoints and all(
            isinstance(error, Unreachable) for error in failures.values()
        )

    def is_secure(self, endpoint: Endpoint) -> bool:
        if endpoint.secure is None:
            return self.settings.tls is not None
        return endpoint.secure

    def note(self, endpoint: Endpoint, error: ClientError) -> None:
        """Remembers what a failed attempt says about its endpoint."""
        if error.elsewhere or isinstance(error, OutcomeUnknown):
            self.choice.failed(endpoint, asyncio.get_running_loop().time())
        elif not isinstance(error, ClientClosed):
            self.choice.answered(endpoint)

    async def _attempt(
        self,
        endpoint: Endpoint,
        method: Method[Request, Response],
        request: Request,
        *,
        write: bool,
        leader: bool,
        timeout_s: float,
        metadata: Metadata = (),
    ) -> Response:
        """One call, with another token once more where the first was refused: then nothing was done."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        await self.connect(endpoint, timeout_s)
        token = self.token
        try:
            return await self._send(
                endpoint, method, request, write=write, leader=leader, deadline=deadline, metadata=metadata
            )
        except ClientError as error:
            if not await self.renewed(endpoint, error, token, deadline - clock()):
                raise
        return await self._send(
            endpoint, method, request, write=write, leader=leader, deadline=deadline, metadata=metadata
        )

    async def _send(
        self,
        endpoint: Endpoint,
        method: Method[Request, Response],
        request: Request,
        *,
        write: bool,
        leader: bool,
        deadline: float,
        metadata: Metadata = (),
    ) -> Response:
        message = request.SerializeToString()
        limit = self.settings.max_message_bytes
        if len(message) > limit:
            text = f"CLIENT: Sent message larger than max ({len(message)} vs. {limit})"
            raise RequestTooLarge(text, code=Status.RESOURCE_EXHAUSTED)
        shown = (
            *(LEADER_METADATA if leader and self.settings.require_leader else ()),
            *self._token_metadata(),
            *metadata,
        )
        channel, clock = self._channel(endpoint), asyncio.get_running_loop().time
        ending, answer = await channel.unary(method.path, shown, message, deadline)
        if ending.fate is not Fate.SENT and clock() < deadline:
            # The server did not look at it, or never got it: once more, over a new connection if need be.
            await channel.connect(deadline - clock())
            ending, answer = await channel.unary(method.path, shown, message, deadline)
        if ending.status is Status.OK:
            try:
                return method.response.FromString(answer)
            except DecodeError as problem:
                text = f"the answer cannot be read: {problem}"
                raise (OutcomeUnknown if write else ClientError)(text, code=Status.INTERNAL) from None
        if self.closed:
            is_unknown = write and ending.fate is Fate.SENT
            raise (OutcomeUnknown if is_unknown else ClientClosed)("the client was closed")
        raise from_ending(ending, write=write)

    def open_stream(self, endpoint: Endpoint, method: Method[Request, Response]) -> Stream[Request, Response]:
        """A two-way call at one endpoint; connect() first. Raises Unreachable where that did not last."""
        leader = LEADER_METADATA if self.settings.require_leader else ()
        return Stream(endpoint, self._channel(endpoint), method, (*leader, *self._token_metadata()))

    def open_server_stream(
        self, endpoint: Endpoint, method: Method[Request, Response], request: Request
    ) -> Stream[Request, Response]:
        """A call with one request and many responses; connect() first. Raises Unreachable where that did not last."""
        return Stream(endpoint, self._channel(endpoint), method, self._token_metadata(), request)

    # The user

    @property
    def token(self) -> str:
        return "" if self._login is None else self._login.token

    async def renewed(self, endpoint: Endpoint, error: ClientError, token: str, timeout_s: float) -> bool:
        """Whether a call that showed this token failed because of it, and there is another one now. Raises
        AuthenticationFailed, and what any call does."""
        if self._login is None:
            return False
        return await self._login.renew(endpoint, error, token, timeout_s)

    def _token_metadata(self) -> Metadata:
        return (("token", self._login.token),) if self._login is not None and self._login.token else ()

    async def _authenticate(
        self, endpoint: Endpoint, request: pb.AuthenticateRequest, timeout_s: float
    ) -> pb.AuthenticateResponse:
        deadline = asyncio.get_running_loop().time() + timeout_s
        return await self._send(endpoint, AUTHENTICATE, request, write=False, leader=True, deadline=deadline)

    # Connections

    async def connect(self, endpoint: Endpoint, timeout_s: float) -> None:
        """Afterwards the channel is connected, and with a user there is a token for it. Raises Unreachable, and what
        authenticating does."""
        clock = asyncio.get_running_loop().time
        started = clock()
        await self._channel(endpoint).connect(timeout_s)
        if self._login is not None:
            await self._login.prepare(endpoint, timeout_s - (clock() - started))

    def _channel(self, endpoint: Endpoint) -> Channel:
        if self.closed:
            raise ClientClosed("the client is closed")
        channel = self._channels.get(endpoint)
        if channel is None:
            context: ssl.SSLContext | None = None
            if self.is_secure(endpoint):
                context = self._context = self._context or Tls().context()
            channel = self._channels[endpoint] = Channel(endpoint, context, self.settings)
        return channel


def repeatable(error: ClientError, *, write: bool) -> bool:
    """May the request be sent again, to another endpoint?"""
    return error.elsewhere and (error.definite or not write)


def summary(failures: dict[Endpoint, ClientError]) -> ClientError:
    """The one error to raise for a round in which every endpoint failed: the most telling of them."""
    reached = [error for error in failures.values() if not isinstance(error, Unreachable)]
    if reached:
        return reached[-1]
    found = [error for error in failures.values() if isinstance(error, Unreachable)]
    reasons = {endpoint.name: error.message for endpoint, error in failures.items()}
    text = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return Unreachable(text, reasons=reasons, by_tls=any(error.by_tls for error in found))
