"""Users, roles and permissions: what each command changes, what it refuses, and that it is there after a restart."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from google.protobuf.message import Message

from kvstore import errors
from kvstore.commands import Kind, own_command
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.authpb_pb2 import Permission, UserAddOptions
from kvstore.pb.internal_pb2 import AuthorizedCommand, TokenGrant
from kvstore.state.auth import Identity
from kvstore.state.storage_process import AUTH
from tests.unit.state.harness import Replica

HASH = base64.b64encode(b"$2b$04$" + b"a" * 53).decode()


class Administered(Replica):
    """A replica and short words for what root does to it."""

    def user(self, name: str, *roles: str) -> None:
        self.do(Kind.USER_ADD, pb.AuthUserAddRequest(name=name, hashedPassword=HASH))
        for role in roles:
            self.do(Kind.USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest(user=name, role=role))

    def role(self, name: str, *permissions: Permission) -> None:
        self.do(Kind.ROLE_ADD, pb.AuthRoleAddRequest(name=name))
        for each in permissions:
            self.do(Kind.ROLE_GRANT_PERMISSION, pb.AuthRoleGrantPermissionRequest(name=name, perm=each))

    def enable(self) -> None:
        self.user("root", "root")
        self.do(Kind.AUTH_ENABLE, pb.AuthEnableRequest())

    def as_user(
        self, user: str, kind: Kind, request: Message, revision: int | None = None
    ) -> tuple[int, bytes]:
        """A command in a user's name, shown at an auth revision, by default the present one."""
        command = AuthorizedCommand(user=user, kind=kind, payload=request.SerializeToString())
        command.revision = self.machine.auth.revision if revision is None else revision
        return self.do(Kind.AUTHORIZED, command)

    def as_root(self, kind: Kind, request: Message) -> tuple[int, bytes]:
        return self.as_user("root", kind, request)


@pytest.fixture
def replica(tmp_path: Path) -> Administered:
    return Administered(str(tmp_path))


def permission(kind: Permission.Type, key: bytes, range_end: bytes = b"") -> Permission:
    return Permission(permType=kind, key=key, range_end=range_end)


def test_users_and_roles_come_and_go_and_every_change_counts(replica: Administered) -> None:
    auth = replica.machine.auth
    assert auth.revision == 1
    replica.role("r", permission(Permission.READ, b"a", b"c"))
    replica.user("u", "r", "r")
    assert auth.revision == 5, "granting a role twice changes nothing"
    assert list(auth.users["u"].user.roles) == ["r"]
    replica.do(Kind.USER_ADD, pb.AuthUserAddRequest(name="n", options=UserAddOptions(no_password=True)))
    change = pb.AuthUserChangePasswordRequest(name="n", hashedPassword=HASH)
    replica.do(Kind.USER_CHANGE_PASSWORD, change)
    assert auth.users["n"].user.password == b"", "who has no password keeps having none"
    replica.do(Kind.ROLE_DELETE, pb.AuthRoleDeleteRequest(role="r"))
    assert list(auth.users["u"].user.roles) == [] and auth.roles == {}
    replica.do(Kind.USER_DELETE, pb.AuthUserDeleteRequest(name="u"))
    assert list(auth.users) == ["n"] and auth.revision == 9
    assert replica.machine.revision == 1, "no key was touched"


@pytest.mark.parametrize("crash", [False, True])
def test_all_of_it_is_there_after_a_restart(replica: Administered, crash: bool) -> None:
    long_names = ["x" * 479 + end for end in ("a", "b")] + ["y" * 5000 + end for end in ("a", "b")]
    replica.role("r", permission(Permission.READWRITE, b"k"))
    for name in long_names:
        replica.user(name, "r")
    replica.enable()
    before = replica.machine.auth
    replica.reopen(crash=crash)
    after = replica.machine.auth
    assert after is not before and after.enabled
    assert (after.users, after.roles, after.revision) == (before.users, before.roles, before.revision)
    assert sorted(after.users) == sorted([*long_names, "root"])


def test_a_snapshot_brings_them(replica: Administered, tmp_path: Path) -> None:
    replica.role("r", permission(Permission.READ, b"k"))
    replica.user("u", "r")
    replica.enable()
    replica.machine.flush()
    replica.machine.snapshot_to(str(tmp_path / "snapshot"))
    (tmp_path / "other").mkdir()
    other = Replica(str(tmp_path / "other"))
    heard: list[bool] = []
    other.machine.on_auth = lambda: heard.append(other.machine.auth.enabled)
    other.machine.turn()
    (tmp_path / "snapshot").rename(tmp_path / "other" / "incoming")
    auth = other.machine.auth
    other.machine.reopen_from(str(tmp_path / "other" / "incoming"))
    other.machine.turn()
    assert other.machine.auth is auth, "who asks holds on to it"
    assert auth.enabled and auth.users == replica.machine.auth.users
    assert heard == [False, True], "who decided by the old ones is told"


def test_what_is_refused(replica: Administered) -> None:
    replica.role("r", permission(Permission.READ, b"k"))
    replica.user("u")

    def refused(error: type[errors.StoreError], kind: Kind, request: Message) -> None:
        before = replica.machine.auth.revision
        with pytest.raises(error):
            replica.do(kind, request)
        assert replica.machine.auth.revision == before

    def grant(**keys: object) -> pb.AuthRoleGrantPermissionRequest:
        return pb.AuthRoleGrantPermissionRequest(name="r", perm=Permission(**keys))  # type: ignore[arg-type]

    refused(errors.NoUserName, Kind.USER_ADD, pb.AuthUserAddRequest())
    refused(errors.UserExists, Kind.USER_ADD, pb.AuthUserAddRequest(name="u"))
    refused(errors.UserNotFound, Kind.USER_DELETE, pb.AuthUserDeleteRequest(name="x"))
    refused(errors.UserNotFound, Kind.USER_CHANGE_PASSWORD, pb.AuthUserChangePasswordRequest(name="x"))
    refused(errors.UserNotFound, Kind.USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest(user="x", role="r"))
    refused(errors.RoleNotFound, Kind.USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest(user="u", role="x"))
    refused(errors.RoleNotGranted, Kind.USER_REVOKE_ROLE, pb.AuthUserRevokeRoleRequest(name="u", role="r"))
    refused(errors.NoRoleName, Kind.ROLE_ADD, pb.AuthRoleAddRequest())
    refused(errors.RoleExists, Kind.ROLE_ADD, pb.AuthRoleAddRequest(name="r"))
    refused(errors.RoleNotFound, Kind.ROLE_DELETE, pb.AuthRoleDeleteRequest(role="x"))
    refused(errors.NoPermissionGiven, Kind.ROLE_GRANT_PERMISSION, pb.AuthRoleGrantPermissionRequest(name="r"))
    refused(errors.NoPermissionGiven, Kind.ROLE_GRANT_PERMISSION, grant(permType=7, key=b"k"))
    refused(errors.InvalidAuthManagement, Kind.ROLE_GRANT_PERMISSION, grant(key=b""))
    refused(errors.InvalidAuthManagement, Kind.ROLE_GRANT_PERMISSION, grant(key=b"k", range_end=b"k"))
    revoke = pb.AuthRoleRevokePermissionRequest(role="r", key=b"k", range_end=b"l")
    refused(errors.PermissionNotGranted, Kind.ROLE_REVOKE_PERMISSION, revoke)
    refused(errors.RootUserMissing, Kind.AUTH_ENABLE, pb.AuthEnableRequest())
    replica.user("root")
    refused(errors.RootRoleMissing, Kind.AUTH_ENABLE, pb.AuthEnableRequest())


def test_the_same_keys_granted_again_replace_the_kind(replica: Administered) -> None:
    replica.role(
        "r",
        permission(Permission.WRITE, b"a", b"c"),
        permission(Permission.READ, b"a", b"b"),
        permission(Permission.READWRITE, b"a", b"c"),
    )
    kept = [
        (each.key, each.range_end, each.permType) for each in replica.machine.auth.roles["r"].keyPermission
    ]
    assert kept == [(b"a", b"b", Permission.READ), (b"a", b"c", Permission.READWRITE)]


def test_nobody_is_locked_out_while_it_is_on(replica: Administered) -> None:
    replica.do(Kind.ROLE_ADD, pb.AuthRoleAddRequest(name="root"))
    replica.enable()
    for kind, request in (
        (Kind.USER_DELETE, pb.AuthUserDeleteRequest(name="root")),
        (Kind.ROLE_DELETE, pb.AuthRoleDeleteRequest(role="root")),
        (Kind.USER_REVOKE_ROLE, pb.AuthUserRevokeRoleRequest(name="root", role="root")),
    ):
        with pytest.raises(errors.InvalidAuthManagement):
            replica.as_root(kind, request)
    replica.as_root(Kind.AUTH_DISABLE, pb.AuthDisableRequest())
    replica.do(Kind.ROLE_DELETE, pb.AuthRoleDeleteRequest(role="root"))
    replica.do(Kind.USER_DELETE, pb.AuthUserDeleteRequest(name="root"))


# In whose name


def test_a_write_without_a_name_is_refused_from_the_entry_on_that_asks_for_one(replica: Administered) -> None:
    """Taken by a member that had not applied that entry yet; etcd refuses it by its auth revision."""
    replica.user("root", "root")
    put = pb.PutRequest(key=b"k")
    outcomes = replica.apply((Kind.PUT, put), (Kind.AUTH_ENABLE, pb.AuthEnableRequest()), (Kind.PUT, put))
    assert outcomes[0] == (2, b"") and outcomes[1] == (2, b"")
    assert isinstance(outcomes[2], errors.NoUserName)
    own = {*(Kind.AUTHORIZED, Kind.TOKEN_GRANT, Kind.MEMBER_PUBLISH, Kind.ANNOUNCE_END)}
    own |= {Kind.LEASE_EXPIRE, Kind.LEASE_CHECKPOINT}
    for kind in Kind:
        if kind not in own:
            (outcome,) = replica.apply((kind, pb.AuthEnableRequest()))
            assert isinstance(outcome, errors.NoUserName), kind


def test_a_members_own_commands_stand_under_nobodys_permissions(replica: Administered) -> None:
    replica.put(b"k")
    replica.enable()
    kind, payload = own_command(Kind.COMPACT, pb.CompactionRequest(revision=2).SerializeToString())
    assert replica.do(kind, AuthorizedCommand.FromString(payload)) == (2, b"")
    assert replica.machine.compact_revision == 2


def test_a_permission_taken_away_before_the_write_is_applied_counts(replica: Administered) -> None:
    replica.role("r", permission(Permission.WRITE, b"k"))
    replica.user("u", "r")
    replica.enable()
    put = pb.PutRequest(key=b"k")
    shown = replica.machine.auth.revision
    replica.as_user("u", Kind.PUT, put, shown)
    replica.as_root(Kind.USER_ADD, pb.AuthUserAddRequest(name="another", hashedPassword=HASH))
    replica.as_user("u", Kind.PUT, put, shown)  # etcd: "revision of auth store is old"
    replica.as_root(Kind.ROLE_REVOKE_PERMISSION, pb.AuthRoleRevokePermissionRequest(role="r", key=b"k"))
    with pytest.raises(errors.PermissionDenied):
        replica.as_user("u", Kind.PUT, put, shown)
    assert replica.machine.revision == 3


def test_who_was_somebody_before_the_password_changed_shows_it_again(replica: Administered) -> None:
    replica.role("r", permission(Permission.WRITE, b"k"))
    replica.user("u", "r")
    replica.enable()
    put, shown = pb.PutRequest(key=b"k"), replica.machine.auth.revision
    change = pb.AuthUserChangePasswordRequest(name="u", hashedPassword=HASH)
    replica.as_root(Kind.USER_CHANGE_PASSWORD, change)
    with pytest.raises(errors.AuthStoreOld):
        replica.as_user("u", Kind.PUT, put, shown)
    replica.as_user("u", Kind.PUT, put)
    shown = replica.machine.auth.revision
    replica.as_root(Kind.USER_DELETE, pb.AuthUserDeleteRequest(name="u"))
    with pytest.raises(errors.AuthStoreOld):
        replica.as_user("u", Kind.PUT, put, shown)
    replica.as_root(Kind.USER_ADD, pb.AuthUserAddRequest(name="u", hashedPassword=HASH))
    with pytest.raises(errors.AuthStoreOld):
        replica.as_user("u", Kind.PUT, put, shown)  # another user of the same name


def test_turning_it_off_ends_everything_that_was_shown(replica: Administered) -> None:
    replica.enable()
    auth, shown = replica.machine.auth, replica.machine.auth.revision
    replica.do(Kind.TOKEN_GRANT, TokenGrant(user="root", revision=shown, letters="abc"))
    assert auth.tokens == {f"abc.{len(replica.log)}": Identity("root", shown)}
    replica.as_root(Kind.AUTH_DISABLE, pb.AuthDisableRequest())
    assert auth.tokens == {}
    replica.as_user("nobody", Kind.PUT, pb.PutRequest(key=b"k"))  # on its way when it was turned off
    replica.do(Kind.AUTH_ENABLE, pb.AuthEnableRequest())
    with pytest.raises(errors.AuthStoreOld):
        replica.as_user("root", Kind.PUT, pb.PutRequest(key=b"k"), shown)


def test_a_token_is_not_granted_for_a_password_that_changed_meanwhile(replica: Administered) -> None:
    grant = TokenGrant(user="root", revision=1, letters="abc")
    with pytest.raises(errors.AuthNotEnabled):
        replica.do(Kind.TOKEN_GRANT, grant)
    replica.enable()
    grant.revision = replica.machine.auth.revision
    change = pb.AuthUserChangePasswordRequest(name="root", hashedPassword=HASH)
    replica.as_root(Kind.USER_CHANGE_PASSWORD, change)
    with pytest.raises(errors.AuthenticationFailed):
        replica.do(Kind.TOKEN_GRANT, grant)
    assert replica.machine.auth.tokens == {}


def test_only_root_administers(replica: Administered) -> None:
    replica.role("all", permission(Permission.READWRITE, b"\0", b"\0"))
    replica.user("u", "all")
    replica.enable()
    for kind in sorted(
        set(Kind) - {Kind.PUT, Kind.DELETE_RANGE, Kind.TXN, Kind.LEASE_GRANT, Kind.LEASE_REVOKE}
    ):
        with pytest.raises(errors.PermissionDenied):
            replica.as_user("u", kind, pb.AuthEnableRequest())


def test_members_that_apply_the_same_log_hold_the_same_bytes(replica: Administered, tmp_path: Path) -> None:
    replica.role("r", permission(Permission.READWRITE, b"k"))
    replica.user("u", "r")
    replica.enable()
    for revision in range(1, replica.machine.auth.revision + 1):
        for user in ("u", "root", "nobody"):
            command = AuthorizedCommand(user=user, revision=revision, kind=Kind.PUT)
            command.payload = pb.PutRequest(key=b"k", value=b"%d" % revision).SerializeToString()
            replica.apply((Kind.AUTHORIZED, command))
    (tmp_path / "other").mkdir()
    other = Replica(str(tmp_path / "other"))
    other.log = replica.log
    other.replay()
    for machine in (replica.machine, other.machine):
        machine.flush()

    def table(each: Replica) -> list[tuple[bytes, bytes]]:
        return list(each.machine._reader.table(AUTH))

    assert table(replica) == table(other) and len(table(replica)) == 4
    assert replica.machine.hash_kv() == other.machine.hash_kv()
