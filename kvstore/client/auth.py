"""Users, roles and what they may do: the part of the client's face that administers authentication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvstore.client.caller import Caller
from kvstore.client.compare import Key, key_range
from kvstore.client.methods import (
    AUTH_DISABLE,
    AUTH_ENABLE,
    AUTH_STATUS,
    AUTHENTICATE,
    ROLE_ADD,
    ROLE_DELETE,
    ROLE_GET,
    ROLE_GRANT_PERMISSION,
    ROLE_LIST,
    ROLE_REVOKE_PERMISSION,
    USER_ADD,
    USER_CHANGE_PASSWORD,
    USER_DELETE,
    USER_GET,
    USER_GRANT_ROLE,
    USER_LIST,
    USER_REVOKE_ROLE,
)
from kvstore.pb import authpb_pb2 as authpb
from kvstore.pb import etcdserverpb_pb2 as pb


@dataclass(frozen=True)
class AuthState:
    enabled: bool
    revision: int
    """Grows with every change of a user or a role."""


@dataclass(frozen=True)
class Permission:
    """kind: "READ", "WRITE" or "READWRITE". range_end b"": the one key; b"\\0": every key from `key` on."""

    kind: str
    key: bytes
    range_end: bytes = b""


class AuthMethods:
    """Mixed into Client. With authentication on all of it is for the user root's kind: users with the role
    root; a user may also ask for itself and for the roles it has."""

    caller: Caller

    async def auth_enable(self) -> None:
        """From now on every call says who it is from. Needs a user root that has the role root."""
        await self.caller.write(AUTH_ENABLE, pb.AuthEnableRequest())

    async def auth_disable(self) -> None:
        await self.caller.write(AUTH_DISABLE, pb.AuthDisableRequest())

    async def auth_status(self) -> AuthState:
        response = await self.caller.read(AUTH_STATUS, pb.AuthStatusRequest())
        return AuthState(response.enabled, response.authRevision)

    async def authenticate(self, name: str, password: str) -> str:
        """A token, to be sent as the metadata `token`. The client's own user needs none of this."""
        request = pb.AuthenticateRequest(name=name, password=password)
        return (await self.caller.read(AUTHENTICATE, request)).token

    async def user_add(self, name: str, password: str = "", *, no_password: bool = False) -> None:
        """no_password: only a client certificate with this common name can prove to be this user."""
        options = authpb.UserAddOptions(no_password=no_password)
        await self.caller.write(
            USER_ADD, pb.AuthUserAddRequest(name=name, password=password, options=options)
        )

    async def user_get(self, name: str) -> list[str]:
        """The user's roles."""
        return list((await self.caller.read(USER_GET, pb.AuthUserGetRequest(name=name))).roles)

    async def users(self) -> list[str]:
        return list((await self.caller.read(USER_LIST, pb.AuthUserListRequest())).users)

    async def user_delete(self, name: str) -> None:
        await self.caller.write(USER_DELETE, pb.AuthUserDeleteRequest(name=name))

    async def user_change_password(self, name: str, password: str) -> None:
        request = pb.AuthUserChangePasswordRequest(name=name, password=password)
        await self.caller.write(USER_CHANGE_PASSWORD, request)

    async def user_grant_role(self, name: str, role: str) -> None:
        await self.caller.write(USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest(user=name, role=role))

    async def user_revoke_role(self, name: str, role: str) -> None:
        await self.caller.write(USER_REVOKE_ROLE, pb.AuthUserRevokeRoleRequest(name=name, role=role))

    async def role_add(self, role: str) -> None:
        await self.caller.write(ROLE_ADD, pb.AuthRoleAddRequest(name=role))

    async def role_get(self, role: str) -> Sequence[Permission]:
        response = await self.caller.read(ROLE_GET, pb.AuthRoleGetRequest(role=role))
        return [
            Permission(authpb.Permission.Type.Name(each.permType), each.key, each.range_end)
            for each in response.perm
        ]

    async def roles(self) -> list[str]:
        return list((await self.caller.read(ROLE_LIST, pb.AuthRoleListRequest())).roles)

    async def role_delete(self, role: str) -> None:
        """Takes it from every user who has it."""
        await self.caller.write(ROLE_DELETE, pb.AuthRoleDeleteRequest(role=role))

    async def role_grant_permission(
        self,
        role: str,
        kind: str,
        key: Key,
        *,
        range_end: Key | None = None,
        prefix: bool = False,
        from_key: bool = False,
    ) -> None:
        """kind: "READ", "WRITE" or "READWRITE". The same keys granted again: the kind is replaced."""
        start, end = key_range(key, range_end=range_end, prefix=prefix, from_key=from_key)
        permission = authpb.Permission(permType=kind.upper(), key=start, range_end=end)
        request = pb.AuthRoleGrantPermissionRequest(name=role, perm=permission)
        await self.caller.write(ROLE_GRANT_PERMISSION, request)

    async def role_revoke_permission(
        self,
        role: str,
        key: Key,
        *,
        range_end: Key | None = None,
        prefix: bool = False,
        from_key: bool = False,
    ) -> None:
        """Of exactly the keys that a permission was granted for."""
        start, end = key_range(key, range_end=range_end, prefix=prefix, from_key=from_key)
        request = pb.AuthRoleRevokePermissionRequest(role=role, key=start, range_end=end)
        await self.caller.write(ROLE_REVOKE_PERMISSION, request)
