"""One tree of errors. Each carries data, not prose, and says whether its outcome is definite.

definite means: the request certainly had no effect, so repeating it is safe. An error that is not definite
(a write that timed out) may have taken effect; no layer of this project repeats such a request by itself.
kvstore/api/errors.py turns each class into its gRPC code and etcd's own string.
"""

from __future__ import annotations

from collections.abc import Sequence


class StoreError(Exception):
    """Base of everything a request can fail with."""

    definite = True


class InvalidRequest(StoreError):
    """The request itself is wrong; reason is a member of the table in api/errors.py."""


class EmptyKey(InvalidRequest): ...


class KeyNotFound(InvalidRequest):
    """ignore_value or ignore_lease on a key that is not there, or an empty operation in a transaction."""


class ValueProvided(InvalidRequest): ...


class LeaseProvided(InvalidRequest): ...


class TooManyOperations(InvalidRequest): ...


class DuplicateKey(InvalidRequest): ...


class InvalidSortOption(InvalidRequest): ...


class RequestTooLarge(InvalidRequest): ...


class Compacted(StoreError):
    def __init__(self, compact_revision: int = 0) -> None:
        super().__init__(compact_revision)
        self.compact_revision = compact_revision


class FutureRevision(StoreError): ...


class LeaseTtlTooLarge(StoreError): ...


class LeaseNotFound(StoreError): ...


class LeaseExists(StoreError): ...


class InstanceTaken(StoreError):
    """The instance's key is announced by a stream that lives, under another lease."""


class InvalidAnnouncement(InvalidRequest):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MemberNotFound(StoreError): ...


class MemberExists(StoreError): ...


class PeerUrlExists(StoreError): ...


class BadMemberUrls(InvalidRequest): ...


class MemberNotLearner(StoreError): ...


class LearnerNotReady(StoreError): ...


class TooManyLearners(StoreError): ...


class NotEnoughStarted(StoreError):
    """The change would leave fewer running voters than a majority of them."""


class Unhealthy(StoreError):
    """A member is not connected, and the change could cost the majority."""


class ChangeUnderWay(StoreError):
    """Another change of membership is not finished."""


class BadTransferee(StoreError): ...


class TransferTimeout(StoreError): ...


class NoSpace(StoreError): ...


class Corrupt(StoreError): ...


class NoUserName(InvalidRequest):
    """Authentication is on and the request says nothing of who it is from."""


class NoRoleName(InvalidRequest): ...


class AuthenticationFailed(InvalidRequest): ...


class PasswordTooLong(InvalidRequest):
    """bcrypt looks at 72 bytes of it and no more: a longer one would be weaker than it seems."""


class BadPasswordHash(InvalidRequest):
    """hashedPassword is given and is no bcrypt hash in base64."""


class NoPermissionGiven(InvalidRequest): ...


class InvalidAuthManagement(InvalidRequest):
    """It would lock everybody out, such as taking the role root from the user root."""


class AuthStoreOld(InvalidRequest):
    """The token was made before the user it stands for changed."""


class PermissionDenied(StoreError): ...


class InvalidAuthToken(StoreError): ...


class TokensMadeElsewhere(StoreError):
    """--auth-token has no private key: this member reads tokens and cannot make any."""


class RootUserMissing(StoreError): ...


class RootRoleMissing(StoreError): ...


class UserExists(StoreError): ...


class UserNotFound(StoreError): ...


class RoleExists(StoreError): ...


class RoleNotFound(StoreError): ...


class RoleNotGranted(StoreError): ...


class PermissionNotGranted(StoreError): ...


class AuthNotEnabled(StoreError): ...


class BadDowngradeVersion(InvalidRequest):
    """Not of the form major.minor."""


class InvalidDowngradeTarget(InvalidRequest): ...


class NoDowngrade(StoreError): ...


class PrefixQuotaExceeded(StoreError):
    """A quota on a prefix of the key space; reason says which, how large it is and what it holds."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidQuota(InvalidRequest):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class QuotaNotFound(StoreError):
    """There is no quota on that prefix."""


class OlderMembers(StoreError):
    """The request needs a command that these members, of an older version, do not know."""

    def __init__(self, member_ids: Sequence[int]) -> None:
        super().__init__(member_ids)
        self.member_ids = tuple(member_ids)


class NoLeader(StoreError):
    """No leader is known and none appeared in time; the request was never proposed."""


class NotLeader(StoreError):
    def __init__(self, leader_id: int = 0) -> None:
        super().__init__(leader_id)
        self.leader_id = leader_id


class TooManyRequests(StoreError):
    """The member refuses new work because it is too far behind with the old."""


class Stopped(StoreError):
    """The member is stopping; the request was not proposed."""


class RequestTimeout(StoreError):
    """Proposed, and no answer in time: the write may still take effect."""

    definite = False


class OutcomeUnknown(RequestTimeout):
    """The leader was lost while the request was on its way: the write may still take effect."""


class ConnectionLost(RequestTimeout):
    """etcd's "request timed out, possibly due to connection lost"."""


class LeaderLost(RequestTimeout):
    """etcd's "request timed out, possibly due to previous leader failure"."""
