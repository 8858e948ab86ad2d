"""The keeper of leases, on a real state machine: what it proposes, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvstore import errors
from kvstore.commands import Kind
from kvstore.pb.etcdserverpb_pb2 import LeaseGrantRequest, LeaseRevokeRequest, Member, PutRequest
from kvstore.pb.internal_pb2 import Announce, LeaseCheckpoint, LeaseExpire, MemberRecord
from kvstore.replication.driver import Driver
from kvstore.replication.lease_keeper import EXPIRE_AT_ONCE, EXPIRE_SHARE, LeaseKeeper
from kvstore.replication.outbox import Done
from kvstore.state.lessor import MARKED
from raft import Role
from tests.unit.state.harness import Replica


class World:
    """A keeper that leads in term 1, and a driver that keeps what it is asked to propose."""

    def __init__(self, directory: str) -> None:
        self.replica = Replica(directory)
        self.now = 100.0
        self.later: list[Any] = []
        self.proposed: list[tuple[Kind, bytes, Done]] = []
        self.driver = SimpleNamespace(
            on_role=[],
            on_turn=[],
            term=1,
            member_id=1,
            leader_id=1,
            is_leader=True,
            propose=lambda kind, payload, done: self.proposed.append((kind, payload, done)),
            read=lambda done: done(None),
        )
        self.keeper = LeaseKeeper(
            cast(Driver, self.driver),
            self.replica.machine,
            cast(Any, None),
            now=lambda: self.now,
            call_later=lambda delay, call: self.later.append(call),
            timeout_s=7.0,
        )
        self.lead()

    def lead(self) -> None:
        """It has won the election, and its log is applied up to the first entry of its term."""
        for hear in self.driver.on_role:
            hear(Role.LEADER, 1)
        self.replica.term = self.driver.term
        self.replica.apply()
        self.turn()

    def turn(self) -> None:
        for hear in self.driver.on_turn:
            hear()

    def tick(self, now: float) -> None:
        self.now = now
        self.keeper.tick()

    def ring(self) -> None:
        """What was to be called later."""
        later, self.later = self.later, []
        for call in later:
            call()

    def apply(self) -> None:
        """What was proposed, each as an entry, and its outcome to whoever waits."""
        proposed, self.proposed = self.proposed, []
        for kind, payload, done in proposed:
            message: Any = {Kind.LEASE_EXPIRE: LeaseExpire, Kind.LEASE_CHECKPOINT: LeaseCheckpoint}[kind]
            (outcome,) = self.replica.apply((kind, message.FromString(payload)))
            done(outcome)

    def renewal(self, lease_id: int) -> list[tuple[int | None, errors.StoreError | None]]:
        """What a renewal is answered: nothing, yet."""
        answers: list[tuple[int | None, errors.StoreError | None]] = []
        self.keeper.renew(lease_id, lambda left, problem: answers.append((left, problem)))
        return answers


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path))


def test_many_leases_end_in_entries_one_after_the_other(world: World) -> None:
    """So that others' writes are not behind all of them."""
    replica, ids = world.replica, range(1, 2 * EXPIRE_AT_ONCE + 2)
    replica.apply(*((Kind.LEASE_GRANT, LeaseGrantRequest(ID=each, TTL=3)) for each in ids))
    replica.apply(*((Kind.PUT, PutRequest(key=b"l/%d" % each, lease=each)) for each in ids))
    before = replica.machine.revision
    world.tick(100.0)
    world.tick(102.9)
    world.apply()
    assert len(replica.machine.lessor.leases()) == len(ids)
    world.tick(103.0)
    for left in (EXPIRE_AT_ONCE + 1, 1, 0):
        assert [kind for kind, _, _ in world.proposed] == [Kind.LEASE_EXPIRE]
        world.apply()
        assert len(replica.machine.lessor.leases()) == left
        assert world.proposed == [], "others have their time"
        world.ring()
    assert replica.values() == {}
    assert replica.machine.revision == before + len(ids), "each in a revision of its own, as etcd's are"
    assert world.keeper.expired == len(ids)
    world.tick(110.0)
    assert world.proposed == []
    replica.machine.abandon()


def test_very_many_leases_end_in_larger_entries(world: World) -> None:
    replica, ids = world.replica, range(1, 2 * EXPIRE_SHARE * EXPIRE_AT_ONCE + 1)
    replica.apply(*((Kind.LEASE_GRANT, LeaseGrantRequest(ID=each, TTL=3)) for each in ids))
    world.tick(100.0)
    world.tick(103.0)
    world.apply()
    assert len(replica.machine.lessor.leases()) == len(ids) - 2 * EXPIRE_AT_ONCE
    replica.machine.abandon()


def test_instances_that_are_gone_end_before_other_leases_and_all_at_once(world: World) -> None:
    replica, ids = world.replica, range(1, 2 * EXPIRE_AT_ONCE + 1)
    replica.apply(*((Kind.LEASE_GRANT, LeaseGrantRequest(ID=each, TTL=3)) for each in ids))
    instances = range(1_000, 1_000 + 2 * EXPIRE_AT_ONCE)
    for each in instances:
        replica.do(Kind.ANNOUNCE, Announce(lease_id=each, ttl_ms=3_000, session=7, key=b"i/%d" % each))
    world.tick(100.0)
    world.tick(103.0)
    world.apply()
    assert set(replica.machine.lessor.leases()) == set(ids)
    world.ring()
    world.apply()
    assert len(replica.machine.lessor.leases()) == EXPIRE_AT_ONCE
    replica.machine.abandon()


def test_what_is_granted_anew_before_its_turn_comes_does_not_end(world: World) -> None:
    replica, ids = world.replica, range(1, EXPIRE_AT_ONCE + 3)
    replica.apply(*((Kind.LEASE_GRANT, LeaseGrantRequest(ID=each, TTL=3)) for each in ids))
    world.tick(100.0)
    world.tick(103.0)
    waiting = min(world.keeper._due)
    replica.do(Kind.LEASE_REVOKE, LeaseRevokeRequest(ID=waiting))
    replica.grant(waiting, 100)
    world.apply()
    world.ring()
    world.apply()
    assert replica.machine.lessor.leases() == [waiting]
    replica.machine.abandon()


@pytest.mark.parametrize("how", ["lost", "failed"])
def test_an_entry_that_does_not_come_through_is_not_waited_for(world: World, how: str) -> None:
    world.replica.grant(1, 3)
    world.tick(100.0)
    world.tick(103.0)
    (_, _, done), world.proposed = world.proposed[0], []
    if how == "failed":
        done(errors.NotLeader())
    for now in (104.0, 105.0, 106.0):
        world.tick(now)
    assert [kind for kind, _, _ in world.proposed] == [Kind.LEASE_EXPIRE]
    world.apply()
    assert world.replica.machine.lessor.leases() == []


def test_what_was_due_under_an_earlier_term_is_not_ended_in_this_one(world: World) -> None:
    replica, ids = world.replica, range(1, EXPIRE_AT_ONCE + 3)
    replica.apply(*((Kind.LEASE_GRANT, LeaseGrantRequest(ID=each, TTL=3)) for each in ids))
    world.tick(100.0)
    world.tick(103.0)
    world.proposed = []
    world.driver.term = 2
    world.lead()
    world.tick(103.5)
    assert world.proposed == [], "they have their whole TTL again"
    replica.machine.abandon()


def test_a_term_begins_when_the_end_of_the_log_is_applied(world: World) -> None:
    """The mark of a lease that was renewed is taken back there: promoted before that (whole members, seed 476), it
    ran out with what the mark had left it, while its holder had been told a whole TTL."""
    world.replica.grant(1, 100)
    world.tick(100.0)
    world.tick(110.0)
    world.apply()
    answers = world.renewal(1)
    (_, unmark, _), world.proposed = world.proposed[0], []
    world.driver.term, world.now = 2, 150.0
    for hear in world.driver.on_role:  # the unmarking is committed; this member has not applied it yet
        hear(Role.FOLLOWER, 0)
        hear(Role.LEADER, 1)
    world.turn()
    world.tick(300.0)
    assert (answers, world.proposed) == ([], []), "no time is kept yet, and nothing expires"
    world.replica.apply((Kind.LEASE_CHECKPOINT, LeaseCheckpoint.FromString(unmark)))
    world.lead()
    assert world.replica.machine.lessor.remaining_ms(1, 300.0) == 100_000


def test_no_marks_while_a_member_does_not_know_them(world: World) -> None:
    """It would stop at them. What has not started yet is not waited for."""
    world.replica.grant(1, 100)
    members = world.replica.machine.members
    members[7] = MemberRecord(member=Member(ID=7), data_id=70, level=1)
    members[8] = MemberRecord(member=Member(ID=8))
    members[9] = MemberRecord(member=Member(ID=9), data_id=90)
    for second in range(60):
        world.tick(100.0 + second)
    assert not world.proposed
    told = MemberRecord(member=Member(ID=9), data_id=90, level=1)
    world.replica.do(Kind.MEMBER_PUBLISH, told)
    world.tick(161.0)
    assert [kind for kind, _, _ in world.proposed] == [Kind.LEASE_CHECKPOINT]
    world.replica.do(
        Kind.MEMBER_PUBLISH, MemberRecord(member=Member(ID=9), data_id=90)
    )  # an older version again
    assert world.replica.machine.below_level(1) == [9]


def test_a_mark_is_taken_back_though_an_older_member_would_stop_at_it(world: World) -> None:
    """A renewal that the mark outlived would not be kept by the next leader: rather one member too old stops."""
    world.replica.grant(1, 100)
    world.tick(100.0)
    world.tick(110.0)
    world.apply()
    older = MemberRecord(member=Member(ID=9), data_id=90)
    world.replica.machine.members[9] = older
    assert world.replica.machine.below_level(1) == [9]
    answers = world.renewal(1)
    assert answers == [] and [kind for kind, _, _ in world.proposed] == [Kind.LEASE_CHECKPOINT]
    world.apply()
    assert answers == [(100_000, None)]
    world.replica.machine.abandon()


def test_sessions_are_named_only_of_what_was_announced(world: World) -> None:
    """Who does not know sessions does not know Announce either, and stops at that: it cannot come to differ here."""
    world.replica.grant(1, 3)
    world.tick(100.0)
    world.tick(103.0)
    (_, payload, _), world.proposed = world.proposed[0], []
    named = [field.name for field, _ in LeaseExpire.FromString(payload).ListFields()]
    assert named == ["leader", "term", "IDs", "grant_indexes"]
    world.replica.machine.abandon()


@pytest.mark.parametrize("level", [1, 2])
def test_a_lease_of_the_same_id_that_is_granted_in_front_of_the_entry_lives_on(
    world: World, level: int
) -> None:
    """Unless a member does not know the field that says which lease was meant: it would end it, alone."""
    replica = world.replica
    replica.machine.members[7] = MemberRecord(member=Member(ID=7), data_id=70, level=level)
    replica.grant(1, 3)
    replica.grant(2, 3)
    world.tick(100.0)
    world.tick(103.0)
    replica.do(Kind.LEASE_REVOKE, LeaseRevokeRequest(ID=1))
    replica.grant(1, 3)
    world.apply()
    assert replica.machine.lessor.leases() == ([1] if level == 2 else [])
    replica.machine.abandon()


def test_a_renewal_of_a_marked_lease_waits_until_its_mark_is_gone(world: World) -> None:
    world.replica.grant(1, 100)
    world.tick(100.0)
    world.tick(110.0)
    world.apply()
    lease = world.replica.machine.lessor.get(1)
    assert lease is not None and lease.remaining_ms == 90_000
    world.now = 120.0
    answers = world.renewal(1)
    assert answers == [] and [kind for kind, _, _ in world.proposed] == [Kind.LEASE_CHECKPOINT]
    world.apply()
    assert answers == [(100_000, None)] and lease.remaining_ms == 0
    assert world.renewal(1) == [(100_000, None)], "and the next one is free"
    world.replica.machine.abandon()


def test_a_mark_that_could_not_be_taken_back_is_taken_back_again(world: World) -> None:
    world.replica.grant(1, 100)
    world.tick(100.0)
    world.tick(110.0)
    world.apply()
    answers = world.renewal(1)
    (_, _, done), world.proposed = world.proposed[0], []
    done(errors.RequestTimeout())
    assert answers == []
    world.later.pop()()
    world.apply()
    assert answers == [(100_000, None)]
    world.replica.machine.abandon()


def test_what_was_proposed_in_an_earlier_term_says_nothing_of_this_one(world: World) -> None:
    """Taken back in term 1, led again in term 2, and marked there: the outcome from term 1 unmarks nothing."""
    world.replica.grant(1, 100)
    world.tick(100.0)
    world.tick(110.0)
    world.apply()
    answers = world.renewal(1)
    world.driver.term = 2
    world.lead()
    world.tick(120.0)
    world.apply()
    assert answers == []
    assert world.replica.machine.lessor.keepalive(1, 121.0) == MARKED
    world.replica.machine.abandon()


def test_a_renewal_never_revives_a_lease_that_ran_out_while_its_mark_was_taken_back(world: World) -> None:
    world.replica.grant(1, 100)
    world.tick(100.0)
    world.tick(110.0)
    world.apply()
    world.now = 199.9
    answers = world.renewal(1)
    world.now = 200.1
    world.apply()
    assert answers == []
    world.tick(200.2)
    world.apply()
    world.later.pop()()
    assert answers == [(None, None)]
    world.replica.machine.abandon()
