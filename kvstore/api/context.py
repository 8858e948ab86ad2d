"""What every service stands on: the replica's driver, its state, and how a reply's header is made.

A reply is the header's bytes followed by the body's, because protobuf fields concatenate: state encodes a body
once and never learns which member answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random, SystemRandom
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from kvstore import errors
from kvstore.api.errors import fail
from kvstore.api.guard import Call, Guard
from kvstore.api.rates import RateLimits
from kvstore.api.tokens import SimpleTokens, Tokens
from kvstore.commands import Kind
from kvstore.config import Config
from kvstore.meters import HealthMeter
from kvstore.replication.driver import Driver
from kvstore.replication.outbox import Done, Outcome
from kvstore.rpc import Status, UnaryCall
from kvstore.state.auth import AuthStore
from kvstore.state.machine import StateMachine
from kvstore.state.varint import varint
from raft.quorum import members_of

M = TypeVar("M", bound=Message)
HEADER_TAG = b"\x0a"  # field 1 of every response


@dataclass(slots=True)
class Context:
    config: Config
    driver: Driver
    machine: StateMachine
    cluster_id: int
    member_id: int
    now: Callable[[], float]
    call_later: Callable[[float, Callable[[], None]], object]
    tokens: Tokens | None = None  # None: simple ones
    certificates: bool = False  # --client-cert-auth: a client's certificate names its user
    health: HealthMeter = field(default_factory=HealthMeter)
    auth: AuthStore = field(init=False)
    guard: Guard = field(init=False)
    rates: RateLimits = field(init=False)
    _prefix: bytes = b""
    _cached: tuple[int, int] = (-1, -1)  # of which 128 revisions, and which term, these are the bytes:
    _header_start: bytes = b""
    _header_end: bytes = b""

    def __post_init__(self) -> None:
        self.auth = self.machine.auth
        tokens = self.tokens or simple_tokens(self.config, self.machine, self.now, SystemRandom())
        self.guard = Guard(self.machine, self.driver, tokens, certificates=self.certificates)
        self.rates = RateLimits(self.machine.quotas, lambda: len(members_of(self.driver.node.conf)))
        self._prefix = b"\x08" + varint(self.cluster_id) + b"\x10" + varint(self.member_id)

    def header(self, revision: int) -> bytes:
        """The encoded header field of a reply; revision 0 leaves the revision out.

        Every write's revision is another: what 128 of them share is kept, up to the lowest byte of the revision
        and from there on (0.2 us a reply, 0.6 us when all of it was made anew)."""
        term, high = self.driver.node.term, revision >> 7
        if high and self._cached != (high, term):
            self._cached = (high, term)
            self._header_start, self._header_end = self._split_header(high, term)
        if high:
            return b"%b%c%b" % (self._header_start, revision & 0x7F | 0x80, self._header_end)
        return self._whole_header(revision, term)

    def _split_header(self, high: int, term: int) -> tuple[bytes, bytes]:
        whole = self._whole_header(high << 7, term)
        end = varint(high) + (b"\x20" + varint(term) if term else b"")
        return whole[: len(whole) - len(end) - 1], end

    def _whole_header(self, revision: int, term: int) -> bytes:
        inner = self._prefix
        if revision:
            inner += b"\x18" + varint(revision)
        if term:
            inner += b"\x20" + varint(term)
        return HEADER_TAG + varint(len(inner)) + inner

    def propose(self, call: Call, kind: Kind, payload: bytes, done: Done) -> None:
        """Replicates a write in the name of whoever the call is from, where anybody asks for that. What a service makes
        of a request is bounded as the request is."""
        if len(payload) > self.config.max_request_bytes:
            done(errors.RequestTooLarge())
            return
        if self.auth.enabled:
            try:
                kind, payload = self.guard.sign(call, kind, payload)
            except errors.StoreError as problem:
                done(problem)
                return
        self.driver.propose(kind, payload, done)

    def require_level(self, level: int) -> None:
        """Raises OlderMembers where the cluster has members that do not know all commands of this level."""
        older = self.machine.below_level(level)
        if older:
            raise errors.OlderMembers(older)

    def has_leader(self, call: UnaryCall) -> bool:
        """False, and the call has failed, where the client asked for a leader and there is none."""
        if self.driver.node.leader_id or call.metadata.get("hasleader") != "true":
            return True
        fail(call, errors.NoLeader())
        return False


def simple_tokens(
    config: Config, machine: StateMachine, now: Callable[[], float], random: Random
) -> SimpleTokens:
    return SimpleTokens(
        machine.auth,
        applied_index=lambda: machine.applied_index,
        ttl_s=config.auth_token_ttl_s,
        now=now,
        random=random,
    )


def parse(call: UnaryCall, kind: type[M], data: bytes) -> M | None:
    """The request, or None when its bytes are not one and the call has failed as grpc-go fails it."""
    try:
        return kind.FromString(data)
    except DecodeError as problem:
        call.fail(Status.INTERNAL, f"grpc: error unmarshalling request: {problem}")
        return None


class Reply:
    """The waiter of one write: its outcome becomes the call's end. A class, because a closure a put costs more."""

    __slots__ = ("call", "context")

    def __init__(self, context: Context, call: UnaryCall) -> None:
        self.context = context
        self.call = call

    def __call__(self, outcome: Outcome) -> None:
        if isinstance(outcome, tuple):
            revision, body = outcome
            self.call.reply(self.context.header(revision) + body)
        else:
            fail(self.call, outcome)
