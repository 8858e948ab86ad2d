"""Authentication on three members: turned on and off under load, no member differs (etcd 14571), nothing that was
forbidden by an acknowledged change is written after it, and a token counts everywhere at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from kvstore.client import Client, ClientError, errors
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.state.machine import StateMachine
from kvstore.state.storage_process import AUTH
from tests.cluster.harness import MemberHandle, TestCluster, running

ROUNDS = 8
FLAGS = ["--bcrypt-cost", "4", "--log-level", "warn"]


@dataclass
class Rules:
    """What is forbidden to whom by now, as far as is acknowledged. A number grows with each change, so that a
    write knows whether one rule held from its beginning to its end."""

    version: int = 0
    forbidden: frozenset[str] = frozenset()
    broken: list[str] = field(default_factory=list)
    written: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    done: bool = False

    def change(self, *forbidden: str) -> None:
        self.version += 1
        self.forbidden = frozenset(forbidden)

    def unclear(self) -> None:
        """A change is on its way."""
        self.change()


async def write(client: Client, who: str, name: str, rules: Rules) -> None:
    number = 0
    while not rules.done:
        number += 1
        version, forbidden = rules.version, who in rules.forbidden
        try:
            await client.put(f"k/{name}/{number}", "v")
        except (errors.InvalidRequest, errors.PermissionDenied, errors.Unauthenticated):
            rules.refused[who] = rules.refused.get(who, 0) + 1
        else:
            rules.written[who] = rules.written.get(who, 0) + 1
            if forbidden and version == rules.version:
                rules.broken.append(f"{name} wrote {number} under {rules}")
        await asyncio.sleep(0)


async def change(root: Client, rules: Rules) -> None:
    """Every kind of change, each with who is shut out by it once it is acknowledged."""
    for number in range(ROUNDS):
        rules.unclear()
        await root.auth_enable()
        rules.change("nobody")
        await asyncio.sleep(0.02)
        rules.unclear()
        await root.role_revoke_permission("writer", "k/", prefix=True)
        rules.change("nobody", "u")
        await root.user_add(f"another{number}", "p")  # none of u's business
        await asyncio.sleep(0.02)
        rules.unclear()
        await root.role_grant_permission("writer", "write", "k/", prefix=True)
        rules.change("nobody")
        await root.user_change_password("u", "p")
        await asyncio.sleep(0.02)
        rules.unclear()
        await root.auth_disable()
        await asyncio.sleep(0.02)
    rules.done = True


def stored(cluster: TestCluster) -> list[tuple[object, ...]]:
    """What each member has on its disk: the users' and roles' bytes, the keys, the revision."""
    found: list[tuple[object, ...]] = []
    for member in cluster.members:
        member.stop()
        machine = StateMachine.open(str(member.data_dir / "member" / "db"), backend="sync", sync=False)
        table = list(machine._reader.table(AUTH))
        found.append((table, machine.hash_kv(), machine.revision, machine.auth.revision))
        machine.abandon()
    return found


async def test_members_do_not_differ_when_it_is_turned_on_under_load(tmp_path: Path) -> None:
    with running(tmp_path, extra=FLAGS) as cluster:
        rules = Rules()
        async with asyncio.TaskGroup() as tasks, Client(cluster.endpoints, user="root", password="p") as root:
            await root.role_add("writer")
            await root.role_grant_permission("writer", "write", "k/", prefix=True)
            for user, role in (("root", "root"), ("u", "writer")):
                await root.user_add(user, "p")
                await root.user_grant_role(user, role)
            clients: list[Client] = []
            for at, endpoint in enumerate(cluster.endpoints):
                for who in ("nobody", "u", "root"):
                    known = {} if who == "nobody" else {"user": who, "password": "p"}
                    client = Client(endpoint, **known)  # type: ignore[arg-type]
                    clients.append(client)
                    tasks.create_task(write(client, who, f"{who}{at}", rules))
            await change(root, rules)
        for client in clients:
            await client.close()
        assert rules.broken == []
        assert set(rules.written) == {"nobody", "u", "root"} and set(rules.refused) == {"nobody", "u"}
        cluster.wait_equal()
        first, *others = stored(cluster)
        assert all(other == first for other in others)
        assert len(first[0]) == 1 + 2 + ROUNDS + 1  # type: ignore[arg-type]  # state, users, a role


@asynccontextmanager
async def behind(follower: MemberHandle) -> AsyncIterator[list[Awaitable[object]]]:
    """The member stands still meanwhile. What is put into the list has been sent to it by then, and is the first
    thing it reads when it goes on, or nearly."""
    assert follower.process is not None
    sent: list[Awaitable[object]] = []
    follower.process.send_signal(signal.SIGSTOP)
    try:
        yield sent
        await asyncio.sleep(0.05)  # for the bytes to be on their way; whether they are decides nothing
    finally:
        follower.process.send_signal(signal.SIGCONT)


async def test_a_member_that_has_not_heard_of_a_change_yet_lets_nobody_by(tmp_path: Path) -> None:
    """It asks nobody for a name, or finds a permission that is gone; what it then proposes is refused by all."""
    with running(tmp_path, extra=FLAGS) as cluster:
        leader = cluster.leader()
        follower = next(member for member in cluster.members if member is not leader)
        async with (
            Client(leader.endpoint, user="root", password="p") as root,
            Client(follower.endpoint, timeout_s=10) as nobody,
            Client(follower.endpoint, user="u", password="p", timeout_s=10) as user,
        ):
            await root.role_add("writer")
            await root.role_grant_permission("writer", "readwrite", "k")
            for name, role in (("root", "root"), ("u", "writer")):
                await root.user_add(name, "p")
                await root.user_grant_role(name, role)
            for _ in range(4):
                await nobody.put("k", "while it is off")
                async with behind(follower) as sent:
                    await root.auth_enable()
                    sent += [asyncio.ensure_future(nobody.put("k", "forbidden")) for _ in range(5)]
                for put in sent:
                    with pytest.raises(errors.NoUserName):
                        await put
                await user.put("k", "as u")
                async with behind(follower) as sent:
                    await root.role_revoke_permission("writer", "k")
                    sent += [asyncio.ensure_future(user.put("k", "forbidden")) for _ in range(5)]
                for put in sent:
                    with pytest.raises(errors.PermissionDenied):
                        await put
                assert (await root.get("k")).kvs[0].value == b"as u"
                await root.role_grant_permission("writer", "readwrite", "k")
                await root.auth_disable()
                await user.get("k")


async def test_a_token_counts_on_every_member_as_soon_as_it_is_there(tmp_path: Path) -> None:
    with running(tmp_path, extra=FLAGS) as cluster:
        async with Client(cluster.endpoints, user="root", password="p") as root:
            await root.user_add("root", "p")
            await root.user_grant_role("root", "root")
            await root.auth_enable()
        channels = [grpc.aio.insecure_channel(endpoint) for endpoint in cluster.endpoints]

        async def call(at: int, path: str, request: object, reply: object, token: str = "") -> object:
            method = channels[at].unary_unary(
                path,
                request_serializer=type(request).SerializeToString,  # type: ignore[attr-defined]
                response_deserializer=reply.FromString,  # type: ignore[attr-defined]
            )
            return await method(request, timeout=10, metadata=(("token", token),) if token else ())

        for number in range(18):
            at = number % 3
            login = pb.AuthenticateRequest(name="root", password="p")
            granted = await call(at, "/etcdserverpb.Auth/Authenticate", login, pb.AuthenticateResponse)
            token = granted.token  # type: ignore[attr-defined]
            other = (at + 1 + number // 3 % 2) % 3
            read = pb.RangeRequest(key=b"k", serializable=number % 2 == 0)
            await call(other, "/etcdserverpb.KV/Range", read, pb.RangeResponse, token)
        for channel in channels:
            await channel.close(None)
        try:
            async with Client(cluster.endpoints) as nobody:
                await nobody.get("k")
        except ClientError as refusal:
            assert refusal.message == "etcdserver: user name is empty"
        else:
            raise AssertionError("nobody was let in")
