"""Services behind the guard, without a network and without a log: what a caller hears first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import SimpleNamespace
from typing import Any, Literal, cast

from google.protobuf.message import Message

from kvstore import errors
from kvstore.api.access import RULES
from kvstore.api.context import Context, simple_tokens
from kvstore.api.lease import LeaseService
from kvstore.api.readiness import ReadinessService
from kvstore.api.watch import WatchService
from kvstore.commands import Kind
from kvstore.config import load
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.authpb_pb2 import Permission
from kvstore.pb.internal_pb2 import TokenGrant
from kvstore.replication.driver import Driver
from kvstore.rpc import Methods, StreamCall, StreamHandler, StreamMethod, UnaryCall, UnaryMethod
from tests.unit.state.harness import Replica

User = Literal["nobody", "root", "reader", "writer", "both", "idle", "forged"]
STREAMS = ("RangeStream", "Snapshot", "Observe", "Health/Watch", "Info")


class Call:
    """kvstore.rpc.UnaryCall and StreamCall at once. told: what it was answered, first of all."""

    deadline: float | None = None
    buffered_bytes = 0

    def __init__(self, metadata: Mapping[str, str], common_name: str = "") -> None:
        self.metadata = metadata
        self.common_name = common_name
        self.cancelled = False
        self.sent: list[bytes] = []
        self.ended: tuple[int, str] | None = None

    def when_cancelled(self, tell: Callable[[], None]) -> None:
        self.tell_cancelled = tell

    congested = False

    def when_room(self, go_on: Callable[[], None]) -> None:
        go_on()

    def reply(self, message: bytes) -> None:
        self.sent.append(message)
        self.finish()

    def fail(self, status: int, message: str) -> None:
        self.finish(status, message)

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def finish(self, status: int = 0, message: str = "") -> None:
        assert self.ended is None, "ended twice"
        self.ended = status, message


class Echo:
    """A service's half of a stream that answers with what it is told."""

    def __init__(self, call: StreamCall) -> None:
        self.call = call
        self.heard: list[str] = []

    def message(self, data: bytes) -> None:
        self.call.send(data)

    def half_closed(self) -> None:
        self.heard.append("half closed")

    def cancelled(self) -> None:
        self.heard.append("cancelled")

    def drained(self) -> None:
        self.heard.append("drained")


class Door:
    """reads and writes permit [a, c); the users have the roles of their names, and tokens."""

    def __init__(self, directory: str, random: Random, *, enabled: bool = True) -> None:
        self.now = 0.0
        self.reads: list[Callable[[errors.StoreError | None], None]] = []
        self.catching_up = True  # a read index is answered at once
        self.proposed: list[tuple[int, bytes]] = []
        self.replica = Replica(directory)
        self._people()
        driver = SimpleNamespace(
            node=SimpleNamespace(term=1, leader_id=1),
            leader_id=1,
            read=self._read,
            propose=lambda kind, payload, done: self.proposed.append((kind, payload)),
        )
        machine = self.replica.machine
        config = load([], {})
        self.context = Context(
            config=config,
            driver=cast(Driver, driver),
            machine=machine,
            cluster_id=1,
            member_id=1,
            now=lambda: self.now,
            call_later=lambda delay, call: None,
            tokens=simple_tokens(config, machine, lambda: self.now, random),
        )
        self.guard = self.context.guard
        keeper: Any = SimpleNamespace(renew=lambda lease_id, done: done(1000, None))
        self.watches = WatchService(self.context, random)
        leases = LeaseService(self.context, keeper, random).methods()
        self.echoes: list[Echo] = []
        services: dict[str, UnaryMethod | StreamMethod] = {
            path: StreamMethod(self._echo)
            if path.endswith(STREAMS)
            else UnaryMethod(lambda call, data: call.reply(data))
            for path in (*RULES, "/etcdserverpb.KV/Forgotten")
        }
        services.update(self.watches.methods())
        services.update(ReadinessService(self.context, keeper, random).methods())
        services["/etcdserverpb.Lease/LeaseKeepAlive"] = leases["/etcdserverpb.Lease/LeaseKeepAlive"]
        self.methods: Methods = self.guard.wrap(services)
        if enabled:
            self.replica.do(Kind.AUTH_ENABLE, pb.AuthEnableRequest())
        self.tokens = {name: self.token(name) for name in machine.auth.users} if enabled else {}
        machine.turn()

    def _people(self) -> None:
        do = self.replica.do
        for role, kind in (("reads", Permission.READ), ("writes", Permission.WRITE)):
            do(Kind.ROLE_ADD, pb.AuthRoleAddRequest(name=role))
            keys = Permission(permType=kind, key=b"a", range_end=b"c")
            do(Kind.ROLE_GRANT_PERMISSION, pb.AuthRoleGrantPermissionRequest(name=role, perm=keys))
        people = {"root": "root", "reader": "reads", "writer": "writes", "both": "reads writes", "idle": ""}
        for name, roles in people.items():
            do(Kind.USER_ADD, pb.AuthUserAddRequest(name=name))
            for role in roles.split():
                do(Kind.USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest(user=name, role=role))
        self.replica.grant(5)
        self.replica.put(b"a", b"1", lease=5)

    def token(self, name: str) -> str:
        auth = self.replica.machine.auth
        before = set(auth.tokens)
        grant = TokenGrant(user=name, revision=auth.revision, letters=name)
        self.replica.do(Kind.TOKEN_GRANT, grant)
        (token,) = set(auth.tokens) - before
        return token

    def _read(self, done: Callable[[errors.StoreError | None], None]) -> None:
        if self.catching_up:
            done(None)
        else:
            self.reads.append(done)

    def _echo(self, call: StreamCall) -> StreamHandler:
        self.echoes.append(Echo(call))
        return self.echoes[-1]

    def metadata(self, user: str) -> dict[str, str]:
        if user == "nobody":
            return {}
        return {"token": self.tokens.get(user, "forged.1")}

    def call(self, user: User, path: str, request: Message) -> str:
        """What it is refused with; "" where the service is reached."""
        self.proposed.clear()
        call = self.begin(self.metadata(user), path, request)
        if call.ended is not None and call.ended[0]:
            return call.ended[1]
        assert call.sent or self.proposed, "neither answered nor refused"
        if path == "/etcdserverpb.Watch/Watch":
            response = pb.WatchResponse.FromString(call.sent[0])
            return response.cancel_reason.partition(" desc = ")[2]
        return ""

    def begin(self, metadata: Mapping[str, str], path: str, request: Message, common_name: str = "") -> Call:
        call = Call(metadata, common_name)
        method = self.methods[path]
        if isinstance(method, UnaryMethod):
            method.handler(cast(UnaryCall, call), request.SerializeToString())
        else:
            self.handler = method.opener(cast(StreamCall, call))
            self.handler.message(request.SerializeToString())
        return call
