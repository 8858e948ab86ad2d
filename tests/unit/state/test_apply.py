"""Each kind of command: its effect, its reply, the revision it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.message import DecodeError, Message

from kvstore import errors
from kvstore.commands import Kind, UnknownCommand, encode_batch
from kvstore.errors import NotLeader
from kvstore.pb.etcdserverpb_pb2 import (
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    Member,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
)
from kvstore.pb.internal_pb2 import Announce, AuthorizedCommand, LeaseCheckpoint, LeaseExpire, MemberRecord
from tests.unit.state.harness import Replica, open_machine


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    return Replica(str(tmp_path))


def test_the_first_write_makes_revision_two_and_the_same_value_counts(replica: Replica) -> None:
    assert replica.machine.revision == 1
    assert [replica.put(b"k", b"v"), replica.put(b"k", b"v")] == [2, 3]
    replica.delete(b"k")
    replica.put(b"k", b"v")
    (pair,) = replica.range(b"k").kvs
    assert (pair.create_revision, pair.mod_revision, pair.version) == (5, 5, 1)


def test_prev_kv_and_the_ignore_flags(replica: Replica) -> None:
    replica.grant(5)
    replica.put(b"k", b"1", lease=5)
    _, body = replica.do(Kind.PUT, PutRequest(key=b"k", value=b"2", prev_kv=True, ignore_lease=True))
    assert PutResponse.FromString(body).prev_kv.value == b"1"
    assert replica.range(b"k").kvs[0].lease == 5
    replica.do(Kind.PUT, PutRequest(key=b"k", ignore_value=True))
    (pair,) = replica.range(b"k").kvs
    assert (pair.value, pair.lease) == (b"2", 0), "a plain put detaches"
    assert replica.machine.lessor.keys(5) == []
    replica.delete(b"k")
    for request in (PutRequest(key=b"k", ignore_value=True), PutRequest(key=b"k", ignore_lease=True)):
        with pytest.raises(errors.KeyNotFound):
            replica.do(Kind.PUT, request)
    _, body = replica.do(Kind.PUT, PutRequest(key=b"k", prev_kv=True))
    assert body == b"", "a tombstone is no previous pair"


def test_delete_counts_and_deleting_nothing_makes_no_revision(replica: Replica) -> None:
    for key in (b"a", b"b", b"c"):
        replica.put(key)
    request = DeleteRangeRequest(key=b"a", range_end=b"c", prev_kv=True)
    revision, body = replica.do(Kind.DELETE_RANGE, request)
    answer = DeleteRangeResponse.FromString(body)
    assert (revision, answer.deleted, [kv.key for kv in answer.prev_kvs]) == (5, 2, [b"a", b"b"])
    assert replica.do(Kind.DELETE_RANGE, request) == (5, b"")


def test_revoking_deletes_the_keys_in_one_revision(replica: Replica) -> None:
    revision, body = replica.do(Kind.LEASE_GRANT, LeaseGrantRequest(ID=-7, TTL=60))
    assert (revision, LeaseGrantResponse.FromString(body)) == (1, LeaseGrantResponse(ID=-7, TTL=60))
    for key in (b"b", b"a", b"q" * 700):
        replica.put(key, lease=-7)
    with pytest.raises(errors.LeaseExists):
        replica.grant(-7)
    replica.reopen(crash=False)
    assert replica.machine.lessor.keys(-7) == [b"a", b"b", b"q" * 700]
    assert replica.revoke(-7) == 5
    assert replica.values() == {}
    with pytest.raises(errors.LeaseNotFound):
        replica.revoke(-7)
    with pytest.raises(errors.LeaseNotFound):
        replica.put(b"k", lease=-7)
    replica.grant(8)
    assert replica.revoke(8) == 5, "a lease without keys makes no revision"
    replica.reopen(crash=False)
    assert replica.machine.lessor.leases() == []


def test_expiry_is_one_entry_a_revision_a_lease_and_void_in_another_term(replica: Replica) -> None:
    for lease_id in (1, 2, 3):
        replica.grant(lease_id)
        replica.put(b"k%d" % lease_id, lease=lease_id)
    stale = LeaseExpire(leader=1, term=replica.term + 1, IDs=[1])
    assert replica.do(Kind.LEASE_EXPIRE, stale)[0] == 4
    assert replica.machine.lessor.leases() == [1, 2, 3]
    due = LeaseExpire(leader=1, term=replica.term, IDs=[3, 99, 1])
    assert replica.do(Kind.LEASE_EXPIRE, due)[0] == 6
    assert list(replica.values()) == [b"k2"]
    assert list(replica.values(5)) == [b"k1", b"k2"]


def test_compaction_bounds(replica: Replica) -> None:
    replica.put(b"k")
    replica.put(b"k")
    with pytest.raises(errors.FutureRevision):
        replica.compact(4)
    replica.compact(2)
    for revision in (2, 1, 0, -1):
        with pytest.raises(errors.Compacted):
            replica.compact(revision)


def test_alarms_stay_until_deactivated_and_through_a_restart(replica: Replica) -> None:
    raised = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=3, alarm=AlarmType.NOSPACE)
    for _ in range(2):
        _, body = replica.do(Kind.ALARM, raised)
        assert [each.memberID for each in AlarmResponse.FromString(body).alarms] == [3]
    replica.reopen(crash=False)
    assert [(each.memberID, each.alarm) for each in replica.machine.alarms] == [(3, AlarmType.NOSPACE)]
    assert replica.machine.over_quota
    cleared = AlarmRequest(action=AlarmRequest.DEACTIVATE, alarm=AlarmType.NOSPACE)
    replica.do(Kind.ALARM, cleared)
    assert replica.machine.alarms == [] and not replica.machine.over_quota
    replica.reopen(crash=False)
    assert replica.machine.alarms == []


def test_members_come_with_a_configuration_publish_themselves_and_go_for_good(tmp_path: Path) -> None:
    directory = str(tmp_path)
    machine = open_machine(directory)
    nine, ten = (MemberRecord(member=Member(ID=each, peerURLs=[f"http://h:{each}"])) for each in (9, 10))

    def do(index: int, kind: int, request: Message) -> object:
        batch = encode_batch([(kind, request.SerializeToString())], origin=9, incarnation=1, sequence=index)
        outcomes = machine.apply(index, 1, batch)
        assert outcomes is not None
        return outcomes[0]

    machine.apply_config(1, 1, b"of both", members=(9, 10), added=[nine, ten])
    published = MemberRecord(member=Member(ID=9, name="one", peerURLs=["http://elsewhere:1"]), data_id=4)
    assert do(2, Kind.MEMBER_PUBLISH, published) == (1, b"")
    assert machine.members[9].member == Member(ID=9, name="one", peerURLs=["http://h:9"])  # the cluster's say
    assert machine.members[9].data_id == 4
    assert do(3, Kind.MEMBER_UPDATE, Member(ID=9, peerURLs=["http://h:99"])) == (1, b"")
    assert isinstance(do(4, Kind.MEMBER_UPDATE, Member(ID=8)), errors.MemberNotFound)
    taken = do(5, Kind.MEMBER_UPDATE, Member(ID=10, peerURLs=["http://h:99"]))
    assert isinstance(taken, errors.PeerUrlExists)
    machine.apply_config(6, 1, b"of nine", members=(9,), added=[])
    assert do(7, Kind.MEMBER_PUBLISH, MemberRecord(member=Member(ID=10, name="gone"))) == (1, b"")
    machine.apply_config(8, 1, b"of nine", members=(9, 10), added=[ten])  # its id is spent
    machine.flush_and_close()
    machine = open_machine(directory)
    assert (set(machine.members), machine.removed, machine.conf) == ({9}, {10}, b"of nine")
    assert machine.members[9].member.peerURLs == ["http://h:99"]
    assert machine.applied_index == 8
    machine.abandon()


def test_a_failed_command_does_not_keep_its_batch_from_applying(replica: Replica) -> None:
    first, second = replica.apply(
        (Kind.PUT, PutRequest(key=b"k", lease=9)), (Kind.PUT, PutRequest(key=b"k", value=b"1"))
    )
    assert isinstance(first, errors.LeaseNotFound)
    assert second == (2, b"")


def test_a_batch_applies_once_whatever_index_it_comes_at(replica: Replica) -> None:
    def batch(incarnation: int, sequence: int) -> bytes:
        put = PutRequest(key=b"k").SerializeToString()
        return encode_batch([(1, put)], origin=7, incarnation=incarnation, sequence=sequence)

    machine = replica.machine
    assert machine.apply(1, 1, batch(1, 5)) == [(2, b"")]
    assert machine.apply(2, 1, batch(1, 5)) is None
    assert machine.apply(3, 1, batch(1, 4)) is None
    assert machine.apply(4, 2, b"") == []
    assert machine.apply(5, 2, batch(2, 1)) == [(3, b"")]
    assert (machine.revision, machine.applied_index, machine.applied_term) == (3, 5, 2)
    machine.flush_and_close()
    replica.machine = replica.machine.open(replica.directory, backend="sync", map_bytes=1 << 30)
    assert replica.machine.apply(6, 2, batch(2, 1)) is None


def test_a_fault_in_the_middle_stops_the_machine_and_stores_nothing(replica: Replica) -> None:
    put = PutRequest(key=b"k").SerializeToString()
    broken = encode_batch([(1, put), (Kind.TXN, b"\xff")], origin=7, incarnation=1, sequence=1)
    with pytest.raises(DecodeError):
        replica.machine.apply(1, 1, broken)
    replica.machine.turn()
    with pytest.raises(RuntimeError):
        replica.machine.apply(2, 1, b"")
    replica.machine.flush_and_close()
    reopened = Replica(replica.directory)
    assert (reopened.machine.revision, reopened.machine.applied_index) == (1, 0)
    reopened.machine.abandon()


def test_marks_of_leases_count_in_their_term_for_the_lease_they_were_made_for(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    replica.grant(1, 60)
    announced = Announce(lease_id=2, ttl_ms=60_000, session=9, key=b"k")
    replica.do(Kind.ANNOUNCE, announced)
    lessor = replica.machine.lessor
    leases = lessor.get(1), lessor.get(2)
    assert leases[0] is not None and leases[1] is not None

    def mark(term: int, left_ms: int) -> None:
        told = LeaseCheckpoint(term=term, IDs=[1, 2, 3], remaining_ms=[left_ms] * 3)
        told.grant_indexes.extend([1, leases[1].grant_index if leases[1] else 0, 0])
        replica.do(Kind.LEASE_CHECKPOINT, told)

    with pytest.raises(NotLeader):
        mark(2, 5_000)
    assert leases[0].remaining_ms == 0
    mark(1, 30_000)
    assert (leases[0].remaining_ms, leases[1].remaining_ms) == (30_000, 0), "an instance is not marked"
    replica.reopen(crash=False)
    found = replica.machine.lessor.get(1)
    assert found is not None and (found.remaining_ms, found.grant_index) == (30_000, 1)
    replica.revoke(1)
    replica.grant(1, 60)
    mark(1, 20_000)
    found = replica.machine.lessor.get(1)
    assert found is not None and found.remaining_ms == 0, "it is another lease by now"
    replica.machine.abandon()


@pytest.mark.parametrize("authorized", [False, True], ids=["as it is", "in a user's name"])
@pytest.mark.parametrize("auth", [False, True], ids=["without authentication", "with it"])
def test_a_command_of_a_newer_version_is_not_passed_over(
    tmp_path: Path, authorized: bool, auth: bool
) -> None:
    """Nor refused: a member that knows the kind might have taken it. Nothing of its entry is stored, and a member
    that knows it goes on where this one stopped."""
    replica = Replica(str(tmp_path))
    replica.put(b"k", b"before")
    replica.machine.auth.enabled = auth
    newer = 250
    command: tuple[int, bytes] = (newer, b"\x0a\x01x")
    if authorized:
        wrapped = AuthorizedCommand(user="somebody", revision=1, kind=newer, payload=b"x")
        command = (Kind.AUTHORIZED, wrapped.SerializeToString())
    put = (Kind.PUT, PutRequest(key=b"k", value=b"in the same entry").SerializeToString())
    entry = encode_batch([put, command], origin=1, incarnation=1, sequence=2)
    text = r"entry 2 of the log holds a command of kind 250, which kvstore \S+ does not know: a newer member wrote it"
    with pytest.raises(UnknownCommand, match=text):
        replica.machine.apply(2, 1, entry)
    with pytest.raises(RuntimeError, match="has failed before"):
        replica.machine.apply(3, 1, b"")
    replica.machine.flush_and_close()
    stored = open_machine(str(tmp_path))  # as after a restart: what is stored ends before that entry
    assert stored.applied_index < 2
    stored.apply(1, 1, replica.log[0])
    (pair,) = RangeResponse.FromString(stored.range(RangeRequest(key=b"k"))[1]).kvs
    assert pair.value == b"before"
    stored.abandon()
