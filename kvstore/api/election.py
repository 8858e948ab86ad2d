"""v3electionpb.Election: whoever has the turn (turns.py) leads, and its key's value is what it has to say."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError

from kvstore import errors
from kvstore.api.context import Context, parse
from kvstore.api.errors import fail, status_of
from kvstore.api.turns import (
    Lookout,
    Wish,
    below,
    created_at,
    grant_session,
    leave,
    oldest,
    prefix_of,
    put_op,
    refusing,
)
from kvstore.commands import Kind
from kvstore.pb.etcdserverpb_pb2 import RangeResponse, TxnRequest, TxnResponse, WatchResponse
from kvstore.pb.mvccpb_pb2 import Event, KeyValue
from kvstore.pb.v3electionpb_pb2 import (
    CampaignRequest,
    CampaignResponse,
    LeaderKey,
    LeaderRequest,
    LeaderResponse,
    ProclaimRequest,
    ResignRequest,
)
from kvstore.replication.outbox import Outcome
from kvstore.rpc import Methods, Status, StreamCall, StreamMethod, UnaryCall, UnaryMethod
from kvstore.state.space import PUT_COST
from kvstore.state.watch_hub import Watcher

NOT_LEADER, NO_LEADER = "election: not leader", "election: no leader"
NO_LEADER_KEY = '"leader" field must be provided'
BUFFER_BYTES_MAX = 1 << 20


class ElectionService:
    def __init__(self, context: Context, new_lease_id: Callable[[], int]) -> None:
        self._context = context
        self._new_lease_id = new_lease_id

    def methods(self) -> Methods:
        path = "/v3electionpb.Election/"
        return {
            path + "Campaign": UnaryMethod(self.campaign),
            path + "Proclaim": UnaryMethod(self.proclaim),
            path + "Leader": UnaryMethod(self.leader),
            path + "Observe": StreamMethod(lambda call: ObserveStream(self._context, call)),
            path + "Resign": UnaryMethod(self.resign),
        }

    def campaign(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, CampaignRequest, data)
        if request is None or not self._context.has_leader(call):
            return

        def granted(wish: Wish) -> None:
            key = LeaderKey(name=request.name, key=wish.key, rev=wish.revision, lease=wish.lease_id)
            if wish.value_before not in (None, request.value):
                self._proclaim(call, key, request.value, lambda revision: answer(wish.joined_at, key))
            else:
                answer(wish.joined_at, key)

        def answer(revision: int, key: LeaderKey) -> None:
            reply = CampaignResponse(leader=key).SerializeToString()
            call.reply(self._context.header(revision) + reply)

        Wish(
            self._context,
            call,
            request.name,
            request.lease,
            request.value,
            new_lease_id=self._new_lease_id,
            granted=granted,
            refused=refusing(call, "election"),
        ).begin()

    def proclaim(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, ProclaimRequest, data)
        if request is None or not self._is_named(call, request):
            return
        context, leader = self._context, request.leader

        def proclaim() -> None:
            self._proclaim(call, leader, request.value, lambda revision: call.reply(context.header(revision)))

        if leader.lease:
            proclaim()
            return
        leader.lease = self._new_lease_id()  # on none, the key would lead for ever
        grant_session(context, call, leader.lease, proclaim, lambda problem: fail(call, problem))

    def _proclaim(self, call: UnaryCall, key: LeaderKey, value: bytes, then: Callable[[int], None]) -> None:
        try:
            self._context.machine.space.admit(PUT_COST + len(key.key) + len(value))
        except errors.NoSpace as problem:
            fail(call, problem)
            return
        request = TxnRequest(
            compare=[created_at(key.key, key.rev)], success=[put_op(key.key, value, key.lease)]
        )

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, errors.StoreError):
                fail(call, outcome)
            elif not TxnResponse.FromString(outcome[1]).succeeded:
                call.fail(Status.UNKNOWN, NOT_LEADER)
            else:
                then(outcome[0])

        self._context.propose(call, Kind.TXN, request.SerializeToString(), done)

    def resign(self, call: UnaryCall, data: bytes) -> None:
        """Whoever does not lead any more has nothing to resign, and that is well."""
        request = parse(call, ResignRequest, data)
        if request is None or not self._is_named(call, request):
            return

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, errors.StoreError):
                fail(call, outcome)
            else:
                call.reply(self._context.header(outcome[0]))

        leave(self._context, call, request.leader.key, request.leader.rev, done)

    def _is_named(self, call: UnaryCall, request: ProclaimRequest | ResignRequest) -> bool:
        if not self._context.has_leader(call):
            return False
        if not request.HasField("leader"):
            call.fail(Status.UNKNOWN, NO_LEADER_KEY)
        elif not request.leader.key:
            fail(call, errors.EmptyKey())
        else:
            return True
        return False

    def leader(self, call: UnaryCall, data: bytes) -> None:
        request, context = parse(call, LeaderRequest, data), self._context
        if request is None or not context.has_leader(call):
            return

        def ready(problem: errors.StoreError | None) -> None:
            if problem is not None:
                fail(call, problem)
                return
            try:
                if context.auth.enabled:
                    context.guard.check(call, request)
            except errors.StoreError as refusal:
                fail(call, refusal)
                return
            revision, body = context.machine.range(oldest(prefix_of(request.name)))
            found = RangeResponse.FromString(body).kvs
            if found:
                call.reply(context.header(revision) + LeaderResponse(kv=found[0]).SerializeToString())
            else:
                call.fail(Status.UNKNOWN, NO_LEADER)

        context.driver.read(ready)


class ObserveStream(Lookout):
    """Who leads, now and whenever that or what it says changes, without end.

    look ─► the oldest key, or the first that is put ─► told, and watched until it is deleted ─► look
    """

    def __init__(self, context: Context, call: StreamCall) -> None:
        super().__init__(context)
        self._call = call
        self._prefix = b""
        self._leader = b""  # its key; b"" while there is none
        self._ended = False

    def message(self, data: bytes) -> None:
        try:
            self._prefix = prefix_of(LeaderRequest.FromString(data).name)
        except DecodeError as problem:
            self._finish(Status.INTERNAL, f"grpc: error unmarshalling request: {problem}")
            return
        self._context.driver.read(self._begin)

    def _begin(self, problem: errors.StoreError | None) -> None:
        if problem is not None:
            self._finish(*status_of(problem))
        else:
            self._look()

    def half_closed(self) -> None:
        """Its one request has come: it goes on listening."""

    def cancelled(self) -> None:
        self._ended = True
        self._stop_watching()

    def drained(self) -> None:
        if self._watcher is not None:
            self._context.machine.hub.resume(self._watcher)

    def _look(self) -> None:
        if self._ended:
            return
        machine = self._context.machine
        revision, body = machine.range(oldest(self._prefix))
        found = RangeResponse.FromString(body).kvs
        if found:
            self._leader = found[0].key
            self._tell(revision, found[0])
            self._watcher = machine.hub.watch(self._leader, b"", revision + 1, sink=self)
        else:
            self._leader = b""
            end = below(self._prefix)
            self._watcher = machine.hub.watch(self._prefix, end, revision + 1, no_delete=True, sink=self)

    def _tell(self, revision: int, kv: KeyValue) -> None:
        self._call.send(self._context.header(revision) + LeaderResponse(kv=kv).SerializeToString())

    # From the watch hub

    def ready(self, watcher: Watcher) -> bool:
        return self._call.buffered_bytes < BUFFER_BYTES_MAX

    def events(self, watcher: Watcher, revision: int, encoded: bytes, count: int) -> None:
        if watcher is not self._watcher:
            return
        if not self._leader:
            self._look_again()  # the first of them leads, should it still be there
            return
        for event in WatchResponse.FromString(encoded).events:
            if event.type == Event.DELETE:
                self._look_again()
                return
            self._tell(revision, event.kv)

    def compacted(self, watcher: Watcher, compact_revision: int) -> None:
        if watcher is self._watcher:
            self._look_again()

    def _finish(self, status: int, text: str) -> None:
        if not self._ended:
            self._ended = True
            self._stop_watching()
            self._call.finish(status, text)
