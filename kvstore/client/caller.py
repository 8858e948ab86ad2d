"""Channels, and one call with failover: the I/O around endpoints.py (whom to ask) and errors.py (may it be repeated).

A request is handed to a channel only once that channel is connected or is known to be failing, so a request
that finds nobody home is known never to have left. Connections are made on first use and kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc import ChannelConnectivity as State

from kvstore.client.endpoints import Endpoint, EndpointChoice
from kvstore.client.errors import ClientClosed, ClientError, OutcomeUnknown, Unreachable, from_status
from kvstore.client.login import Login
from kvstore.client.methods import AUTHENTICATE, Method
from kvstore.client.relay import Relay
from kvstore.client.tls import Tls, ailment
from kvstore.pb import etcdserverpb_pb2 as pb

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

Metadata = tuple[tuple[str, str], ...]
LEADER_METADATA: Metadata = (("hasleader", "true"),)
PAUSE_FIRST_S = 0.02
PAUSE_LONGEST_S = 0.5
ATTEMPT_SHORTEST_S = 0.5


@dataclass(frozen=True)
class Settings:
    """timeout_s: one operation, retries included. dial_timeout_s: one connection.
    wait_for_endpoints: with every endpoint refusing connections, go on trying until timeout_s (a restart or
    an election then only takes longer); False gives up after each was tried once.
    credentials, or tls, makes TLS of endpoints without a scheme; http:// stays plain, https:// is TLS always.
    keepalive_s: HTTP/2 pings on a connection with calls on it; etcd ends connections that ping below 5 s."""

    timeout_s: float = 5.0
    dial_timeout_s: float = 2.0
    wait_for_endpoints: bool = True
    require_leader: bool = True
    max_message_bytes: int = 2**31 - 1
    keepalive_s: float = 10.0
    keepalive_timeout_s: float = 5.0
    credentials: grpc.ChannelCredentials | None = None
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
        self._channels: dict[Endpoint, grpc.aio.Channel] = {}
        self._relays: dict[Endpoint, Relay] = {}
        self._credentials = settings.credentials
        if settings.tls is not None and self._credentials is None:
            self._credentials = settings.tls.credentials()
        self._stubs: dict[tuple[Endpoint, str], Any] = {}

    async def close(self) -> None:
        self.closed = True
        channels, self._channels = list(self._channels.values()), {}
        self._stubs.clear()
        for channel in channels:
            await channel.close(None)
        relays, self._relays = list(self._relays.values()), {}
        for relay in relays:
            await relay.close()

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
        try:
            return await self._attempt(
                endpoint, method, request, write=write, leader=False, timeout_s=timeout_s
            )
        except Unreachable as error:
            raise await self.explained(error, {endpoint: error}) from None

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
                raise await self.explained(summary(failures), failures)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_LONGEST_S)

    def given_up(self, failures: dict[Endpoint, ClientError]) -> bool:
        """After a whole round: nobody could be reached, and the settings say not to wait for them."""
        return not self.settings.wait_for_endpoints and all(
            isinstance(error, Unreachable) for error in failures.values()
        )

    async def explained(self, error: ClientError, failures: dict[Endpoint, ClientError]) -> ClientError:
        """The error, with what TLS has to do with it where nobody could be reached: the flags are wrong then, and
        grpcio does not tell which."""
        if not isinstance(error, Unreachable):
            return error
        looks = [ailment(each, secure=self.is_secure(each), tls=self.settings.tls) for each in failures]
        found = dict(zip((each.name for each in failures), await asyncio.gather(*looks)))
        if not any(found.values()):
            return error
        reasons = {
            each.name: found[each.name] or reason(problem.message) for each, problem in failures.items()
        }
        return Unreachable(
            "; ".join(f"{name}: {text}" for name, text in reasons.items()), reasons=reasons, by_tls=True
        )

    def is_secure(self, endpoint: Endpoint) -> bool:
        if endpoint.secure is None:
            return self._credentials is not None
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
        stub = self._stubs.get((endpoint, method.path))
        if stub is None:
            stub = self._stubs[endpoint, method.path] = self._channel(endpoint).unary_unary(
                method.path, method.request.SerializeToString, method.response.FromString
            )
        try:
            return cast(
                Response,
                await stub(
                    request,
                    timeout=max(deadline - asyncio.get_running_loop().time(), 0.001),
                    metadata=(
                        *(LEADER_METADATA if leader and self.settings.require_leader else ()),
                        *self._token_metadata(),
                        *metadata,
                    ),
                ),
            )
        except grpc.aio.AioRpcError as failure:
            raise from_status(failure.code(), failure.details(), write=write) from None
        except asyncio.CancelledError:
            if self.closed and not cancelled_from_outside():
                raise (OutcomeUnknown if write else ClientClosed)("the client was closed") from None
            raise

    def open_stream(self, endpoint: Endpoint, method: Method[Request, Response]) -> Any:
        """A two-way call at one endpoint; connect() first."""
        leader = LEADER_METADATA if self.settings.require_leader else ()
        metadata = (*leader, *self._token_metadata()) or None
        return self._channel(endpoint).stream_stream(
            method.path, method.request.SerializeToString, method.response.FromString
        )(metadata=metadata)  # type: ignore[call-arg]

    def open_server_stream(
        self, endpoint: Endpoint, method: Method[Request, Response], request: Request
    ) -> Any:
        """A call with one request and many responses; connect() first."""
        return self._channel(endpoint).unary_stream(
            method.path, method.request.SerializeToString, method.response.FromString
        )(request, metadata=self._token_metadata() or None)

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
        """Afterwards the channel is connected, or failing: then a call on it fails at once, and says why. With a
        user there is a token for it as well. Raises what authenticating does."""
        clock = asyncio.get_running_loop().time
        started = clock()
        await self._dial(endpoint, timeout_s)
        if self._login is not None:
            await self._login.prepare(endpoint, timeout_s - (clock() - started))

    async def _dial(self, endpoint: Endpoint, timeout_s: float) -> None:
        tls = self.settings.tls
        if tls is not None and tls.insecure_skip_verify and self.is_secure(endpoint):
            await self._relay(endpoint, tls)
        channel = self._channel(endpoint)
        state = channel.get_state(try_to_connect=True)
        if state is State.READY:
            return
        limit_s = min(timeout_s, self.settings.dial_timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                while state in (State.IDLE, State.CONNECTING):
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            text = f"no connection to {endpoint.name} within {limit_s:.3g} s"
            raise Unreachable(text, reasons={endpoint.name: text}) from None
        if state is State.SHUTDOWN:
            raise ClientClosed("the client is closed")

    async def _relay(self, endpoint: Endpoint, tls: Tls) -> None:
        if endpoint in self._relays or self.closed:
            return
        host, _, port = endpoint.target.rpartition(":")
        relay = Relay(host.strip("[]"), int(port), tls.context())
        self._relays[endpoint] = relay
        await relay.start()

    def _channel(self, endpoint: Endpoint) -> grpc.aio.Channel:
        if self.closed:
            raise ClientClosed("the client is closed")
        channel = self._channels.get(endpoint)
        if channel is None:
            options = _options(self.settings)
            if endpoint in self._relays:
                channel = grpc.aio.insecure_channel(self._relays[endpoint].target, options)
            elif self.is_secure(endpoint):
                credentials = self._credentials or Tls().credentials()
                channel = grpc.aio.secure_channel(endpoint.target, credentials, options)
            else:
                channel = grpc.aio.insecure_channel(endpoint.target, options)
            self._channels[endpoint] = channel
        return channel


def repeatable(error: ClientError, *, write: bool) -> bool:
    """May the request be sent again, to another endpoint?"""
    return error.elsewhere and (error.definite or not write)


def summary(failures: dict[Endpoint, ClientError]) -> ClientError:
    """The one error to raise for a round in which every endpoint failed: the most telling of them."""
    reached = [error for error in failures.values() if not isinstance(error, Unreachable)]
    if reached:
        return reached[-1]
    reasons = {endpoint.name: reason(error.message) for endpoint, error in failures.items()}
    return Unreachable("; ".join(f"{name}: {text}" for name, text in reasons.items()), reasons=reasons)


def reason(text: str) -> str:
    """grpcio's words about a failed connection, without its own preamble and address."""
    _, found, rest = text.partition("last error: ")
    words = (rest if found else text).split(": ")
    kept = [word for word in words if not word.isupper() and not word.startswith(("ipv4:", "ipv6:", "unix:"))]
    return ": ".join(kept).removeprefix("Failed to connect to remote host: ") or text


def cancelled_from_outside() -> bool:
    """Tells the cancellation of the running task from that of a call it waits for; grpcio raises the same."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _options(settings: Settings) -> Sequence[tuple[str, Any]]:
    return (
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.min_reconnect_backoff_ms", int(settings.dial_timeout_s * 1000)),  # also its connection timeout
        ("grpc.keepalive_time_ms", int(settings.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.http2.max_pings_without_data", 0),  # an idle watch is just what needs them
        # Retries are ours to decide: no policy from DNS, and no failures shared with another client's channels.
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    )
