"""The service of quotas: who sees which, and what is refused before it is proposed."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import cast

import pytest

from kvstore.api.quota import QuotaService
from kvstore.commands import Kind
from kvstore.pb.etcdserverpb_pb2 import Member
from kvstore.pb.internal_pb2 import MemberRecord
from kvstore.pb.quota_pb2 import (
    QuotaGetRequest,
    QuotaGetResponse,
    QuotaListRequest,
    QuotaListResponse,
    QuotaSetRequest,
)
from kvstore.rpc import Status, UnaryCall, UnaryMethod
from tests.unit.api.door import Call, Door


@pytest.fixture
def door(tmp_path: Path) -> Door:
    door = Door(str(tmp_path), Random(1), enabled=False)
    for prefix in (b"a", b"b/", b"z"):
        door.replica.do(Kind.QUOTA_SET, QuotaSetRequest(prefix=prefix, keys_max=5))
    return door


def call(door: Door, name: str, request: QuotaGetRequest | QuotaListRequest | QuotaSetRequest) -> Call:
    made = Call({})
    method = door.guard.wrap(QuotaService(door.context).methods())[f"/kvstore.v1.Quota/{name}"]
    assert isinstance(method, UnaryMethod)
    method.handler(cast(UnaryCall, made), request.SerializeToString())
    return made


def test_everybody_sees_all_where_nobody_is_asked(door: Door) -> None:
    listed = QuotaListResponse.FromString(call(door, "List", QuotaListRequest()).sent[0])
    assert [each.prefix for each in listed.quotas] == [b"a", b"b/", b"z"]
    assert listed.header.revision == door.replica.machine.revision
    found = QuotaGetResponse.FromString(call(door, "Get", QuotaGetRequest(prefix=b"a")).sent[0]).quota
    assert (found.keys_max, found.used_keys, found.used_bytes) == (5, 1, 2)


def test_a_list_is_of_what_the_user_may_read(tmp_path: Path) -> None:
    door = Door(str(tmp_path), Random(1))
    machine = door.replica.machine
    machine.auth.enabled = False
    for prefix in (b"a", b"b/", b"z"):
        door.replica.do(Kind.QUOTA_SET, QuotaSetRequest(prefix=prefix, keys_max=5))
    machine.auth.enabled = True
    seen = {}
    for user in ("root", "reader", "writer"):
        made = Call(door.metadata(user))
        method = door.guard.wrap(QuotaService(door.context).methods())["/kvstore.v1.Quota/List"]
        assert isinstance(method, UnaryMethod)
        method.handler(cast(UnaryCall, made), b"")
        seen[user] = [each.prefix for each in QuotaListResponse.FromString(made.sent[0]).quotas]
    assert seen == {"root": [b"a", b"b/", b"z"], "reader": [b"a", b"b/"], "writer": []}


def test_older_members_are_waited_for(door: Door) -> None:
    older = MemberRecord(member=Member(ID=0xAB), data_id=1)
    door.replica.machine.members[0xAB] = older
    for name in ("Set", "Remove"):
        made = call(door, name, QuotaSetRequest(prefix=b"c", keys_max=5))
        text = "kvstore: upgrade all members first: ab runs a version that does not know this"
        assert made.ended == (Status.FAILED_PRECONDITION, text)
    assert not door.proposed
    older.level = 1
    call(door, "Set", QuotaSetRequest(prefix=b"c", keys_max=5))
    assert [kind for kind, _ in door.proposed] == [Kind.QUOTA_SET]


def test_what_cannot_be_is_refused_at_once(door: Door) -> None:
    door.proposed.clear()
    assert call(door, "Set", QuotaSetRequest(keys_max=1)).ended == (
        Status.INVALID_ARGUMENT,
        "kvstore: a quota is on a prefix of at least one byte; --quota-backend-bytes is on all",
    )
    assert not door.proposed
    call(door, "Set", QuotaSetRequest(prefix=b"p", keys_max=1))
    assert [kind for kind, _ in door.proposed] == [Kind.QUOTA_SET]
    assert call(door, "Get", QuotaGetRequest(prefix=b"nobody")).ended == (
        Status.NOT_FOUND,
        "kvstore: no quota on this prefix",
    )
