"""State out into etcd's file and in again: whatever was there, and however far its compaction had come."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvstore.commands import Kind
from kvstore.etcd_db import schema
from kvstore.etcd_db.reader import Bucket, Database
from kvstore.etcd_db.status import hash_of
from kvstore.pb.etcdserverpb_pb2 import AlarmRequest, AlarmType, Member, RangeRequest, RangeResponse
from kvstore.pb.internal_pb2 import Announce, MemberRecord
from kvstore.pb.leasepb_pb2 import Lease
from kvstore.pb.quota_pb2 import QuotaRemoveRequest, QuotaSetRequest
from kvstore.state.machine import StateMachine
from raft import ConfState, membership
from tests.unit.backup.carried import export, hashed, restored
from tests.unit.state.harness import Replica

KEYS = [b"a", b"b", b"c", b"k" * 500, b"k" * 501, b"k" * 501 + b"1", b"k" * 2000]


def readable(machine: StateMachine) -> list[RangeResponse]:
    """The whole store at every revision that may be read."""
    found = []
    for revision in range(max(machine.compact_revision, 1), machine.revision + 1):
        request = RangeRequest(key=b"\0", range_end=b"\0", revision=revision)
        found.append(RangeResponse.FromString(machine.range(request)[1]))
    return found


def leases(machine: StateMachine) -> dict[int, tuple[int, list[bytes]]]:
    found = {}
    for lease_id in machine.lessor.leases():
        lease = machine.lessor.get(lease_id)
        assert lease is not None
        found[lease_id] = (lease.ttl_ms, sorted(lease.keys))
    return found


def bucket(path: Path, name: bytes) -> dict[bytes, bytes]:
    with Database(str(path)) as database:
        found = database.bucket(name)
        assert found is not None
        return {key: value for key, value in found if isinstance(value, bytes)}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(KEYS), st.integers(0, 3)),
        st.tuples(st.just("delete"), st.sampled_from(KEYS), st.just(0)),
        st.tuples(st.just("compact"), st.just(b""), st.integers(0, 5)),
        st.tuples(st.just("turn"), st.just(b""), st.just(0)),
        st.tuples(st.just("revoke"), st.just(b""), st.integers(1, 3)),
    ),
    max_size=40,
)


def play(replica: Replica, script: list[tuple[str, bytes, int]]) -> None:
    for lease_id in (1, 2, 3):
        replica.grant(lease_id, 100 * lease_id)
    for number, (what, key, how) in enumerate(script):
        if what == "put":
            held = how if replica.machine.lessor.exists(how) else 0
            replica.put(key, b"v%d" % number, held)
        elif what == "delete":
            replica.delete(key)
        elif what == "compact":
            target = replica.machine.revision - how
            if target > replica.machine.compact_revision:
                replica.compact(target)
        elif what == "turn":
            replica.turns()
        elif replica.machine.lessor.exists(how):
            replica.revoke(how)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=steps)
def test_any_history_comes_back(tmp_path: Path, script: list[tuple[str, bytes, int]]) -> None:
    """Every revision that could be read can be read, and the second file is the first."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    (folder / "from").mkdir()
    replica = Replica(str(folder / "from"))
    play(replica, script)
    path = export(replica, folder / "one.db")
    made, machine = restored(path, folder / "to")
    assert (machine.revision, machine.compact_revision) == (
        replica.machine.revision,
        replica.machine.compact_revision,
    )
    assert readable(machine) == readable(replica.machine)
    assert leases(machine) == leases(replica.machine)
    assert machine.hash_kv() == replica.machine.hash_kv()
    assert made.loaded.keys == len(readable(machine)[-1].kvs)
    machine.flush_and_close()
    again = Replica(str(folder / "to" / "member" / "db"))
    for name in (schema.KEY, schema.LEASE):
        assert bucket(export(again, folder / f"{name.decode()}.db"), name) == bucket(path, name)
    replica.machine.abandon()
    again.machine.abandon()


def test_a_file_follows_from_what_was_applied_alone(tmp_path: Path) -> None:
    """One member has removed what compaction superseded, one a part of it, one nothing."""
    random_ = random.Random(3)
    replicas = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        replicas.append(Replica(str(folder)))
    for number in range(1500):
        key = b"k%d" % random_.randrange(40)
        for replica in replicas:
            if number % 7:
                replica.put(key, b"v%d" % number)
            else:
                replica.delete(key)
    for replica in replicas:
        replica.machine.flush()
        replica.compact(replica.machine.revision - 100)
    replicas[0].turns()
    replicas[1].machine.turn()
    progress = [replica.machine.physical_compact_revision for replica in replicas]
    assert progress[0] > progress[1] > progress[2] == 0
    one, *others = [
        export(replica, tmp_path / f"{at}.db").read_bytes() for at, replica in enumerate(replicas)
    ]
    assert others == [one, one]
    assert len({hashed(replica) for replica in replicas}) == 1
    for replica in replicas:
        replica.machine.abandon()


def test_long_chains_are_linked_as_they_were(tmp_path: Path) -> None:
    """Of 300 versions of one key each is found, over anchors; and the next ones continue the chain."""
    (tmp_path / "from").mkdir()
    replica = Replica(str(tmp_path / "from"))
    for number in range(300):
        replica.put(b"k", b"%d" % number)
    _, machine = restored(export(replica, tmp_path / "x.db"), tmp_path / "to")
    machine.flush_and_close()
    after = Replica(str(tmp_path / "to" / "member" / "db"))
    after.log = [b""]  # the restored directory stands at index 1
    for number in range(300, 400):
        after.put(b"k", b"%d" % number)
    for number in range(400):
        assert after.values(number + 2) == {b"k": b"%d" % number}
    replica.machine.abandon()
    after.machine.abandon()


def test_everything_beside_the_keys(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    conf = membership.encode(ConfState((5, 7), learners=(9,)))
    records = [
        MemberRecord(member=Member(ID=node, name=f"n{node}", peerURLs=[f"http://{node}:1"]), data_id=1)
        for node in (5, 7, 9, 11)
    ]
    replica.machine.apply_config(1, 1, conf, members=(5, 7, 9, 11), added=records)
    replica.machine.apply_config(2, 1, conf, members=(5, 7, 9), added=[])
    replica.log = [b"", b""]
    alarm = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=5, alarm=AlarmType.NOSPACE)
    replica.do(Kind.ALARM, alarm)
    path = export(replica, tmp_path / "x.db")
    assert bucket(path, schema.MEMBERS) == {
        b"5": b'{"id":5,"peerURLs":["http://5:1"],"name":"n5"}',
        b"7": b'{"id":7,"peerURLs":["http://7:1"],"name":"n7"}',
        b"9": b'{"id":9,"peerURLs":["http://9:1"],"isLearner":true,"name":"n9"}',
    }
    assert bucket(path, schema.MEMBERS_REMOVED) == {b"b": b"removed"}
    assert bucket(path, schema.ALARM) == {b"\x08\x05\x10\x01": b""}
    meta = bucket(path, schema.META)
    assert meta[schema.CONF_STATE] == b'{"voters":[5,7],"learners":[9],"auto_leave":false}'
    assert meta[schema.CONSISTENT_INDEX] == schema.U64.pack(3)
    assert meta[schema.TERM] == schema.U64.pack(1)
    assert schema.decode_member(bucket(path, schema.MEMBERS)[b"9"]).isLearner
    replica.machine.abandon()


def test_what_leases_of_ours_have_beyond_etcds_comes_back(tmp_path: Path) -> None:
    """Milliseconds, and the stream that announced an instance: whoever comes back announces it under its lease."""
    (tmp_path / "from").mkdir()
    replica = Replica(str(tmp_path / "from"))
    announced = Announce(lease_id=5, ttl_ms=1500, session=9, key=b"services/web/1", value=b"{}")
    replica.do(Kind.ANNOUNCE, announced)
    replica.grant(6, 60)
    path = export(replica, tmp_path / "x.db")
    found = [Lease.FromString(value) for value in bucket(path, schema.LEASE).values()]
    assert [(lease.ID, lease.TTL, bool(lease.kvstore)) for lease in found] == [(5, 2, True), (6, 60, False)]
    _, machine = restored(path, tmp_path / "to")
    lease = machine.lessor.get(5)
    assert lease is not None
    assert (lease.ttl_ms, lease.session, lease.keys) == (1500, 9, {b"services/web/1"})
    machine.abandon()
    replica.machine.abandon()


def test_quotas_come_back_and_their_use_is_counted(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    replica = Replica(str(tmp_path / "from"))
    replica.put(b"p/1", b"one", 0)
    replica.do(Kind.QUOTA_SET, QuotaSetRequest(prefix=b"p/", keys_max=2, bytes_max=50, qps_max=9))
    replica.do(Kind.QUOTA_SET, QuotaSetRequest(prefix=b"p", keys_max=3))
    replica.put(b"p/1", b"two!")
    replica.put(b"pq", b"")
    path = export(replica, tmp_path / "x.db")
    assert set(bucket(path, schema.QUOTAS)) == {b"p", b"p/"}
    made, machine = restored(path, tmp_path / "to")
    assert made.loaded.quotas == 2
    found = [quota.record() for quota in machine.quotas.all()]
    assert found == [quota.record() for quota in replica.machine.quotas.all()]
    assert [(each.used_keys, each.used_bytes) for each in found] == [(2, 9), (1, 7)]
    replica.do(Kind.QUOTA_REMOVE, QuotaRemoveRequest(prefix=b"p"))
    replica.do(Kind.QUOTA_REMOVE, QuotaRemoveRequest(prefix=b"p/"))
    with Database(str(export(replica, tmp_path / "y.db"))) as database:
        assert database.bucket(schema.QUOTAS) is None, "a file without quotas is etcd's, bucket by bucket"
    machine.abandon()
    replica.machine.abandon()


def test_hash_is_of_what_the_file_holds(tmp_path: Path) -> None:
    """And of nothing that differs between equal members: not of the index, not of the term."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = Replica(str(tmp_path / "one")), Replica(str(tmp_path / "other"), term=5)
    other.apply()
    for replica in (one, other):
        replica.grant(7)
        replica.put(b"k", b"v", 7)
    path = export(one, tmp_path / "x.db")
    with Database(str(path)) as database:
        buckets = [
            (name, [(key, value) for key, value in content if isinstance(value, bytes)])
            for name, content in database.root
            if isinstance(content, Bucket)
        ]
    assert hashed(one) == hashed(other) == hash_of(buckets)
    other.put(b"k", b"w", 7)
    assert hashed(one) != hashed(other)
    one.machine.abandon()
    other.machine.abandon()
