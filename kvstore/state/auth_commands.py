"""Changes of users, roles and of whether they are asked for: the effects of those commands.

As in apply.py a command either raises a StoreError before it has changed anything, or has its whole effect,
the same on every member. What depends on a clock, on randomness or takes long (a password's hash, a token's
letters) was settled by the member that proposed the command. Rules and errors are etcd's (auth/store.go); it
differs in three places: keys that hold nothing cannot be granted, nor can a kind of permission that there is
none of, and the same keys granted twice are always one permission.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from kvstore import errors
from kvstore.commands import Kind
from kvstore.pb.authpb_pb2 import Permission, Role, User
from kvstore.pb.etcdserverpb_pb2 import (
    AuthenticateResponse,
    AuthRoleAddRequest,
    AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
)
from kvstore.pb.internal_pb2 import TokenGrant, UserRecord
from kvstore.state.auth import ROOT, STATE, STATE_KEY, AuthStore, Identity, role_place, user_place
from kvstore.state.overlay import Overlay
from kvstore.state.storage_process import AUTH

NAME_BYTES_MAX = 32 << 10
"""What etcd's own database has room for, which a snapshot is written as."""
_KINDS = (Permission.READ, Permission.WRITE, Permission.READWRITE)


class AuthCommands:
    def __init__(self, auth: AuthStore, overlay: Overlay) -> None:
        self._auth = auth
        self._overlay = overlay
        self.index = 0
        """Of the entry being applied."""

    def effects(self) -> dict[int, Callable[[bytes], bytes]]:
        return {
            Kind.TOKEN_GRANT: self._token_grant,
            Kind.AUTH_ENABLE: self._enable,
            Kind.AUTH_DISABLE: self._disable,
            Kind.USER_ADD: self._user_add,
            Kind.USER_DELETE: self._user_delete,
            Kind.USER_CHANGE_PASSWORD: self._user_change_password,
            Kind.USER_GRANT_ROLE: self._user_grant_role,
            Kind.USER_REVOKE_ROLE: self._user_revoke_role,
            Kind.ROLE_ADD: self._role_add,
            Kind.ROLE_DELETE: self._role_delete,
            Kind.ROLE_GRANT_PERMISSION: self._role_grant_permission,
            Kind.ROLE_REVOKE_PERMISSION: self._role_revoke_permission,
        }

    # The whole

    def _enable(self, payload: bytes) -> bytes:
        """No change of any user: the auth revision stays, as in etcd."""
        auth = self._auth
        if auth.enabled:
            return b""
        record = auth.users.get(ROOT)
        if record is None:
            raise errors.RootUserMissing
        if ROOT not in record.user.roles:
            raise errors.RootRoleMissing
        auth.enabled = True
        self._store_state()
        return b""

    def _disable(self, payload: bytes) -> bytes:
        auth = self._auth
        if auth.enabled:
            auth.enabled = False
            auth.tokens.clear()
            auth.ended_revision = auth.revision + 1
            self._changed()
        return b""

    def _token_grant(self, payload: bytes) -> bytes:
        """Void where the password was changed since it was looked at."""
        auth, grant = self._auth, TokenGrant.FromString(payload)
        if not auth.enabled:
            raise errors.AuthNotEnabled
        identity = Identity(grant.user, grant.revision)
        if not auth.holds(identity):
            raise errors.AuthenticationFailed
        token = f"{grant.letters}.{self.index}"
        auth.tokens[token] = identity
        return AuthenticateResponse(token=token).SerializeToString()

    # Users

    def _user(self, name: str) -> UserRecord:
        record = self._auth.users.get(name)
        if record is None:
            raise errors.UserNotFound
        return record

    def _user_add(self, payload: bytes) -> bytes:
        request = AuthUserAddRequest.FromString(payload)
        if not request.name:
            raise errors.NoUserName
        if len(request.name.encode()) > NAME_BYTES_MAX:
            raise errors.RequestTooLarge
        if request.name in self._auth.users:
            raise errors.UserExists
        no_password = request.options.no_password
        user = User(name=request.name.encode())
        user.options.no_password = no_password
        if not no_password:
            user.password = _hash(request.hashedPassword)
        record = self._auth.users[request.name] = UserRecord(user=user)
        record.changed_revision = self._auth.revision + 1
        self._store_user(request.name)
        self._changed()
        return b""

    def _user_delete(self, payload: bytes) -> bytes:
        name = AuthUserDeleteRequest.FromString(payload).name
        if self._auth.enabled and name == ROOT:
            raise errors.InvalidAuthManagement
        self._user(name)
        del self._auth.users[name]
        self._store_user(name)
        self._changed()
        return b""

    def _user_change_password(self, payload: bytes) -> bytes:
        """A user without a password stays without one."""
        request = AuthUserChangePasswordRequest.FromString(payload)
        record = self._user(request.name)
        if not record.user.options.no_password:
            record.user.password = _hash(request.hashedPassword)
        record.changed_revision = self._auth.revision + 1
        self._store_user(request.name)
        self._changed()
        return b""

    def _user_grant_role(self, payload: bytes) -> bytes:
        """The role root need not be there."""
        request = AuthUserGrantRoleRequest.FromString(payload)
        user = self._user(request.user).user
        if request.role != ROOT and request.role not in self._auth.roles:
            raise errors.RoleNotFound
        if request.role not in user.roles:
            user.roles[:] = sorted([*user.roles, request.role])
            self._store_user(request.user)
            self._changed()
        return b""

    def _user_revoke_role(self, payload: bytes) -> bytes:
        request = AuthUserRevokeRoleRequest.FromString(payload)
        if self._auth.enabled and request.name == ROOT == request.role:
            raise errors.InvalidAuthManagement
        user = self._user(request.name).user
        if request.role not in user.roles:
            raise errors.RoleNotGranted
        user.roles.remove(request.role)
        self._store_user(request.name)
        self._changed()
        return b""

    # Roles

    def _role(self, name: str) -> Role:
        role = self._auth.roles.get(name)
        if role is None:
            raise errors.RoleNotFound
        return role

    def _role_add(self, payload: bytes) -> bytes:
        name = AuthRoleAddRequest.FromString(payload).name
        if not name:
            raise errors.NoRoleName
        if len(name.encode()) > NAME_BYTES_MAX:
            raise errors.RequestTooLarge
        if name in self._auth.roles:
            raise errors.RoleExists
        self._auth.roles[name] = Role(name=name.encode())
        self._store_role(name)
        self._changed()
        return b""

    def _role_delete(self, payload: bytes) -> bytes:
        """And takes it from everybody who has it."""
        name = AuthRoleDeleteRequest.FromString(payload).role
        if self._auth.enabled and name == ROOT:
            raise errors.InvalidAuthManagement
        self._role(name)
        del self._auth.roles[name]
        self._store_role(name)
        for user_name, record in self._auth.users.items():
            if name in record.user.roles:
                record.user.roles.remove(name)
                self._store_user(user_name)
        self._changed()
        return b""

    def _role_grant_permission(self, payload: bytes) -> bytes:
        request = AuthRoleGrantPermissionRequest.FromString(payload)
        if not request.HasField("perm") or request.perm.permType not in _KINDS:
            raise errors.NoPermissionGiven
        wanted = request.perm
        if not wanted.key or (wanted.range_end not in (b"", b"\0") and wanted.range_end <= wanted.key):
            raise errors.InvalidAuthManagement
        role = self._role(request.name)
        permissions = [each for each in role.keyPermission if not _same_keys(each, wanted)]
        permissions.append(wanted)
        permissions.sort(key=lambda each: (each.key, each.range_end))
        del role.keyPermission[:]
        role.keyPermission.extend(permissions)
        self._store_role(request.name)
        self._changed()
        return b""

    def _role_revoke_permission(self, payload: bytes) -> bytes:
        request = AuthRoleRevokePermissionRequest.FromString(payload)
        role = self._role(request.role)
        named = Permission(key=request.key, range_end=request.range_end)
        kept = [each for each in role.keyPermission if not _same_keys(each, named)]
        if len(kept) == len(role.keyPermission):
            raise errors.PermissionNotGranted
        del role.keyPermission[:]
        role.keyPermission.extend(kept)
        self._store_role(request.role)
        self._changed()
        return b""

    # Storing

    def _changed(self) -> None:
        self._auth.revision += 1
        self._store_state()

    def _store_state(self) -> None:
        auth = self._auth
        state = STATE.pack(auth.enabled, auth.revision, auth.ended_revision)
        self._overlay.filling.operations[AUTH, STATE_KEY] = state
        auth.forget_accesses()

    def _store_user(self, name: str) -> None:
        record = self._auth.users.get(name)
        content = None if record is None else record.SerializeToString()
        self._overlay.filling.operations[AUTH, user_place(name)] = content

    def _store_role(self, name: str) -> None:
        role = self._auth.roles.get(name)
        content = None if role is None else role.SerializeToString()
        self._overlay.filling.operations[AUTH, role_place(name)] = content


def _same_keys(one: Permission, other: Permission) -> bool:
    return one.key == other.key and one.range_end == other.range_end


def _hash(text: str) -> bytes:
    """The member that took the request has checked it; b"" where it cannot be read matches no password."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
