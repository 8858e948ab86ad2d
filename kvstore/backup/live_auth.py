"""Users and roles of a running cluster, as far as its API tells: everything but the passwords' hashes."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvstore.backup.sides import Side
from kvstore.client.errors import ClientError, PermissionDenied, Unauthenticated, Unimplemented
from kvstore.client.methods import (
    ROLE_ADD,
    ROLE_GET,
    ROLE_GRANT_PERMISSION,
    ROLE_LIST,
    USER_ADD,
    USER_GET,
    USER_GRANT_ROLE,
    USER_LIST,
)
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.authpb_pb2 import Permission

ROOT = "root"


@dataclass
class Copied:
    """problem: why nothing more came over; empty where all that can did."""

    roles: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    problem: str = ""


async def copy_auth(source: Side, target: Side) -> Copied:
    """Adds what the target lacks: roles with their permissions, and users with their roles and no password. Leaves
    authentication off, as nobody could log in."""
    found = Copied()
    ask, tell = source.client.caller.read, target.client.caller.read
    try:
        roles = {
            name: (await ask(ROLE_GET, pb.AuthRoleGetRequest(role=name))).perm
            for name in await _roles(source)
        }
        users = {
            name: (await ask(USER_GET, pb.AuthUserGetRequest(name=name))).roles
            for name in await _users(source)
        }
    except (PermissionDenied, Unauthenticated, Unimplemented) as problem:
        found.problem = f"the source does not tell its users and roles: {problem.message}"
        return found
    if not roles and not users:
        return found
    try:
        there = set(await _roles(target))
        for name, permissions in roles.items():
            if name not in there:
                await tell(ROLE_ADD, pb.AuthRoleAddRequest(name=name))
            for permission in permissions if name != ROOT else ():  # which permits everything, said or not
                perm = Permission()
                perm.CopyFrom(permission)
                await tell(ROLE_GRANT_PERMISSION, pb.AuthRoleGrantPermissionRequest(name=name, perm=perm))
            found.roles.append(name)
        there = set(await _users(target))
        for name, granted in users.items():
            if name not in there:
                request = pb.AuthUserAddRequest(name=name)
                request.options.no_password = True
                await tell(USER_ADD, request)
                found.users.append(name)
            for role in granted:
                await tell(USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest(user=name, role=role))
    except ClientError as problem:
        found.problem = f"the target did not take them: {problem.message}"
    return found


async def _roles(side: Side) -> list[str]:
    return list((await side.client.caller.read(ROLE_LIST, pb.AuthRoleListRequest())).roles)


async def _users(side: Side) -> list[str]:
    return list((await side.client.caller.read(USER_LIST, pb.AuthUserListRequest())).users)
