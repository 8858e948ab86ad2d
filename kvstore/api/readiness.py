"""kvstore.v1.Readiness: announcing an instance in one call.

    announce ─► one entry: lease and key ─► ANNOUNCED     keep_alive ─► the leader's clock ─► RENEWED or LOST
    withdraw ─► one entry: both gone ─► WITHDRAWN         broken stream ─► one entry: the grace runs

What a stream holds is in the replicated state under a number of its own, its session: a stream that broke without
this member noticing cannot take anything from the one that came after it, whichever member that is on.
"""

from __future__ import annotations

from random import Random

from google.protobuf.message import DecodeError

from kvstore import errors
from kvstore.api.context import Context
from kvstore.api.errors import status_of
from kvstore.commands import TAKE_OVER_LEVEL, Kind
from kvstore.pb.internal_pb2 import Announce, AnnounceEnd
from kvstore.pb.readiness_pb2 import Announcement, AnnounceRequest, AnnounceResponse
from kvstore.replication.lease_keeper import LeaseKeeper
from kvstore.replication.outbox import Outcome
from kvstore.rpc import Methods, Status, StreamCall, StreamMethod
from kvstore.state.auth import Identity

TTL_DEFAULT_MS, TTL_MIN_MS, TTL_MAX_MS = 2_000, 500, 24 * 3600 * 1000
GRACE_DEFAULT_MS = 500
RETRY_S = 0.1
UNANSWERED_MAX = 64
"""Requests of one stream under way. A client that sends more does not wait for its answers."""


class ReadinessService:
    def __init__(self, context: Context, keeper: LeaseKeeper, random: Random) -> None:
        self.context = context
        self.keeper = keeper
        self._random = random

    def methods(self) -> Methods:
        return {"/kvstore.v1.Readiness/Announce": StreamMethod(self.announce)}

    def announce(self, call: StreamCall) -> AnnounceStream:
        return AnnounceStream(self, call, self._random.getrandbits(63) | 1)


def grace_in_log(grace_ms: int, took_s: float) -> int:
    """What the entry that begins a grace asks for. The grace counts from when the member notices, and the entry's from
    when it is applied, which takes as long as the last one took. Never less than half, nor none where there is some."""
    return max(grace_ms - round(1000 * took_s), (grace_ms + 1) // 2)


class AnnounceStream:
    def __init__(self, service: ReadinessService, call: StreamCall, session: int) -> None:
        self._context = service.context
        self._keeper = service.keeper
        self._call = call
        self._session = session
        self._key = b""
        self._lease_id = 0
        self._ttl_ms = 0
        self._grace_ms = 0
        self._asked_at = 0.0
        self._took_s = 0.0  # from asking the store to its answer, for the last announcement
        self._holds = False  # an announcement of this stream is, or may be, in the state
        self._unanswered = 0
        self._ended = False
        self._identity: Identity | None = None  # whose it is, found out once

    # From the client

    def message(self, data: bytes) -> None:
        if self._ended:
            return
        try:
            request = AnnounceRequest.FromString(data)
        except DecodeError as problem:
            self._finish(Status.INTERNAL, f"grpc: error unmarshalling request: {problem}")
            return
        if self._unanswered >= UNANSWERED_MAX:
            self._finish(*status_of(errors.TooManyRequests()))
            return
        self._unanswered += 1
        kind = request.WhichOneof("request")
        try:
            if self._context.auth.enabled:
                self._identify()
            if kind == "announce":
                self._announce(request.announce)
            elif kind == "keep_alive":
                self._keep_alive()
            elif kind == "withdraw":
                self._withdraw()
            else:
                raise errors.InvalidAnnouncement("a request says neither announce, keep_alive nor withdraw")
        except errors.StoreError as refusal:
            self._finish(*status_of(refusal))

    def half_closed(self) -> None:
        """No more will be sent, so nothing keeps it alive any more: as when the stream breaks."""
        self._finish()

    def cancelled(self) -> None:
        self._let_go()

    def drained(self) -> None:
        """Answers are small and UNANSWERED_MAX at most."""

    def _announce(self, request: Announcement) -> None:
        self._check(request)
        context = self._context
        if context.machine.quotas.rated:
            context.rates.admit((request.key,), context.now())
        if context.machine.over_quota and context.machine.lessor.get(request.lease_id) is None:
            raise errors.NoSpace
        if request.take_over:
            context.require_level(TAKE_OVER_LEVEL)
        self._key, self._lease_id = request.key, request.lease_id
        self._ttl_ms = request.ttl_ms or TTL_DEFAULT_MS
        self._grace_ms = request.grace_ms if request.HasField("grace_ms") else GRACE_DEFAULT_MS
        command = Announce(
            lease_id=self._lease_id,
            ttl_ms=self._ttl_ms,
            session=self._session,
            key=request.key,
            value=request.value,
            take_over=request.take_over,
        )
        kind, payload = Kind.ANNOUNCE, command.SerializeToString()
        if context.auth.enabled:
            identity = self._identify()
            context.guard.check_identity(identity, command)
            kind, payload = context.guard.sign_as(identity, kind, payload)
        self._holds, self._asked_at = True, context.now()
        context.driver.propose(kind, payload, self._announced)

    def _identify(self) -> Identity:
        """Whose the stream is, for as long as it is open. Raises what the guard does."""
        if self._identity is None:
            self._identity = self._context.guard.identity(self._call)
        return self._identity

    def _check(self, request: Announcement) -> None:
        """Raises InvalidAnnouncement, EmptyKey, RequestTooLarge."""
        if not request.key:
            raise errors.EmptyKey
        if len(request.key) + len(request.value) > self._context.config.max_request_bytes:
            raise errors.RequestTooLarge
        if request.lease_id <= 0:
            raise errors.InvalidAnnouncement("lease_id is not a positive number chosen at random")
        if request.ttl_ms and not TTL_MIN_MS <= request.ttl_ms <= TTL_MAX_MS:
            raise errors.InvalidAnnouncement(
                f"ttl_ms is {request.ttl_ms}, and not from {TTL_MIN_MS} to {TTL_MAX_MS}"
            )
        if request.grace_ms < 0:
            raise errors.InvalidAnnouncement(f"grace_ms is {request.grace_ms}")
        if self._key and (request.key, request.lease_id) != (self._key, self._lease_id):
            raise errors.InvalidAnnouncement("a stream holds one instance: key and lease_id do not change")

    def _keep_alive(self) -> None:
        if not self._holds:
            raise errors.InvalidAnnouncement("nothing is announced that could be kept alive")
        if self._context.auth.enabled:
            command = Announce(key=self._key, lease_id=self._lease_id)
            self._context.guard.check_identity(self._identify(), command)
        self._keeper.renew(self._lease_id, self._renewed)

    def _withdraw(self) -> None:
        if not self._holds:
            self._answer(AnnounceResponse.WITHDRAWN, self._context.machine.revision)
            return
        self._holds = False
        self._context.driver.propose(Kind.ANNOUNCE_END, self._end(0), self._withdrawn)

    # What became of it

    def _announced(self, outcome: Outcome) -> None:
        if isinstance(outcome, errors.StoreError):
            if outcome.definite:
                self._holds = False
            self._fail(outcome)
            return
        self._took_s = self._context.now() - self._asked_at
        if self._ended:
            self._let_go()  # the stream broke while it was being announced
        else:
            self._answer(AnnounceResponse.ANNOUNCED, outcome[0])

    def _renewed(self, ttl_ms: int | None, problem: errors.StoreError | None) -> None:
        if problem is not None:
            self._fail(problem)
        elif ttl_ms is None:
            self._holds = False
            self._answer(AnnounceResponse.LOST, self._context.machine.revision)
        else:
            self._answer(AnnounceResponse.RENEWED, self._context.machine.revision)

    def _withdrawn(self, outcome: Outcome) -> None:
        if isinstance(outcome, errors.StoreError):
            self._holds = True  # perhaps: when the stream ends its grace begins
            self._fail(outcome)
        else:
            self._answer(AnnounceResponse.WITHDRAWN, outcome[0])

    def _answer(self, kind: AnnounceResponse.Kind, revision: int) -> None:
        self._unanswered -= 1
        if not self._ended:
            reply = AnnounceResponse(kind=kind, lease_id=self._lease_id, ttl_ms=self._ttl_ms)
            self._call.send(self._context.header(revision) + reply.SerializeToString())

    def _fail(self, problem: errors.StoreError) -> None:
        self._unanswered -= 1
        self._finish(*status_of(problem))

    def _finish(self, status: int = Status.OK, text: str = "") -> None:
        if not self._ended:
            self._call.finish(status, text)
            self._let_go()

    # The end of the stream

    def _let_go(self) -> None:
        """The instance has its grace from now on, or is gone at once where it has none. Proposed again until it
        is known to have taken effect, or the lease has run out by itself."""
        self._ended = True
        if not self._holds:
            return
        self._holds = False
        end, context = self._end(grace_in_log(self._grace_ms, self._took_s)), self._context
        give_up_at = context.now() + self._ttl_ms / 1000

        def propose() -> None:
            context.driver.propose(Kind.ANNOUNCE_END, end, answered)

        def answered(outcome: Outcome) -> None:
            if isinstance(outcome, errors.Stopped) or context.now() >= give_up_at:
                return
            if isinstance(outcome, errors.StoreError):
                context.call_later(RETRY_S, propose)

        propose()

    def _end(self, grace_ms: int) -> bytes:
        end = AnnounceEnd(lease_id=self._lease_id, session=self._session, grace_ms=grace_ms)
        return end.SerializeToString()
