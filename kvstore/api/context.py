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
from kvstore.api.tokens import SimpleTokens, Tokens
from kvstore.commands import Kind
from kvstore.config import Config
from kvstore.meters import HealthMeter
from kvstore.replication.driver import Driver
from kvstore.replication.outbox import Done, Outcome
from kvstore.rpc import Status, UnaryCall
from kvstore.state.auth import AuthStore
from kvstore.state.machine import StateMachine

M = TypeVar("M", bound=Message)
HEADER_TAG = b"\x0a"  # field 1 of every response


def varint(value: int) -> bytes:
    """A protobuf varint; negative numbers take ten bytes, as int64 does."""
    if 0 <= value < 0x80:
        return bytes((value,))
    if value < 0:
        value += 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


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
    _prefix: bytes = b""
    _cached: tuple[int, int] = (-1, -1)
    _header: bytes = b""

    def __post_init__(self) -> None:
        self.auth = self.machine.auth
        tokens = self.tokens or simple_tokens(self.config, self.machine, self.now, SystemRandom())
        self.guard = Guard(self.machine, self.driver, tokens, certificates=self.certificates)
        self._prefix = b"\x08" + varint(self.cluster_id) + b"\x10" + varint(self.member_id)

    def header(self, revision: int) -> bytes:
        """The encoded header field of a reply; revision 0 leaves the revision out."""
        term = self.driver.node.term
        if self._cached == (revision, term):
            return self._header
        inner = self._prefix
        if revision:
            inner += b"\x18" + varint(revision)
        if term:
            inner += b"\x20" + varint(term)
        self._cached = (revision, term)
        self._header = HEADER_TAG + varint(len(inner)) + inner
        return self._header

    def propose(self, call: Call, kind: Kind, payload: bytes, done: Done) -> None:
        """Replicates a write in the name of whoever the call is from, where anybody asks for that."""
        if self.auth.enabled:
            try:
                kind, payload = self.guard.sign(call, kind, payload)
            except errors.StoreError as problem:
                done(problem)
                return
        self.driver.propose(kind, payload, done)

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
