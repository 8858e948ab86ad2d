"""A session: calls of one client, one after another, and the history they leave.

    answer = yield session.call(request)            until it is answered or the client's patience ends
    yield session.sleep(seconds)                    until then

A session talks to one member and turns to another when that one is gone or says no.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random
from typing import Any, Protocol

from kvstore.pb.etcdserverpb_pb2 import (
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)
from tests.checkers.history import FOREVER, History, Operation
from tests.whole_member.calls import UNKNOWN, Answer, Listener, StreamHere
from tests.whole_member.options import Options
from tests.whole_member.world import World

PATHS: dict[type[Any], tuple[str, type[Any]]] = {
    RangeRequest: ("/etcdserverpb.KV/Range", RangeResponse),
    PutRequest: ("/etcdserverpb.KV/Put", PutResponse),
    DeleteRangeRequest: ("/etcdserverpb.KV/DeleteRange", DeleteRangeResponse),
    TxnRequest: ("/etcdserverpb.KV/Txn", TxnResponse),
    CompactionRequest: ("/etcdserverpb.KV/Compact", CompactionResponse),
    LeaseGrantRequest: ("/etcdserverpb.Lease/LeaseGrant", LeaseGrantResponse),
    LeaseRevokeRequest: ("/etcdserverpb.Lease/LeaseRevoke", LeaseRevokeResponse),
    LeaseTimeToLiveRequest: ("/etcdserverpb.Lease/LeaseTimeToLive", LeaseTimeToLiveResponse),
    LeaseLeasesRequest: ("/etcdserverpb.Lease/LeaseLeases", LeaseLeasesResponse),
}

Waiting = Callable[[Callable[[Any], None]], None]
"""Starts something that ends by calling its argument once."""
Script = Generator[Waiting, Any, None]


class Servers(Protocol):
    """The members as clients reach them."""

    count: int

    def unary(
        self, member: int, path: str, data: bytes, answered: Callable[[Answer], None]
    ) -> Callable[[], None]:
        """Starts a call; what it returns cancels it."""

    def stream(
        self, member: int, path: str, listener: Listener, *, read_s: float, scale: int
    ) -> StreamHere | None:
        """None where nobody listens."""


class Settling(Protocol):
    """A stream that lives on when its session has ended."""

    def settle(self) -> None:
        """Its reader is not slow any more."""

    def complete(self) -> None:
        """What is open now has heard of everything there was."""


class Shared:
    """What all sessions of a run share: the history, and whether it is time to stop."""

    def __init__(self, world: World, options: Options, servers: Servers, history: History) -> None:
        self.world = world
        self.options = options
        self.servers = servers
        self.history = history
        self.stopping = False
        self.known_revision = 1
        self.compacted = 0  # the highest compaction that was answered
        self.values = 0
        self.streams: list[Settling] = []

    def value(self) -> bytes:
        """No two are alike, so what wrote a version can be told from it."""
        self.values += 1
        return b"v%d" % self.values + b"." * self.world.random.randint(0, self.options.value_bytes)


class Session:
    def __init__(self, clients: Shared, name: str) -> None:
        self.clients = clients
        self.name = name
        self.world = clients.world
        self.random: Random = clients.world.random
        self.member = self.random.randint(1, clients.servers.count)

    # Waiting

    def sleep(self, seconds: float) -> Waiting:
        return lambda resume: self.world.at(seconds, lambda: resume(None))

    def think(self) -> Waiting:
        return self.sleep(self.random.expovariate(1 / self.clients.options.think_s))

    def turn_away(self) -> None:
        """To another member."""
        self.member = self.member % self.clients.servers.count + 1

    def call(self, request: Any) -> Waiting:
        """Resumes with the Operation."""
        path, kind = PATHS[type(request)]
        world, clients = self.world, self.clients
        operation = Operation(self.name, world.order(), FOREVER, request, invoked_s=world.now, error=UNKNOWN)
        clients.history.operations.append(operation)
        data = request.SerializeToString()
        patience = self.random.choice((0.3, 1.0, 2.0))

        def start(resume: Callable[[Any], None]) -> None:
            waiting = [resume]

            def end() -> None:
                if waiting:
                    if world.telling:
                        world.tell(f"{self.name} n{self.member} {_told(operation)}")
                    if operation.error not in ("", "Compacted", "KeyNotFound", "LeaseNotFound"):
                        self.turn_away()
                    waiting.pop()(operation)

            def answered(answer: Answer) -> None:
                if not waiting:
                    return
                operation.error = answer.error
                if answer.error == UNKNOWN:
                    end()
                    return
                operation.returned, operation.returned_s = world.order(), world.now
                if not answer.error:
                    operation.response = kind.FromString(answer.message)
                    operation.revision = operation.response.header.revision
                    operation.response.ClearField("header")
                    clients.known_revision = max(clients.known_revision, operation.revision)
                end()

            cancel = clients.servers.unary(self.member, path, data, answered)

            def give_up() -> None:
                if waiting:
                    cancel()
                    end()

            world.at(patience, give_up)

        return start


def _told(operation: Operation) -> str:
    request = " ".join(str(operation.request).split())
    outcome = operation.error or f"{operation.revision} {' '.join(str(operation.response).split())}"
    return f"{type(operation.request).__name__}({request[:200]}) -> {outcome[:200]}"
