"""etcdserverpb.Lease. Grants and revokes are replicated; renewals are the leader's own business.

A renewal is answered by the leader once it has shown that it still leads (a read index), so that a leader that
was stalled past its successor's election cannot promise anything (etcd 15247). Other members ask it.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from random import Random

from kvstore import errors
from kvstore.api.context import Context, Reply, parse
from kvstore.api.errors import fail, status_of
from kvstore.commands import Kind
from kvstore.pb.etcdserverpb_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseStatus,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)
from kvstore.replication.lease_keeper import LeaseKeeper
from kvstore.rpc import Methods, Status, StreamCall, StreamMethod, UnaryCall, UnaryMethod
from kvstore.state.auth import Identity
from kvstore.state.space import LEASE_COST

TTL_MAX_S = 9_000_000_000
PACKED = struct.Struct(">q")


class LeaseService:
    def __init__(self, context: Context, keeper: LeaseKeeper, random: Random) -> None:
        self._context = context
        self._keeper = keeper
        self._random = random
        election_s = context.config.election_timeout_ms / 1000
        self._ttl_min_s = -int(-1.5 * election_s // 1)

    def methods(self) -> Methods:
        revoke, live = UnaryMethod(self.revoke), UnaryMethod(self.time_to_live)
        return {
            "/etcdserverpb.Lease/LeaseGrant": UnaryMethod(self.grant),
            "/etcdserverpb.Lease/LeaseRevoke": revoke,
            "/etcdserverpb.Lease/LeaseKeepAlive": StreamMethod(self.keep_alive),
            "/etcdserverpb.Lease/LeaseTimeToLive": live,
            "/etcdserverpb.Lease/LeaseLeases": UnaryMethod(self.leases),
        }

    def grant(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, LeaseGrantRequest, data)
        if request is None or not self._context.has_leader(call):
            return
        if request.TTL > TTL_MAX_S:
            fail(call, errors.LeaseTtlTooLarge())
            return
        try:
            self._context.machine.space.admit(LEASE_COST)
        except errors.NoSpace as problem:
            fail(call, problem)
            return
        lease_id = request.ID or self.new_id()
        ttl_s = max(request.TTL, self._ttl_min_s)
        settled = LeaseGrantRequest(ID=lease_id, TTL=ttl_s).SerializeToString()
        self._context.propose(call, Kind.LEASE_GRANT, settled, Reply(self._context, call))

    def new_id(self) -> int:
        while True:
            lease_id = self._random.getrandbits(63)
            if lease_id and not self._context.machine.lessor.exists(lease_id):
                return lease_id

    def revoke(self, call: UnaryCall, data: bytes) -> None:
        if parse(call, LeaseRevokeRequest, data) is not None and self._context.has_leader(call):
            self._context.propose(call, Kind.LEASE_REVOKE, data, Reply(self._context, call))

    def time_to_live(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, LeaseTimeToLiveRequest, data)
        if request is None or not self._context.has_leader(call):
            return
        context, lease_id = self._context, request.ID

        def known(remaining_ms: int | None, problem: errors.StoreError | None) -> None:
            if problem is not None:
                fail(call, problem)
                return
            if context.auth.enabled:
                try:
                    context.guard.check(call, request)
                except errors.StoreError as refusal:
                    fail(call, refusal)
                    return
            lease = context.machine.lessor.get(lease_id)
            reply = LeaseTimeToLiveResponse(ID=lease_id, TTL=-1)
            if lease is not None and remaining_ms is not None:
                reply.TTL = max(0, remaining_ms) // 1000
                reply.grantedTTL = lease.ttl_ms // 1000
                if request.keys:
                    reply.keys.extend(context.machine.lessor.keys(lease_id))
            call.reply(context.header(context.machine.revision) + reply.SerializeToString())

        def ready(problem: errors.StoreError | None) -> None:
            if problem is not None:
                fail(call, problem)
            else:
                self._keeper.remaining(lease_id, known)

        # The leader knows the time that is left, and the rest is read here: this member may lag behind both.
        context.driver.read(ready)

    def leases(self, call: UnaryCall, data: bytes) -> None:
        if parse(call, LeaseLeasesRequest, data) is None or not self._context.has_leader(call):
            return

        def ready(problem: errors.StoreError | None) -> None:
            if problem is not None:
                fail(call, problem)
                return
            machine = self._context.machine
            reply = LeaseLeasesResponse(leases=[LeaseStatus(ID=each) for each in machine.lessor.leases()])
            call.reply(self._context.header(machine.revision) + reply.SerializeToString())

        self._context.driver.read(ready)

    def keep_alive(self, call: StreamCall) -> KeepAliveStream:
        return KeepAliveStream(self._context, self._keeper, call)


class KeepAliveStream:
    """Replies go out in the order of the requests, whatever order their answers come in."""

    REQUESTS_MAX = 10_000

    def __init__(self, context: Context, keeper: LeaseKeeper, call: StreamCall) -> None:
        self._context = context
        self._keeper = keeper
        self._call = call
        self._slots: deque[list[bytes | None]] = deque()
        self._identity: Identity | None = None  # whose it is, found out once
        self._ending = False
        self._ended = False  # by this side: nothing more is heard or said

    def message(self, data: bytes) -> None:
        if self._ended:
            return
        try:
            request = LeaseKeepAliveRequest.FromString(data)
        except Exception as problem:  # protobuf's DecodeError, or recursion in hostile input
            self._finish(Status.INTERNAL, f"grpc: error unmarshalling request: {problem}")
            return
        if len(self._slots) >= self.REQUESTS_MAX:
            self._finish(*status_of(errors.TooManyRequests()))
            return
        if self._context.auth.enabled and not self._permitted(request):
            return
        # The header is filled before the renewal, as etcd does: a client never learns of a later revision.
        header = self._context.header(self._context.machine.revision)
        slot: list[bytes | None] = [None]
        self._slots.append(slot)
        self._keeper.renew(request.ID, self._renewed(request.ID, header, slot))

    def _permitted(self, request: LeaseKeepAliveRequest) -> bool:
        """False, and the stream has ended, where the caller may not write the lease's keys."""
        guard = self._context.guard
        try:
            if self._identity is None:
                self._identity = guard.identity(self._call)
            guard.check_identity(self._identity, request)
        except errors.StoreError as problem:
            self._finish(*status_of(problem))
            return False
        return True

    def _renewed(
        self, lease_id: int, header: bytes, slot: list[bytes | None]
    ) -> Callable[[int | None, errors.StoreError | None], None]:
        def done(ttl_ms: int | None, problem: errors.StoreError | None) -> None:
            if self._ended:
                return
            if problem is not None:
                self._finish(*status_of(problem))
                return
            ttl_s = 0 if ttl_ms is None else max(1, ttl_ms // 1000)  # 0 says that it is gone
            reply = LeaseKeepAliveResponse(ID=lease_id, TTL=ttl_s)
            slot[0] = header + reply.SerializeToString()
            self._flush()

        return done

    def _flush(self) -> None:
        while self._slots:
            reply = self._slots[0][0]
            if reply is None:
                return
            self._slots.popleft()
            self._call.send(reply)
        if self._ending and not self._ended:
            self._finish()

    def _finish(self, status: int = Status.OK, text: str = "") -> None:
        self._ended = True
        self._slots.clear()
        self._call.finish(status, text)

    def half_closed(self) -> None:
        self._ending = True
        self._flush()

    def cancelled(self) -> None:
        self._slots.clear()

    def drained(self) -> None:
        """Replies are small and bounded by REQUESTS_MAX; nothing waits for room."""


__all__ = ["KeepAliveStream", "LeaseGrantResponse", "LeaseService"]
