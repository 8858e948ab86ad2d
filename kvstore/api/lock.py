"""v3lockpb.Lock: a lock is a turn (turns.py) that is ended by deleting its key, by whoever knows it."""

from __future__ import annotations

from collections.abc import Callable

from kvstore import errors
from kvstore.api.context import Context, parse
from kvstore.api.errors import fail
from kvstore.api.turns import Wish, refusing
from kvstore.commands import Kind
from kvstore.pb.etcdserverpb_pb2 import DeleteRangeRequest
from kvstore.pb.v3lockpb_pb2 import LockRequest, LockResponse, UnlockRequest
from kvstore.replication.outbox import Outcome
from kvstore.rpc import Methods, UnaryCall, UnaryMethod


class LockService:
    def __init__(self, context: Context, new_lease_id: Callable[[], int]) -> None:
        self._context = context
        self._new_lease_id = new_lease_id

    def methods(self) -> Methods:
        return {
            "/v3lockpb.Lock/Lock": UnaryMethod(self.lock),
            "/v3lockpb.Lock/Unlock": UnaryMethod(self.unlock),
        }

    def lock(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, LockRequest, data)
        if request is None or not self._context.has_leader(call):
            return

        def granted(wish: Wish) -> None:
            reply = LockResponse(key=wish.key).SerializeToString()
            call.reply(self._context.header(self._context.machine.revision) + reply)

        Wish(
            self._context,
            call,
            request.name,
            request.lease,
            b"",
            new_lease_id=self._new_lease_id,
            granted=granted,
            refused=refusing(call, "mutex"),
        ).begin()

    def unlock(self, call: UnaryCall, data: bytes) -> None:
        """As etcd: a plain delete, of whatever key it is given."""
        request, context = parse(call, UnlockRequest, data), self._context
        if request is None or not context.has_leader(call):
            return
        if not request.key:
            fail(call, errors.EmptyKey())
            return

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, errors.StoreError):
                fail(call, outcome)
            else:
                call.reply(context.header(outcome[0]))

        delete = DeleteRangeRequest(key=request.key).SerializeToString()
        context.propose(call, Kind.DELETE_RANGE, delete, done)
