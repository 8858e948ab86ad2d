"""Instances announced by streams: one revision each way, taken over by whoever comes back, by nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore import errors
from kvstore.commands import Kind
from kvstore.pb.internal_pb2 import Announce, AnnounceEnd, LeaseExpire
from kvstore.pb.readiness_pb2 import AnnounceResponse
from tests.unit.state.harness import Replica

KEY = b"/kvstore/services/web/a"


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    return Replica(str(tmp_path))


def announce(
    replica: Replica, *, lease: int = 7, session: int = 1, value: bytes = b"v", ttl_ms: int = 2000
) -> int:
    request = Announce(lease_id=lease, ttl_ms=ttl_ms, session=session, key=KEY, value=value)
    revision, body = replica.do(Kind.ANNOUNCE, request)
    assert AnnounceResponse.FromString(body) == AnnounceResponse(lease_id=lease, ttl_ms=ttl_ms)
    return revision


def end(replica: Replica, *, lease: int = 7, session: int = 1, grace_ms: int = 0) -> int:
    return replica.do(Kind.ANNOUNCE_END, AnnounceEnd(lease_id=lease, session=session, grace_ms=grace_ms))[0]


def test_lease_and_key_come_and_go_in_one_revision_each(replica: Replica) -> None:
    assert announce(replica) == 2
    current = replica.machine.keyspace.current(KEY)
    assert current is not None and current.lease == 7
    assert replica.machine.lessor.keys(7) == [KEY]
    assert end(replica) == 3
    assert replica.machine.lessor.get(7) is None
    assert replica.machine.keyspace.get(KEY) is None
    assert end(replica) == 3, "ended once"


def test_announced_again_as_it_is_it_is_no_news(replica: Replica) -> None:
    announce(replica)
    end(replica, grace_ms=500)
    assert announce(replica, session=2) == 2
    assert announce(replica, session=2, value=b"other") == 3
    lease = replica.machine.lessor.get(7)
    assert lease is not None and (lease.session, lease.grace_ms) == (2, 0)


def test_the_end_of_a_stream_that_was_succeeded_is_not_heard(replica: Replica) -> None:
    announce(replica)
    announce(replica, session=2)
    assert end(replica, session=1) == 2
    assert end(replica, session=1, grace_ms=500) == 2
    lease = replica.machine.lessor.get(7)
    assert lease is not None and lease.grace_ms == 0


def test_an_instance_that_lives_is_not_taken_and_one_in_its_grace_is(replica: Replica) -> None:
    announce(replica)
    with pytest.raises(errors.InstanceTaken):
        announce(replica, lease=8, session=2)
    end(replica, grace_ms=500)
    assert announce(replica, lease=8, session=2, value=b"other") == 3
    assert replica.machine.lessor.get(7) is None, (
        "the lease of whom it was taken from is gone, its key is not"
    )
    assert replica.machine.lessor.keys(8) == [KEY]


def test_what_hangs_on_its_lease_beside_it_goes_with_it(replica: Replica) -> None:
    announce(replica)
    replica.put(b"beside", b"x", lease=7)
    end(replica, grace_ms=500)
    assert announce(replica, session=2) == 3, "and it comes back as it was"
    assert replica.machine.lessor.keys(7) == [KEY, b"beside"]
    end(replica, session=2, grace_ms=500)
    announce(replica, lease=8, session=3, value=b"other")
    assert replica.machine.keyspace.get(b"beside") is None, "another announcer does not inherit it"
    replica.put(b"beside", b"x", lease=8)
    end(replica, lease=8, session=3)
    assert replica.machine.keyspace.get(b"beside") is None


def test_a_lease_that_holds_another_instance_is_refused(replica: Replica) -> None:
    announce(replica)
    other = Announce(lease_id=7, ttl_ms=2000, session=2, key=KEY + b"b", value=b"v")
    with pytest.raises(errors.LeaseExists):
        replica.do(Kind.ANNOUNCE, other)
    replica.put(b"beside", b"x", lease=7)
    replica.delete(KEY)
    announce(replica)  # by the stream that holds it: somebody deleted its key


def test_what_hangs_on_an_ordinary_lease_may_be_taken_and_its_lease_may_not(replica: Replica) -> None:
    replica.grant(5)
    replica.put(KEY, b"by hand", lease=5)
    with pytest.raises(errors.LeaseExists):
        announce(replica, lease=5)
    announce(replica)
    assert replica.machine.lessor.keys(5) == [], "and the lease itself stays, it is its owner's"
    assert replica.machine.lessor.exists(5)


def test_an_expiry_from_before_it_was_taken_over_does_nothing(replica: Replica) -> None:
    announce(replica)
    expire = LeaseExpire(leader=1, term=1, IDs=[7], sessions=[1])
    announce(replica, session=2)
    replica.do(Kind.LEASE_EXPIRE, expire)
    assert replica.machine.lessor.exists(7)
    expire.sessions[:] = [2]
    assert replica.do(Kind.LEASE_EXPIRE, expire)[0] == 3
    assert not replica.machine.lessor.exists(7)


def test_sessions_and_graces_are_there_after_a_restart(replica: Replica) -> None:
    announce(replica, session=9)
    end(replica, session=9, grace_ms=500)
    replica.machine.flush_and_close()
    again = Replica(replica.directory)
    lease = again.machine.lessor.get(7)
    assert lease is not None and (lease.session, lease.grace_ms, lease.ttl_ms) == (9, 500, 2000)
    again.machine.lessor.promote(100.0)
    assert lease.deadline == 100.5, "a new leader gives it its grace, not its TTL"
    again.machine.abandon()
