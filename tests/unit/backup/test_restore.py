"""A data directory out of a file: whole or not there, of a cluster of its own, and past what clients have seen."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from kvstore.backup.restore import BUMP_REVISIONS, Choices, RestoreFailed, configuration, restore
from kvstore.errors import Compacted
from kvstore.etcd_db import schema
from kvstore.etcd_db.reader import Database
from kvstore.etcd_db.writer import Items, write_database
from kvstore.pb.authpb_pb2 import Permission, Role, User
from kvstore.pb.etcdserverpb_pb2 import RangeRequest
from kvstore.pb.leasepb_pb2 import Lease
from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.replication.disk import RealDisk
from kvstore.replication.recovery import recover
from tests.unit.backup.carried import AS_IT_WAS, export, restored
from tests.unit.state.harness import Replica, open_machine

CLUSTER = "n1=http://127.0.0.1:1,n2=http://127.0.0.1:2"


def version(main: int, key: bytes, **fields: int) -> tuple[bytes, bytes]:
    kv = KeyValue(key=key, create_revision=main, mod_revision=main, version=1, value=b"v")
    for name, value in fields.items():
        setattr(kv, name, value)
    return schema.encode_revision(main, 0), kv.SerializeToString()


def etcd_file(
    path: Path,
    *versions: tuple[bytes, bytes],
    leases: Items = (),
    meta: Items = (),
    auth: Items = (),
    roles: Items = (),
    users: Items = (),
    digest: bool = True,
) -> Path:
    with path.open("wb") as file:
        write_database(
            file,
            [
                (schema.AUTH, auth),
                (schema.AUTH_ROLES, roles),
                (schema.AUTH_USERS, users),
                (schema.KEY, versions),
                (schema.LEASE, leases),
                (schema.META, meta),
            ],
        )
    if digest:
        data = path.read_bytes()
        path.write_bytes(data + hashlib.sha256(data).digest())
    return path


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return etcd_file(tmp_path / "x.db", version(2, b"a"), version(3, b"b"))


def test_the_revision_moves_on_and_what_was_is_compacted(snapshot: Path, tmp_path: Path) -> None:
    made, machine = restored(snapshot, tmp_path / "to", Choices())
    assert machine.revision == machine.compact_revision == made.revision == 3 + BUMP_REVISIONS
    request = RangeRequest(key=b"\0", range_end=b"\0")
    assert machine.range(request)[0] == made.revision
    assert machine.range(request)[1].count(b"\n\x01a") == 1
    request.revision = 3
    with pytest.raises(Compacted):
        machine.range(request)
    machine.abandon()


def test_members_of_one_cluster_agree_and_of_another_do_not(snapshot: Path, tmp_path: Path) -> None:
    def made(name: str, url: str, folder: str, choices: Choices) -> tuple[int, int]:
        config = configuration(
            name=name, data_dir=str(tmp_path / folder), initial_cluster=CLUSTER, token="t", peer_urls=url
        )
        done = restore(str(snapshot), config, choices)
        return done.cluster_id, done.member_id

    one = made("n1", "http://127.0.0.1:1", "1", Choices())
    other = made("n2", "http://127.0.0.1:2", "2", Choices())
    assert one[0] == other[0]
    assert one[1] != other[1]
    assert made("n2", "http://127.0.0.1:2", "3", Choices(bump_revisions=5))[0] != one[0]
    founded = made("n2", "http://127.0.0.1:2", "4", Choices(new_cluster_id=False))
    assert founded[0] != one[0]
    assert founded[1] == other[1]


def test_the_log_begins_where_the_state_stands(snapshot: Path, tmp_path: Path) -> None:
    """Not before it: whoever joins later has to be sent the state, which no entry holds."""
    made, machine = restored(snapshot, tmp_path / "to")
    wal, start = recover(str(tmp_path / "to" / "member" / "wal"), RealDisk(), machine)
    wal.close()
    assert (start.base.index, start.base.term, start.entries) == (1, 1, [])
    assert start.base.conf_state.voters == (made.member_id,)
    assert (start.applied, start.hard_state.commit, start.hard_state.term) == (1, 1, 1)
    assert start.founders == ()
    assert start.metadata.cluster_id == made.cluster_id
    assert [record.member.name for record in machine.members.values()] == ["default"]
    machine.abandon()


def test_what_is_refused(snapshot: Path, tmp_path: Path) -> None:
    config = configuration(
        name="n", data_dir=str(tmp_path / "to"), initial_cluster="", token="t", peer_urls="http://h:1"
    )
    data = snapshot.read_bytes()
    for content, text in (
        (data[:-32], "missing hash"),
        (data[:-1] + bytes([data[-1] ^ 1]), "expected sha256"),
        (b"nonsense" * 100, "missing hash"),
        (data[: 4096 * 3], "missing hash"),
    ):
        snapshot.write_bytes(content)
        with pytest.raises(RestoreFailed, match=text):
            restore(str(snapshot), config, Choices())
    with pytest.raises(RestoreFailed, match="cut off"):
        restore(str(snapshot), config, AS_IT_WAS)
    snapshot.write_bytes(b"nonsense" * 1000)
    with pytest.raises(RestoreFailed, match="not a bbolt database"):
        restore(str(snapshot), config, AS_IT_WAS)
    with pytest.raises(RestoreFailed, match="No such file"):
        restore(str(tmp_path / "nowhere.db"), config, Choices())
    with pytest.raises(RestoreFailed, match="couldn't find local name"):
        configuration(
            name="x", data_dir="d", initial_cluster=CLUSTER, token="t", peer_urls="http://127.0.0.1:1"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"], "nothing half done is left"
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "something").touch()
    with pytest.raises(RestoreFailed, match="not empty"):
        restore(str(snapshot), config, Choices())


def test_a_damaged_checksum_can_be_passed_over(snapshot: Path, tmp_path: Path) -> None:
    data = snapshot.read_bytes()
    snapshot.write_bytes(data[:-32])
    restored(snapshot, tmp_path / "plain")[1].abandon()
    snapshot.write_bytes(data[:-1] + b"?")
    restored(snapshot, tmp_path / "wrong")[1].abandon()


def test_a_file_of_other_contents_is_refused(tmp_path: Path) -> None:
    """What is not etcd's, or is damaged where bbolt cannot see it."""
    wrong: dict[str, tuple[bytes, bytes]] = {
        "is no revision": (b"x" * 17, version(2, b"a")[1]),
        "is stored at": (schema.encode_revision(3, 0), version(2, b"a")[1]),
        "out of range": (schema.encode_revision(1 << 63, 0), version(2, b"a")[1]),
        "cannot be read": (schema.encode_revision(2, 0), b"\xff\xff"),
    }
    for number, (text, element) in enumerate(wrong.items()):
        path = etcd_file(tmp_path / f"{number}.db", element)
        with pytest.raises(RestoreFailed, match=text):
            restored(path, tmp_path / "to")
    path = tmp_path / "other.db"
    with path.open("wb") as file:
        write_database(file, [(b"other", [])])
    with pytest.raises(RestoreFailed, match="no bucket of keys"):
        restored(path, tmp_path / "to")
    lease = (schema.lease_place(5), Lease(ID=5).SerializeToString())
    path = etcd_file(tmp_path / "lease.db", leases=[lease])
    with pytest.raises(RestoreFailed, match="lease 5"):
        restored(path, tmp_path / "to")


def test_users_and_roles_come_over_and_go_out_again(tmp_path: Path) -> None:
    """Passwords as they are: bcrypt's hashes on both sides. A name may be longer than LMDB's keys."""
    long = "u" * 600
    read = Permission(permType=Permission.READ, key=b"a", range_end=b"b")
    roles = [
        (name, Role(name=name, keyPermission=[read] * (name != b"root")).SerializeToString())
        for name in (b"reader", b"root")
    ]
    users = [
        (name.encode(), User(name=name.encode(), password=b"$2a$10$hash", roles=[role]).SerializeToString())
        for name, role in (("root", "root"), (long, "reader"))
    ]
    auth = [(schema.AUTH_ENABLED, b"\1"), (schema.AUTH_REVISION, schema.U64.pack(9))]
    path = etcd_file(tmp_path / "x.db", auth=auth, roles=roles, users=users)
    made, machine = restored(path, tmp_path / "to")
    assert (made.loaded.users, made.loaded.roles, made.loaded.auth_enabled) == (
        ["root", long],
        ["reader", "root"],
        True,
    )
    assert (machine.auth.enabled, machine.auth.revision) == (True, 9)
    assert machine.auth.users[long].user.password == b"$2a$10$hash"
    access = machine.auth.access(long)
    assert access is not None
    assert not access.is_root
    assert access.roles == {"reader"}
    machine.flush_and_close()
    again = Replica(str(tmp_path / "to" / "member" / "db"))
    out = export(again, tmp_path / "again.db")
    with Database(str(path)) as before, Database(str(out)) as after:
        for name in (schema.AUTH, schema.AUTH_ROLES, schema.AUTH_USERS):
            one, other = before.bucket(name), after.bucket(name)
            assert one is not None
            assert other is not None
            assert list(one) == list(other)
    again.machine.abandon()
    for wrong in (
        [(b"a", User(name=b"b").SerializeToString())],
        [(b"\xff", User(name=b"\xff").SerializeToString())],
    ):
        with pytest.raises(RestoreFailed, match=r"is stored as|is no name"):
            restored(etcd_file(tmp_path / "wrong.db", users=wrong), tmp_path / "nowhere")


def test_etcds_own_peculiarities(tmp_path: Path) -> None:
    """An unfinished compaction, a key on a lease that is not there, a revision marked by etcdutl 3.6's bump."""
    meta = [
        (schema.FINISHED_COMPACT, schema.encode_revision(2, 0)),
        (schema.SCHEDULED_COMPACT, schema.encode_revision(3, 0)),
    ]
    path = etcd_file(
        tmp_path / "x.db",
        version(2, b"a", lease=5),
        (schema.encode_revision(3, 0), version(3, b"a", create_revision=2, version=2)[1]),
        version(4, b"b", lease=9),
        (schema.encode_revision(1000, 0), b""),
        leases=[(schema.lease_place(5), Lease(ID=5, TTL=60, RemainingTTL=7).SerializeToString())],
        meta=meta,
    )
    made, machine = restored(path, tmp_path / "to")
    assert (machine.revision, machine.compact_revision, machine.physical_compact_revision) == (1000, 3, 2)
    assert machine.lessor.leases() == [5]
    assert machine.lessor.keys(5) == []
    assert (made.loaded.keys, made.loaded.versions, made.loaded.attached) == (2, 3, 0)
    for _ in range(10):
        machine.turn()
    assert machine.physical_compact_revision == 3
    machine.flush_and_close()
    again = open_machine(str(tmp_path / "to" / "member" / "db"))
    assert again.revision == 1000
    again.abandon()


def test_the_bump_alone_keeps_nothing_readable_twice(snapshot: Path, tmp_path: Path) -> None:
    made, machine = restored(snapshot, tmp_path / "to", replace(AS_IT_WAS, bump_revisions=10))
    assert (made.revision, made.compact_revision) == (13, 0)
    machine.abandon()
