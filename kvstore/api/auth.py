"""etcdserverpb.Auth: users, roles, permissions, and the exchange of a password for a token.

A password gets no further than this file: what is replicated is its hash, made by the member that was asked.
Changes are answered when applied here; questions after a read index. Who may ask is the guard's to say, but
what a change that is on its way would change is asked again when the answer is made.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from kvstore import errors, log
from kvstore.api.context import Context, Reply, parse
from kvstore.api.errors import fail
from kvstore.api.passwords import Passwords, Run, is_hash
from kvstore.api.tokens import JwtTokens
from kvstore.commands import Kind
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.authpb_pb2 import Permission
from kvstore.pb.internal_pb2 import TokenGrant
from kvstore.replication.outbox import Outcome
from kvstore.rpc import Methods, UnaryCall, UnaryHandler, UnaryMethod
from kvstore.state.auth import ROOT, Identity

_ALL = Permission(permType=Permission.READWRITE, range_end=b"\0")
"""What the role root permits, as etcd tells it."""


class AuthService:
    def __init__(self, context: Context, passwords: Passwords, run: Run) -> None:
        self._context = context
        self._auth = context.auth
        self._passwords = passwords
        self._run = run

    def methods(self) -> Methods:
        methods: dict[str, UnaryHandler] = {
            "AuthEnable": self._write(Kind.AUTH_ENABLE, pb.AuthEnableRequest),
            "AuthDisable": self._write(Kind.AUTH_DISABLE, pb.AuthDisableRequest),
            "AuthStatus": self._read(pb.AuthStatusRequest, self._status),
            "Authenticate": self.authenticate,
            "UserAdd": self.user_add,
            "UserGet": self._read(pb.AuthUserGetRequest, self._user_get),
            "UserList": self._read(pb.AuthUserListRequest, self._user_list),
            "UserDelete": self._write(Kind.USER_DELETE, pb.AuthUserDeleteRequest),
            "UserChangePassword": self.user_change_password,
            "UserGrantRole": self._write(Kind.USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest),
            "UserRevokeRole": self._write(Kind.USER_REVOKE_ROLE, pb.AuthUserRevokeRoleRequest),
            "RoleAdd": self._write(Kind.ROLE_ADD, pb.AuthRoleAddRequest),
            "RoleGet": self._read(pb.AuthRoleGetRequest, self._role_get),
            "RoleList": self._read(pb.AuthRoleListRequest, self._role_list),
            "RoleDelete": self._write(Kind.ROLE_DELETE, pb.AuthRoleDeleteRequest),
            "RoleGrantPermission": self._write(Kind.ROLE_GRANT_PERMISSION, pb.AuthRoleGrantPermissionRequest),
            "RoleRevokePermission": self._write(
                Kind.ROLE_REVOKE_PERMISSION, pb.AuthRoleRevokePermissionRequest
            ),
        }
        return {f"/etcdserverpb.Auth/{name}": UnaryMethod(handler) for name, handler in methods.items()}

    # Changes

    def _write(self, kind: Kind, request: type[Message]) -> UnaryHandler:
        def handler(call: UnaryCall, data: bytes) -> None:
            if parse(call, request, data) is not None:
                self._propose(call, kind, data)

        return handler

    def _propose(self, call: UnaryCall, kind: Kind, payload: bytes) -> None:
        if not self._context.has_leader(call):
            return
        reply = Reply(self._context, call)

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, tuple):
                log.info("auth: applied a change", change=kind.name.lower())
            reply(outcome)

        self._context.propose(call, kind, payload, done)

    def user_add(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, pb.AuthUserAddRequest, data)
        if request is None:
            return
        if request.options.no_password:
            request.ClearField("password")
            request.ClearField("hashedPassword")
            self._propose(call, Kind.USER_ADD, request.SerializeToString())
        else:
            self._with_hash(call, Kind.USER_ADD, request, empty_password=True)

    def user_change_password(self, call: UnaryCall, data: bytes) -> None:
        """With neither a password nor a hash there is no password afterwards that would be right, as in etcd."""
        request = parse(call, pb.AuthUserChangePasswordRequest, data)
        if request is not None:
            self._with_hash(call, Kind.USER_CHANGE_PASSWORD, request, empty_password=False)

    def _with_hash(
        self,
        call: UnaryCall,
        kind: Kind,
        request: pb.AuthUserAddRequest | pb.AuthUserChangePasswordRequest,
        *,
        empty_password: bool,
    ) -> None:
        """Proposes it with the password's hash in the password's place. A hash that the client has made is taken
        where it gives no password. empty_password: without a hash, no password is one of no letters."""
        password = request.password
        request.ClearField("password")
        try:
            if request.hashedPassword and not password:
                if not _is_hash(request.hashedPassword):
                    raise errors.BadPasswordHash
            elif password or empty_password:

                def made(hashed: bytes) -> None:
                    request.hashedPassword = base64.b64encode(hashed).decode()
                    self._propose(call, kind, request.SerializeToString())

                self._passwords.make(password, made)
                return
        except errors.StoreError as problem:
            fail(call, problem)
            return
        self._propose(call, kind, request.SerializeToString())

    # Questions

    def _read(self, kind: type[Any], answer: Callable[[Any], Message]) -> UnaryHandler:
        def handler(call: UnaryCall, data: bytes) -> None:
            request = parse(call, kind, data)
            if request is None or not self._context.has_leader(call):
                return

            def ready(problem: errors.StoreError | None) -> None:
                context = self._context
                try:
                    if problem is not None:
                        raise problem
                    if self._auth.enabled and kind is not pb.AuthStatusRequest:
                        context.guard.check(call, request)
                    body = answer(request).SerializeToString()
                except errors.StoreError as refusal:
                    fail(call, refusal)
                else:
                    call.reply(context.header(context.machine.revision) + body)

            self._context.driver.read(ready)

        return handler

    def _status(self, request: pb.AuthStatusRequest) -> pb.AuthStatusResponse:
        return pb.AuthStatusResponse(enabled=self._auth.enabled, authRevision=self._auth.revision)

    def _user_get(self, request: pb.AuthUserGetRequest) -> pb.AuthUserGetResponse:
        record = self._auth.users.get(request.name)
        if record is None:
            raise errors.UserNotFound
        return pb.AuthUserGetResponse(roles=record.user.roles)

    def _user_list(self, request: pb.AuthUserListRequest) -> pb.AuthUserListResponse:
        return pb.AuthUserListResponse(users=sorted(self._auth.users, key=str.encode))

    def _role_get(self, request: pb.AuthRoleGetRequest) -> pb.AuthRoleGetResponse:
        role = self._auth.roles.get(request.role)
        if role is None:
            raise errors.RoleNotFound
        return pb.AuthRoleGetResponse(perm=[_ALL] if request.role == ROOT else role.keyPermission)

    def _role_list(self, request: pb.AuthRoleListRequest) -> pb.AuthRoleListResponse:
        return pb.AuthRoleListResponse(roles=sorted(self._auth.roles, key=str.encode))

    # A password for a token

    def authenticate(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, pb.AuthenticateRequest, data)
        if request is None or not self._context.has_leader(call):
            return
        name, password = request.name, request.password

        def ready(problem: errors.StoreError | None) -> None:
            if problem is not None:
                fail(call, problem)
            elif not call.cancelled:
                self._check(call, name, password)

        self._context.driver.read(ready)

    def _check(self, call: UnaryCall, name: str, password: str) -> None:
        auth = self._auth
        if not auth.enabled:
            fail(call, errors.AuthNotEnabled())
            return
        record = auth.users.get(name)
        hashed = None if record is None or record.user.options.no_password else record.user.password
        identity = Identity(name, auth.revision)  # as of the hash that is looked at, whatever comes meanwhile

        def checked(right: bool) -> None:
            if right:
                self._grant(call, identity)
            else:
                log.warn("invalid authentication was requested", user=name)
                fail(call, errors.AuthenticationFailed())

        try:
            self._passwords.check(name, hashed, password, checked, lambda: not call.cancelled)
        except errors.TooManyRequests as problem:
            fail(call, problem)

    def _grant(self, call: UnaryCall, identity: Identity) -> None:
        context, tokens = self._context, self._context.guard.tokens
        if not isinstance(tokens, JwtTokens):
            grant = TokenGrant(user=identity.user, revision=identity.revision, letters=tokens.letters())
            context.driver.propose(Kind.TOKEN_GRANT, grant.SerializeToString(), Reply(context, call))
        elif tokens.signs:

            def signed(token: str) -> None:
                body = pb.AuthenticateResponse(token=token).SerializeToString()
                call.reply(context.header(context.machine.revision) + body)

            self._run(lambda: tokens.sign(identity), signed)
        else:
            fail(call, errors.TokensMadeElsewhere())


def _is_hash(text: str) -> bool:
    try:
        return is_hash(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False
