"""The guard at the door: every call of every service goes by it, and costs one look while authentication is off.

    call ─► wrap()ped method ─┬─ off: the service itself
                              └─ on: who is it (a token, or a certificate)? may they (access.py)? then the service
    write ─► sign() ─► the log ─► asked again there, by every member alike (state/authorize.py)

What is asked here is asked of this member's state as it is, to refuse early. What counts is asked again where
state is settled: of a write at its place in the log, of a linearizable read when it is answered, of a stream that
is open whenever users or permissions changed.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable

from google.protobuf.message import DecodeError, Message

from kvstore import errors
from kvstore.api.access import REQUESTS, RULES, Rule
from kvstore.api.errors import fail, status_of
from kvstore.api.tokens import TokenAhead, Tokens
from kvstore.commands import Kind
from kvstore.pb.internal_pb2 import AuthorizedCommand
from kvstore.replication.driver import Driver
from kvstore.rpc import (
    Methods,
    Status,
    StreamCall,
    StreamHandler,
    StreamMethod,
    StreamOpener,
    UnaryCall,
    UnaryHandler,
    UnaryMethod,
)
from kvstore.state.auth import Access, Identity
from kvstore.state.authorize import authorize
from kvstore.state.machine import StateMachine

Call = UnaryCall | StreamCall
EARLY_MESSAGES_MAX = 1000
GATEWAY = "grpcgateway-accept"
"""Metadata of calls that came through a gateway: a certificate on their connection is the gateway's."""
BEARER = "Bearer "


class Guard:
    def __init__(
        self, machine: StateMachine, driver: Driver, tokens: Tokens, *, certificates: bool = False
    ) -> None:
        """certificates: the common name of a client's certificate is its user, where it shows no token."""
        self.tokens = tokens
        self.changed: list[Callable[[], None]] = []
        """Called when users, roles or permissions changed, or whether they are asked for."""
        self._machine = machine
        self._auth = machine.auth
        self._driver = driver
        self._certificates = certificates
        self._numbers = itertools.count()
        self._open: weakref.WeakValueDictionary[int, GuardedStream] = weakref.WeakValueDictionary()
        machine.on_auth = self._auth_changed

    @property
    def enabled(self) -> bool:
        return self._auth.enabled

    # What services ask, with authentication on

    def identity(self, call: Call) -> Identity:
        """Who the call is from. Raises NoUserName, InvalidAuthToken, AuthStoreOld, PermissionDenied."""
        metadata = call.metadata
        token = metadata.get("token")
        if token is None:
            token = metadata.get("authorization")
        if token is not None:
            return self.tokens.identity(token.removeprefix(BEARER))
        name = call.common_name
        if not name or not self._certificates or GATEWAY in metadata:
            raise errors.NoUserName
        identity = Identity(name, self._auth.revision)
        if not self._auth.holds(identity):
            raise errors.PermissionDenied
        return identity

    def check(self, call: Call, request: Message) -> None:
        """Raises what identity() does, and PermissionDenied."""
        self.check_identity(self.identity(call), request)

    def check_identity(self, identity: Identity, request: Message) -> None:
        """For a stream, whose user was found out when it began."""
        authorize(self.access(identity), self._machine.lessor, request)

    def check_root(self, call: Call) -> None:
        if not self.access(self.identity(call)).is_root:
            raise errors.PermissionDenied

    def sign(self, call: Call, kind: Kind, payload: bytes) -> tuple[Kind, bytes]:
        """The same command in the caller's name, as the log takes it. Raises what identity() does."""
        return self.sign_as(self.identity(call), kind, payload)

    def sign_as(self, identity: Identity, kind: Kind, payload: bytes) -> tuple[Kind, bytes]:
        command = AuthorizedCommand(
            user=identity.user, revision=identity.revision, kind=kind, payload=payload
        )
        return Kind.AUTHORIZED, command.SerializeToString()

    def access(self, identity: Identity) -> Access:
        """What they may do. Raises InvalidAuthToken where they are not that user any more."""
        access = self._auth.access(identity.user)
        if access is None or not self._auth.holds(identity):
            raise errors.InvalidAuthToken
        return access

    # At the door

    def wrap(self, methods: Methods) -> Methods:
        """The same methods, each behind its rule."""
        wrapped: dict[str, UnaryMethod | StreamMethod] = {}
        for path, method in methods.items():
            if RULES.get(path) is Rule.OPEN:
                wrapped[path] = method
            elif isinstance(method, UnaryMethod):
                wrapped[path] = UnaryMethod(self._unary(path, method.handler))
            else:
                wrapped[path] = StreamMethod(self._stream(path, method.opener))
        return wrapped

    def _unary(self, path: str, handler: UnaryHandler) -> UnaryHandler:
        auth = self._auth

        def guarded(call: UnaryCall, data: bytes) -> None:
            if auth.enabled:
                self._admit(path, handler, call, data)
            else:
                handler(call, data)

        return guarded

    def _admit(
        self, path: str, handler: UnaryHandler, call: UnaryCall, data: bytes, *, waited: bool = False
    ) -> None:
        try:
            self.check_path(path, self.identity(call), data)
        except TokenAhead as ahead:
            if waited:
                fail(call, ahead)
            else:
                self._catch_up(call, lambda: self._admit(path, handler, call, data, waited=True))
        except errors.StoreError as problem:
            fail(call, problem)
        except DecodeError as malformed:
            call.fail(Status.INTERNAL, f"grpc: error unmarshalling request: {malformed}")
        else:
            handler(call, data)

    def check_path(self, path: str, identity: Identity, data: bytes) -> None:
        """Asks the path's rule. Raises PermissionDenied, DecodeError."""
        rule = RULES.get(path)
        access = self.access(identity)
        if rule is Rule.USER:
            return
        if rule is Rule.ROOT:
            if not access.is_root:
                raise errors.PermissionDenied
        elif rule is Rule.REQUEST:
            authorize(access, self._machine.lessor, REQUESTS[path].FromString(data))
        else:
            raise errors.PermissionDenied

    def _stream(self, path: str, opener: StreamOpener) -> StreamOpener:
        auth, by_message = self._auth, RULES.get(path) is Rule.MESSAGE

        def guarded(call: StreamCall) -> StreamHandler:
            if not by_message:
                number = next(self._numbers)
                stream = self._open[number] = GuardedStream(self, path, call, opener)
                return stream
            if auth.enabled and self._is_ahead(call):
                return LateStream(self, call, opener)
            return opener(call)

        return guarded

    def _is_ahead(self, call: StreamCall) -> bool:
        try:
            self.identity(call)
        except TokenAhead:
            return True
        except errors.StoreError:
            return False  # the service says so, in its own way
        return False

    def _catch_up(self, call: UnaryCall, then: Callable[[], None]) -> None:
        """Once this member has come to what others had acknowledged: the token may be among it."""

        def ready(problem: errors.StoreError | None) -> None:
            if problem is not None:
                fail(call, problem)
            else:
                then()

        self._driver.read(ready)

    def read(self, done: Callable[[errors.StoreError | None], None]) -> None:
        self._driver.read(done)

    def _auth_changed(self) -> None:
        for _, stream in sorted(self._open.items()):
            stream.check_again()
        for listener in self.changed:
            listener()


class GuardedStream:
    """A stream of one request, behind its path's rule. It is opened for the service when the request may pass,
    and cut off when it might not any more."""

    def __init__(self, guard: Guard, path: str, call: StreamCall, opener: StreamOpener) -> None:
        self._guard = guard
        self._path = path
        self._call = call
        self._opener = opener
        self._handler: StreamHandler | None = None
        self._request = b""
        self._identity: Identity | None = None
        self._half_closed = False
        self._ended = False
        self._waited = False

    def message(self, data: bytes) -> None:
        if self._ended:
            return
        self._request = data
        if self._guard.enabled and not self._permitted():
            return
        if self._handler is None:
            self._handler = self._opener(self._call)
        self._handler.message(data)
        if self._half_closed:
            self._handler.half_closed()

    def _permitted(self) -> bool:
        """False: it has failed, or waits for this member to catch up with its token. Who it is from is found
        out once: it stays theirs for as long as it is open."""
        try:
            if self._identity is None:
                self._identity = self._guard.identity(self._call)
            self._guard.check_path(self._path, self._identity, self._request)
        except TokenAhead as ahead:
            if self._waited:
                self._end(*status_of(ahead))
            else:
                self._waited = True
                self._guard.read(self._caught_up)
            return False
        except errors.StoreError as problem:
            self._end(*status_of(problem))
            return False
        except DecodeError as malformed:
            self._end(Status.INTERNAL, f"grpc: error unmarshalling request: {malformed}")
            return False
        return True

    def _caught_up(self, problem: errors.StoreError | None) -> None:
        if problem is not None and not self._ended:
            self._end(*status_of(problem))
        elif self._handler is None:
            self.message(self._request)
        else:
            self.check_again()

    def check_again(self) -> None:
        """Permissions changed, and it may be one that lasts."""
        if self._handler is not None and not self._ended and self._guard.enabled:
            self._permitted()

    def _end(self, status: int, text: str) -> None:
        self._ended = True
        if self._handler is not None:
            self._handler.cancelled()
        self._call.finish(status, text)

    def half_closed(self) -> None:
        self._half_closed = True
        if self._handler is not None and not self._ended:
            self._handler.half_closed()

    def cancelled(self) -> None:
        if not self._ended:
            self._ended = True
            if self._handler is not None:
                self._handler.cancelled()

    def drained(self) -> None:
        if self._handler is not None and not self._ended:
            self._handler.drained()


class LateStream:
    """A stream whose token this member has yet to hear of: what comes on it is kept until it has."""

    def __init__(self, guard: Guard, call: StreamCall, opener: StreamOpener) -> None:
        self._call = call
        self._opener = opener
        self._handler: StreamHandler | None = None
        self._early: list[bytes] = []
        self._half_closed = False
        self._ended = False
        guard.read(self._caught_up)

    def _caught_up(self, problem: errors.StoreError | None) -> None:
        if self._ended:
            return
        if problem is not None:
            self._ended = True
            self._call.finish(*status_of(problem))
            return
        handler = self._handler = self._opener(self._call)
        for data in self._early:
            handler.message(data)
        self._early.clear()
        if self._half_closed:
            handler.half_closed()

    def message(self, data: bytes) -> None:
        if self._handler is not None:
            self._handler.message(data)
        elif not self._ended:
            self._early.append(data)
            if len(self._early) > EARLY_MESSAGES_MAX:
                self._ended = True
                self._call.finish(*status_of(errors.TooManyRequests()))

    def half_closed(self) -> None:
        self._half_closed = True
        if self._handler is not None:
            self._handler.half_closed()

    def cancelled(self) -> None:
        self._ended = True
        if self._handler is not None:
            self._handler.cancelled()

    def drained(self) -> None:
        if self._handler is not None:
            self._handler.drained()
