"""kvstore.v1.Quota: Set, Get, List, Remove. Reads are linearizable: use is what it was at one place in the log."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from kvstore import errors
from kvstore.api.context import Context, Reply, parse
from kvstore.api.errors import fail
from kvstore.commands import NEEDS_LEVEL, Kind
from kvstore.pb.quota_pb2 import (
    QuotaGetRequest,
    QuotaGetResponse,
    QuotaListRequest,
    QuotaListResponse,
    QuotaRemoveRequest,
    QuotaSetRequest,
)
from kvstore.rpc import Methods, UnaryCall, UnaryMethod
from kvstore.state.key_ranges import prefix_range
from kvstore.state.quota_commands import check_prefix


class QuotaService:
    def __init__(self, context: Context) -> None:
        self._context = context

    def methods(self) -> Methods:
        return {
            "/kvstore.v1.Quota/Set": UnaryMethod(self.set),
            "/kvstore.v1.Quota/Get": UnaryMethod(self.get),
            "/kvstore.v1.Quota/List": UnaryMethod(self.list),
            "/kvstore.v1.Quota/Remove": UnaryMethod(self.remove),
        }

    def set(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, QuotaSetRequest, data)
        if request is None or not self._context.has_leader(call):
            return
        try:
            check_prefix(request.prefix)
            self._context.require_level(NEEDS_LEVEL[Kind.QUOTA_SET])
        except errors.StoreError as problem:
            fail(call, problem)
            return
        self._context.propose(call, Kind.QUOTA_SET, data, Reply(self._context, call))

    def remove(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, QuotaRemoveRequest, data)
        if request is None or not self._context.has_leader(call):
            return
        try:
            self._context.require_level(NEEDS_LEVEL[Kind.QUOTA_REMOVE])
        except errors.StoreError as problem:
            fail(call, problem)
            return
        self._context.propose(call, Kind.QUOTA_REMOVE, data, Reply(self._context, call))

    def get(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, QuotaGetRequest, data)
        if request is not None:
            self._read(call, lambda: self._found(call, request))

    def list(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, QuotaListRequest, data)
        if request is not None:
            self._read(call, lambda: self._listed(call))

    def _found(self, call: UnaryCall, request: QuotaGetRequest) -> Message:
        context = self._context
        if context.auth.enabled:
            context.guard.check(call, request)
        quota = context.machine.quotas.get(request.prefix)
        if quota is None:
            raise errors.QuotaNotFound
        return QuotaGetResponse(quota=quota.message())

    def _listed(self, call: UnaryCall) -> Message:
        context = self._context
        quotas = context.machine.quotas.all()
        if context.auth.enabled:
            access = context.guard.access(context.guard.identity(call))
            quotas = [
                quota for quota in quotas if access.is_root or access.reads.cover(*prefix_range(quota.prefix))
            ]
        return QuotaListResponse(quotas=[quota.message() for quota in quotas])

    def _read(self, call: UnaryCall, answer: Callable[[], Message]) -> None:
        context = self._context
        if not context.has_leader(call):
            return

        def ready(problem: errors.StoreError | None) -> None:
            try:
                if problem is not None:
                    raise problem
                body = answer().SerializeToString()
            except errors.StoreError as refusal:
                fail(call, refusal)
            else:
                call.reply(context.header(context.machine.revision) + body)

        context.driver.read(ready)
