"""A replica with users, and short words for what root does to it."""

from __future__ import annotations

import base64

from google.protobuf.message import Message

from kvstore.commands import Kind
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.authpb_pb2 import Permission
from kvstore.pb.internal_pb2 import AuthorizedCommand
from tests.unit.state.harness import Replica

HASH = base64.b64encode(b"$2b$04$" + b"a" * 53).decode()


class Administered(Replica):
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
