"""One tree of client errors. Each says whether its outcome is definite, and whether another member may do better.

definite:   the request certainly had no effect (or was a read), so repeating it is safe.
elsewhere:  the fault is this member's or this connection's, so another endpoint is worth a try.

A write goes to another endpoint only when its failure is both; a read has no effect, so elsewhere is enough.
from_ending() is the one place that decides, from how far the call came, its gRPC status and etcd's own string. What
it does not know it takes for unknown: a wrong guess there costs an error, the other way a write done twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from kvstore.client.replies import Ending, Fate
from kvstore.client.results import Header
from kvstore.rpc import Status

PREFIX = "etcdserver: "


class ClientError(Exception):
    """Base of everything the client raises. message is the server's own text where there is one."""

    code: Status = Status.UNKNOWN
    definite: bool = True
    elsewhere: bool = False

    def __init__(self, message: str = "", *, code: Status | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class OutcomeUnknown(ClientError):
    """The write left this client and no answer says what became of it: it may have taken effect, or may yet."""

    code = Status.UNAVAILABLE
    definite = False


class Unreachable(ClientError):
    """No connection: not a byte of the request left this client. reasons: endpoint to what went wrong there.
    by_tls: somebody is there, and the settings of TLS on one side or the other are what is wrong."""

    code = Status.UNAVAILABLE
    elsewhere = True

    def __init__(
        self, message: str = "", *, reasons: Mapping[str, str] | None = None, by_tls: bool = False
    ) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})
        self.by_tls = by_tls


class ConnectionLost(ClientError):
    """The connection broke under a read, which is safe to repeat."""

    code = Status.UNAVAILABLE
    elsewhere = True


class RequestTimeout(ClientError):
    """A read had no answer in time. A write with no answer in time is OutcomeUnknown."""

    code = Status.DEADLINE_EXCEEDED
    elsewhere = True


class ClientClosed(ClientError):
    """The client was closed; nothing was sent."""

    code = Status.CANCELLED


class NoLeader(ClientError):
    """The member sees no leader and refused the request before proposing it."""

    code = Status.UNAVAILABLE
    elsewhere = True


class LeaderChanged(ClientError):
    """A linearizable read was caught by a change of leader."""

    code = Status.UNAVAILABLE
    elsewhere = True


class TooManyRequests(ClientError):
    """The member is too far behind to take more; it did not propose the request."""

    code = Status.RESOURCE_EXHAUSTED
    elsewhere = True


class NotProposed(ClientError):
    """The member refused the request before proposing it, for a reason of its own (a learner, an old version), or
    says that it did not look at it."""

    code = Status.UNAVAILABLE
    elsewhere = True


class NotLeader(ClientError):
    """Only the leader can do this."""

    code = Status.FAILED_PRECONDITION


class InvalidRequest(ClientError):
    """The request itself is wrong; repeating it cannot help."""

    code = Status.INVALID_ARGUMENT


class EmptyKey(InvalidRequest): ...


class KeyNotFound(InvalidRequest):
    """ignore_value or ignore_lease on a key that is not there."""


class DuplicateKey(InvalidRequest):
    """One transaction writes the same key twice."""


class TooManyOperations(InvalidRequest): ...


class RequestTooLarge(InvalidRequest): ...


class Compacted(ClientError):
    """The revision asked for is gone. compact_revision is the oldest still readable, 0 where not told."""

    code = Status.OUT_OF_RANGE

    def __init__(self, message: str = "", *, compact_revision: int = 0, header: Header | None = None) -> None:
        super().__init__(message or PREFIX + "mvcc: required revision has been compacted")
        self.compact_revision = compact_revision
        self.header = header or Header()


class FutureRevision(ClientError):
    code = Status.OUT_OF_RANGE


class LeaseTtlTooLarge(ClientError):
    code = Status.OUT_OF_RANGE


class LeaseNotFound(ClientError):
    code = Status.NOT_FOUND


class LeaseExists(ClientError):
    code = Status.FAILED_PRECONDITION


class InstanceTaken(ClientError):
    """Somebody who lives announces an instance under this key."""

    code = Status.FAILED_PRECONDITION


class MemberNotFound(ClientError):
    code = Status.NOT_FOUND


class NoSpace(ClientError):
    """The database is over its quota. Not definite: etcd may apply the write that crosses the quota and
    still answer this (its apply-time check), and the answer is the same as that of a refusal."""

    code = Status.RESOURCE_EXHAUSTED
    definite = False


class QuotaExceeded(ClientError):
    """A quota on a prefix, of bytes, keys or requests a second: message says which, and how much is in use."""

    code = Status.RESOURCE_EXHAUSTED


class QuotaNotFound(ClientError):
    code = Status.NOT_FOUND


class Corrupt(ClientError):
    code = Status.DATA_LOSS


class PermissionDenied(ClientError):
    code = Status.PERMISSION_DENIED


class Unauthenticated(ClientError):
    code = Status.UNAUTHENTICATED


class InvalidAuthToken(Unauthenticated):
    """The token is none of this member's, or its time is over."""


class NoUserName(InvalidRequest):
    """The server asks who this is, and the call does not say."""


class AuthenticationFailed(InvalidRequest):
    """There is no such user, or the password is another one; the server does not say which."""


class AuthStoreOld(InvalidRequest):
    """The token was made before its user changed; with etcd, before any user or role did."""


class AuthNotEnabled(ClientError):
    code = Status.FAILED_PRECONDITION


class Unimplemented(ClientError):
    """The server does not know this method: an older etcd, or plain etcd asked for one of our own."""

    code = Status.UNIMPLEMENTED


class WatchCanceled(ClientError):
    """The server ended the watch, for good. refused: it never began it."""

    code = Status.CANCELLED

    def __init__(self, reason: str = "", *, refused: bool = False, header: Header | None = None) -> None:
        super().__init__(reason or "watch canceled by the server")
        self.reason = reason
        self.refused = refused
        self.header = header or Header()


# etcd's strings without their prefix, and ours with it. Clients match on the string, not the code: several
# strings reach the wire under a code other than the one they are declared with.
_TEXTS: dict[str, type[ClientError]] = {
    "no leader": NoLeader,
    "leader changed": LeaderChanged,
    "too many requests": TooManyRequests,
    "not capable": NotProposed,
    "rpc not supported for learner": NotProposed,
    "unhealthy cluster": NotProposed,
    "raft proposal dropped": NotProposed,
    "not leader": NotLeader,
    "key is not provided": EmptyKey,
    "key not found": KeyNotFound,
    "duplicate key given in txn request": DuplicateKey,
    "too many operations in txn request": TooManyOperations,
    "request is too large": RequestTooLarge,
    "mvcc: required revision has been compacted": Compacted,
    "mvcc: required revision is a future revision": FutureRevision,
    "mvcc: database space exceeded": NoSpace,
    "too large lease TTL": LeaseTtlTooLarge,
    "requested lease not found": LeaseNotFound,
    "lease already exists": LeaseExists,
    "member not found": MemberNotFound,
    "kvstore: no quota on this prefix": QuotaNotFound,
    "corrupt cluster": Corrupt,
    "invalid auth token": InvalidAuthToken,
    "user name is empty": NoUserName,
    "authentication failed, invalid user ID or password": AuthenticationFailed,
    "revision of auth store is old": AuthStoreOld,
    "authentication is not enabled": AuthNotEnabled,
    "kvstore: the instance is announced by somebody else": InstanceTaken,
}

_CODES: dict[Status, type[ClientError]] = {
    Status.INVALID_ARGUMENT: InvalidRequest,
    Status.PERMISSION_DENIED: PermissionDenied,
    Status.UNAUTHENTICATED: Unauthenticated,
    Status.UNIMPLEMENTED: Unimplemented,
}

# The codes under which a request may have been carried out: the transport's own, and the server's for
# "request timed out" and "server stopped", which etcd sends after the proposal as well as before it.
_UNSETTLED = frozenset(
    (
        Status.CANCELLED,
        Status.UNKNOWN,
        Status.DEADLINE_EXCEEDED,
        Status.ABORTED,
        Status.INTERNAL,
        Status.UNAVAILABLE,
        Status.DATA_LOSS,
        Status.RESOURCE_EXHAUSTED,
    )
)

# The message size limit, as a server on grpc-go (or ours) and one on grpcio words it.
_NEVER_TAKEN = ("grpc: received message larger", "SERVER: Received message larger")

_OVER_QUOTA = "kvstore: quota on "  # ours


def from_reason(reason: str) -> ClientError | None:
    """The error that a watch was cancelled for, as far as a new token could help against it."""
    for text in ("invalid auth token", "user name is empty", "revision of auth store is old"):
        if reason.endswith(PREFIX + text):
            return _TEXTS[text](PREFIX + text)
    return None


def from_ending(ending: Ending, *, write: bool) -> ClientError:
    """The error for one call that ended with another status than OK."""
    if ending.fate is Fate.UNSENT:
        return Unreachable(ending.text)
    if ending.fate is Fate.REFUSED:
        return NotProposed(ending.text)
    return from_status(ending.status, ending.text, write=write)


def from_status(code: Status, details: str | None, *, write: bool) -> ClientError:
    """The error for one call that ended with this status. write: the request may have an effect, so what is unclear
    is unknown."""
    text = details or ""
    known = _TEXTS.get(text.removeprefix(PREFIX))
    if known is not None:
        error = known(text)
        if known is not Compacted:
            error.code = code
        return error
    if code is Status.RESOURCE_EXHAUSTED and text.startswith(_NEVER_TAKEN):
        return RequestTooLarge(text, code=code)
    if code is Status.RESOURCE_EXHAUSTED and text.startswith(_OVER_QUOTA):
        return QuotaExceeded(text, code=code)
    if code in _UNSETTLED:
        if write:
            return OutcomeUnknown(text or code.name, code=code)
        if code is Status.DATA_LOSS or "larger than max" in text:
            return ClientError(text, code=code)
        timed_out = code is Status.DEADLINE_EXCEEDED or "timed out" in text
        return (RequestTimeout if timed_out else ConnectionLost)(text or code.name, code=code)
    return _CODES.get(code, ClientError)(text, code=code)
