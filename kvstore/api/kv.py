"""etcdserverpb.KV: Range, Put, DeleteRange, Txn, Compact.

Writes are checked here, replicated as the client's own bytes, and answered when applied on this member.
Linearizable reads take a read index first; serializable ones answer from local state at once. Whether the
caller may read that is asked when it is read: permissions are part of the state.
"""

from __future__ import annotations

from kvstore import errors
from kvstore.api.context import Context, Reply, parse
from kvstore.api.errors import fail
from kvstore.api.long_range import LongRange
from kvstore.api.range_stream import RangeStream
from kvstore.api.rates import txn_keys
from kvstore.commands import Kind
from kvstore.pb.etcdserverpb_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)
from kvstore.replication.outbox import Outcome
from kvstore.rpc import Methods, StreamMethod, UnaryCall, UnaryMethod
from kvstore.state import checks, ranges
from kvstore.state.plain_put import plain_put
from kvstore.state.space import PUT_COST

PHYSICAL_POLL_S = 0.01


class KvService:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._space = context.machine.space
        self._rates = context.rates
        self._quotas = context.machine.quotas
        self._max_request_bytes = context.config.max_request_bytes
        self._max_txn_ops = context.config.max_txn_ops

    def methods(self) -> Methods:
        return {
            "/etcdserverpb.KV/Range": UnaryMethod(self.range),
            "/etcdserverpb.KV/RangeStream": StreamMethod(lambda call: RangeStream(self._context, call)),
            "/etcdserverpb.KV/Put": UnaryMethod(self.put),
            "/etcdserverpb.KV/DeleteRange": UnaryMethod(self.delete_range),
            "/etcdserverpb.KV/Txn": UnaryMethod(self.txn),
            "/etcdserverpb.KV/Compact": UnaryMethod(self.compact),
        }

    def put(self, call: UnaryCall, data: bytes) -> None:
        plain, request = plain_put(data), None
        if plain is not None:
            key = plain[0]
        else:
            request = parse(call, PutRequest, data)
            if request is None:
                return
            key = request.key
        try:
            if request is not None:
                checks.check_put(request)
            self._check_size(data)
            if self._quotas.rated:
                self._count(key)
            self._space.admit(PUT_COST + len(data))
        except errors.StoreError as problem:
            fail(call, problem)
            return
        self._write(call, Kind.PUT, data)

    def delete_range(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, DeleteRangeRequest, data)
        if request is None:
            return
        try:
            checks.check_delete(request)
            self._check_size(data)
            if self._quotas.rated:
                self._count(request.key)
        except errors.StoreError as problem:
            fail(call, problem)
            return
        self._write(call, Kind.DELETE_RANGE, data)

    def compact(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, CompactionRequest, data)
        if request is None:
            return
        if not request.physical:
            self._write(call, Kind.COMPACT, data)
        elif self._context.has_leader(call):
            reply = Reply(self._context, call)
            self._context.propose(call, Kind.COMPACT, data, lambda outcome: self._await_space(reply, outcome))

    def _await_space(self, reply: Reply, outcome: Outcome) -> None:
        """A physical compaction is answered when superseded versions are gone from this member's disk."""
        machine = self._context.machine
        if isinstance(outcome, tuple) and machine.physical_compact_revision < machine.compact_revision:
            if not reply.call.cancelled:
                self._context.call_later(PHYSICAL_POLL_S, lambda: self._await_space(reply, outcome))
            return
        reply(outcome)

    def range(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, RangeRequest, data)
        if request is None or not self._context.has_leader(call):
            return
        try:
            checks.check_range(request)
            if self._quotas.rated:
                self._count(request.key)
        except errors.StoreError as problem:
            fail(call, problem)
            return
        if request.serializable:
            self._answer_range(call, request)
            return

        def ready(problem: errors.StoreError | None) -> None:
            if problem is not None:
                fail(call, problem)
            else:
                self._answer_range(call, request)

        self._context.driver.read(ready)

    def txn(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, TxnRequest, data)
        if request is None or not self._context.has_leader(call):
            return
        try:
            checks.check_txn(request, self._max_txn_ops)
            if self._quotas.rated:
                self._count(*txn_keys(request))
            if not checks.is_read_only(request):
                self._check_size(data)
                cost = checks.put_cost(request)
                if cost:
                    self._space.admit(cost)
                self._write(call, Kind.TXN, data)
                return
        except errors.StoreError as problem:
            fail(call, problem)
            return
        if checks.is_serializable(request):
            self._answer_txn(call, request)
            return

        def ready(problem: errors.StoreError | None) -> None:
            if problem is not None:
                fail(call, problem)
            else:
                self._answer_txn(call, request)

        self._context.driver.read(ready)

    def _write(self, call: UnaryCall, kind: Kind, data: bytes) -> None:
        context = self._context
        if not context.has_leader(call):
            return
        if context.auth.enabled:
            context.propose(call, kind, data, Reply(context, call))
        else:
            context.driver.propose(kind, data, Reply(context, call))

    def _count(self, *keys: bytes) -> None:
        """One request on these keys. Raises PrefixQuotaExceeded."""
        self._rates.admit(keys, self._context.now())

    def _check_size(self, data: bytes) -> None:
        if len(data) > self._max_request_bytes:
            raise errors.RequestTooLarge

    def _answer_range(self, call: UnaryCall, request: RangeRequest, at: bytes | None = None) -> None:
        """at: how far the range's keys have been counted, where that is more than one turn of the loop may take."""
        if call.cancelled:
            return
        if call.congested:
            call.when_room(lambda: self._answer_range(call, request))
            return
        try:
            if self._context.auth.enabled:
                self._context.guard.check(call, request)
            following = ranges.learn(self._context.machine.keyspace, request, at)
            if following is not None:
                self._context.call_later(0.0, lambda: self._answer_range(call, request, following))
                return
            if ranges.may_be_long(self._context.machine.keyspace, request):
                LongRange(self._context, call, request).go_on()
                return
            revision, body = self._context.machine.range(request)
        except errors.StoreError as problem:
            fail(call, problem)
        else:
            call.reply(self._context.header(revision) + body)

    def _answer_txn(self, call: UnaryCall, request: TxnRequest) -> None:
        if call.cancelled:
            return
        if call.congested:
            call.when_room(lambda: self._answer_txn(call, request))
            return
        try:
            if self._context.auth.enabled:
                self._context.guard.check(call, request)
            revision, body = self._context.machine.read_only_txn(request)
        except errors.StoreError as problem:
            fail(call, problem)
        else:
            call.reply(self._context.header(revision) + body)
