"""The one table from an error to its gRPC code and etcd's own string, on which clients match.

Source: etcd's api/v3rpc/rpctypes (docs/compatibility.md says where we differ). Where etcd leaks Unknown by
accident (too many requests), the code it declares is used.
"""

from __future__ import annotations

from kvstore import errors
from kvstore.rpc import Status, UnaryCall

_INVALID, _RANGE, _MISSING = Status.INVALID_ARGUMENT, Status.OUT_OF_RANGE, Status.NOT_FOUND
_FAILED, _UNAVAILABLE, _EXHAUSTED = (
    Status.FAILED_PRECONDITION,
    Status.UNAVAILABLE,
    Status.RESOURCE_EXHAUSTED,
)

TABLE: dict[type[errors.StoreError], tuple[Status, str]] = {
    errors.EmptyKey: (_INVALID, "etcdserver: key is not provided"),
    errors.KeyNotFound: (_INVALID, "etcdserver: key not found"),
    errors.ValueProvided: (_INVALID, "etcdserver: value is provided"),
    errors.LeaseProvided: (_INVALID, "etcdserver: lease is provided"),
    errors.TooManyOperations: (_INVALID, "etcdserver: too many operations in txn request"),
    errors.DuplicateKey: (_INVALID, "etcdserver: duplicate key given in txn request"),
    errors.InvalidSortOption: (_INVALID, "etcdserver: invalid sort option"),
    errors.RequestTooLarge: (_INVALID, "etcdserver: request is too large"),
    errors.Compacted: (_RANGE, "etcdserver: mvcc: required revision has been compacted"),
    errors.FutureRevision: (_RANGE, "etcdserver: mvcc: required revision is a future revision"),
    errors.LeaseTtlTooLarge: (_RANGE, "etcdserver: too large lease TTL"),
    errors.LeaseNotFound: (_MISSING, "etcdserver: requested lease not found"),
    errors.LeaseExists: (_FAILED, "etcdserver: lease already exists"),
    errors.InstanceTaken: (_FAILED, "kvstore: the instance is announced by somebody else"),
    errors.MemberNotFound: (_MISSING, "etcdserver: member not found"),
    errors.MemberExists: (_FAILED, "etcdserver: member ID already exist"),
    errors.PeerUrlExists: (_FAILED, "etcdserver: Peer URLs already exists"),
    errors.BadMemberUrls: (_INVALID, "etcdserver: given member URLs are invalid"),
    errors.MemberNotLearner: (_FAILED, "etcdserver: can only promote a learner member"),
    errors.LearnerNotReady: (
        _FAILED,
        "etcdserver: can only promote a learner member which is in sync with leader",
    ),
    errors.TooManyLearners: (_FAILED, "etcdserver: too many learner members in cluster"),
    errors.NotEnoughStarted: (
        _FAILED,
        "etcdserver: re-configuration failed due to not enough started members",
    ),
    errors.Unhealthy: (_UNAVAILABLE, "etcdserver: unhealthy cluster"),
    errors.ChangeUnderWay: (_UNAVAILABLE, "kvstore: another change of membership is under way"),
    errors.BadTransferee: (_FAILED, "etcdserver: bad leader transferee"),
    errors.TransferTimeout: (
        _UNAVAILABLE,
        "etcdserver: request timed out, leader transfer took too long",
    ),
    errors.NoSpace: (_EXHAUSTED, "etcdserver: mvcc: database space exceeded"),
    errors.Corrupt: (Status.DATA_LOSS, "etcdserver: corrupt cluster"),
    errors.NoUserName: (_INVALID, "etcdserver: user name is empty"),
    errors.NoRoleName: (_INVALID, "etcdserver: role name is empty"),
    errors.AuthenticationFailed: (
        _INVALID,
        "etcdserver: authentication failed, invalid user ID or password",
    ),
    errors.PasswordTooLong: (_INVALID, "kvstore: password is longer than 72 bytes"),
    errors.BadPasswordHash: (_INVALID, "kvstore: hashedPassword is not a bcrypt hash in base64"),
    errors.NoPermissionGiven: (_INVALID, "etcdserver: permission not given"),
    errors.InvalidAuthManagement: (_INVALID, "etcdserver: invalid auth management"),
    errors.AuthStoreOld: (_INVALID, "etcdserver: revision of auth store is old"),
    errors.PermissionDenied: (Status.PERMISSION_DENIED, "etcdserver: permission denied"),
    errors.InvalidAuthToken: (Status.UNAUTHENTICATED, "etcdserver: invalid auth token"),
    errors.TokensMadeElsewhere: (_FAILED, "kvstore: this member has no key to sign tokens with"),
    errors.RootUserMissing: (_FAILED, "etcdserver: root user does not exist"),
    errors.RootRoleMissing: (_FAILED, "etcdserver: root user does not have root role"),
    errors.UserExists: (_FAILED, "etcdserver: user name already exists"),
    errors.UserNotFound: (_FAILED, "etcdserver: user name not found"),
    errors.RoleExists: (_FAILED, "etcdserver: role name already exists"),
    errors.RoleNotFound: (_FAILED, "etcdserver: role name not found"),
    errors.RoleNotGranted: (_FAILED, "etcdserver: role is not granted to the user"),
    errors.PermissionNotGranted: (_FAILED, "etcdserver: permission is not granted to the role"),
    errors.AuthNotEnabled: (_FAILED, "etcdserver: authentication is not enabled"),
    errors.BadDowngradeVersion: (_INVALID, "etcdserver: wrong downgrade target version format"),
    errors.InvalidDowngradeTarget: (_INVALID, "etcdserver: invalid downgrade target version"),
    errors.NoDowngrade: (_FAILED, "etcdserver: no inflight downgrade job"),
    errors.QuotaNotFound: (_MISSING, "kvstore: no quota on this prefix"),
    errors.NotLeader: (_FAILED, "etcdserver: not leader"),
    errors.NoLeader: (_UNAVAILABLE, "etcdserver: no leader"),
    errors.TooManyRequests: (_EXHAUSTED, "etcdserver: too many requests"),
    errors.Stopped: (_UNAVAILABLE, "etcdserver: server stopped"),
    errors.RequestTimeout: (_UNAVAILABLE, "etcdserver: request timed out"),
    errors.OutcomeUnknown: (_UNAVAILABLE, "etcdserver: request timed out"),
    errors.ConnectionLost: (_UNAVAILABLE, "etcdserver: request timed out, possibly due to connection lost"),
    errors.LeaderLost: (
        _UNAVAILABLE,
        "etcdserver: request timed out, possibly due to previous leader failure",
    ),
}


def status_of(error: errors.StoreError) -> tuple[Status, str]:
    """The code and string of an error; a class without a row of its own takes its nearest base's."""
    if isinstance(error, errors.InvalidAnnouncement | errors.InvalidQuota):
        return _INVALID, f"kvstore: {error.reason}"
    if isinstance(error, errors.PrefixQuotaExceeded):
        return _EXHAUSTED, f"kvstore: {error.reason}"
    if isinstance(error, errors.OlderMembers):
        older = ", ".join(f"{member_id:x}" for member_id in error.member_ids)
        return _FAILED, f"kvstore: upgrade all members first: {older} runs a version that does not know this"
    for kind in type(error).__mro__:
        row = TABLE.get(kind)
        if row is not None:
            return row
    return Status.UNKNOWN, f"kvstore: {type(error).__name__}: {error}"


def fail(call: UnaryCall, error: errors.StoreError) -> None:
    call.fail(*status_of(error))
