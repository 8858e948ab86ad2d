"""What a run leaves behind for the checkers, wherever it came from: a simulation, or a watch on a real cluster.

Two clocks. `order` numbers every event of the run, so that "before" has no ties; `_s` is time in seconds, which
only leases need. Nothing here refers to members or to the simulator.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kvstore.pb.etcdserverpb_pb2 import WatchCreateRequest, WatchResponse

FOREVER = 1 << 62


class KeyValue(NamedTuple):
    """One version of one key. version 0: the key was deleted there, and everything but key and mod is empty."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int

    @property
    def deleted(self) -> bool:
        return not self.version


class Revision(NamedTuple):
    """One revision that changed something, in sub-revision order, and when it existed first anywhere."""

    number: int
    events: tuple[KeyValue, ...]
    order: int
    at_s: float


class LeaseEnd(NamedTuple):
    """A lease was revoked or expired. revision: the one that deleted its keys, 0 where it had none."""

    lease: int
    revision: int
    order: int
    at_s: float
    expired: bool


class LeaseStart(NamedTuple):
    lease: int
    ttl_s: int
    order: int
    at_s: float


class Compacted(NamedTuple):
    revision: int
    order: int


@dataclass(slots=True)
class Operation:
    """One unary call. returned is FOREVER where no answer came. error is a name of kvstore/errors.py's, or
    "unknown" where nobody can say whether the call took effect. revision is the one in the answer's header,
    which `response` itself has no more."""

    client: str
    invoked: int
    returned: int
    request: Any
    response: Any = None
    revision: int = 0
    error: str = ""
    invoked_s: float = 0.0
    returned_s: float = 0.0

    @property
    def is_unknown(self) -> bool:
        return self.error == "unknown"

    @property
    def succeeded(self) -> bool:
        return not self.error


class Received(NamedTuple):
    """One response of a watch as the client got it, and when it was sent."""

    response: WatchResponse
    sent: int


@dataclass(slots=True)
class WatchRecord:
    """One watch from its creation to its end. complete: it lived to the end of a run in which everything was
    quiet at last, so everything must have arrived."""

    name: str
    request: WatchCreateRequest
    requested: int
    responses: list[Received] = field(default_factory=list)
    complete: bool = False


@dataclass(slots=True)
class Renewal:
    """One answered keep-alive: ttl_s 0 says that the lease is gone."""

    lease: int
    ttl_s: int
    sent: int
    answered: int
    sent_s: float
    answered_s: float


@dataclass(slots=True)
class History:
    """log: every revision there was, in order; `first_leader_s`.. see leases.py."""

    log: list[Revision] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    watches: list[WatchRecord] = field(default_factory=list)
    renewals: list[Renewal] = field(default_factory=list)
    lease_starts: list[LeaseStart] = field(default_factory=list)
    lease_ends: list[LeaseEnd] = field(default_factory=list)
    compactions: list[Compacted] = field(default_factory=list)
    leaders_s: list[float] = field(default_factory=list)  # when a member began to lead: leases start anew
    ended_s: float = 0.0
    healthy_since_s: float = FOREVER  # from here to the end nothing was broken
    clock_rate_max: float = 1.0  # of the members' clocks: the fastest one's seconds to a second of these


class Violation(AssertionError):
    """A history that a correct store cannot have. The text begins with the property that does not hold."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
