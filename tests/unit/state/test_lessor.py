"""Leases on literal times: grant at the next tick, whole TTL at a promotion, no revival."""

from __future__ import annotations

import pytest

from kvstore.errors import LeaseExists, LeaseNotFound, NotLeader
from kvstore.state.lessor import EXPIRED, MARKED, Lessor


def leading(*leases: tuple[int, int], now: float = 100.0) -> Lessor:
    lessor = Lessor()
    for lease_id, ttl_ms in leases:
        lessor.grant(lease_id, ttl_ms)
    lessor.promote(now)
    return lessor


def test_expiry_is_handed_out_when_due_and_again_only_later() -> None:
    lessor = leading((1, 2000), (2, 5000))
    assert lessor.tick(101.999) == []
    assert lessor.tick(102.0) == [1]
    assert lessor.tick(102.5) == [], "already handed out"
    assert lessor.tick(104.9) == []
    assert lessor.tick(105.0) == [1, 2], "1 is still there three seconds later"
    lessor.revoke(1)
    lessor.revoke(2)
    assert lessor.tick(120.0) == []
    assert lessor.next_deadline() is None


def test_a_renewal_starts_the_whole_ttl_again() -> None:
    lessor = leading((1, 2000))
    assert lessor.keepalive(1, 101.5) == 2000
    assert lessor.tick(102.0) == []
    assert lessor.remaining_ms(1, 102.0) == 1500
    assert lessor.tick(103.5) == [1]


def test_an_expired_lease_is_not_revived() -> None:
    lessor = leading((1, 2000))
    assert lessor.keepalive(1, 102.0) == EXPIRED
    assert lessor.is_expired(1, 102.0)
    assert lessor.remaining_ms(1, 102.5) == 0
    assert lessor.tick(102.5) == [1]
    lessor.revoke(1)
    assert lessor.keepalive(1, 103.0) is None
    assert not lessor.is_expired(1, 103.0)
    assert lessor.remaining_ms(1, 103.0) is None


def test_a_lease_granted_by_apply_starts_at_the_next_tick() -> None:
    lessor = leading()
    lessor.grant(7, 1000)
    assert not lessor.is_expired(7, 999.0), "its time has not begun"
    assert lessor.remaining_ms(7, 999.0) == 1000
    assert lessor.tick(200.0) == []
    assert lessor.tick(200.999) == []
    assert lessor.tick(201.0) == [7]


def test_a_lease_revoked_before_its_first_tick_is_forgotten() -> None:
    lessor = leading()
    lessor.grant(7, 1000)
    lessor.revoke(7)
    assert lessor.tick(200.0) == [] and lessor.next_deadline() is None


def test_a_new_leader_gives_every_lease_its_whole_ttl() -> None:
    lessor = leading((1, 2000))
    lessor.demote()
    assert lessor.tick(500.0) == []
    assert lessor.remaining_ms(1, 500.0) == 2000
    with pytest.raises(NotLeader):
        lessor.keepalive(1, 500.0)
    lessor.promote(500.0)
    assert lessor.tick(501.9) == []
    assert lessor.tick(502.0) == [1]


def test_a_renewal_costs_no_heap_entry() -> None:
    lessor = leading((1, 2000))
    for step in range(1000):
        lessor.keepalive(1, 100 + step / 1000)
    assert lessor.next_deadline() == 102.0
    assert lessor.tick(102.0) == []
    assert lessor.next_deadline() == 102.999


def test_keys_come_sorted_and_leave_when_detached() -> None:
    lessor = leading((1, 2000))
    for key in (b"b", b"a", b"c"):
        lessor.attach(1, key)
    lessor.detach(1, b"b")
    lessor.detach(9, b"b")
    assert lessor.keys(1) == [b"a", b"c"]
    assert lessor.keys(9) == []
    assert lessor.leases() == [1]


def test_grant_and_revoke_refuse_what_etcd_refuses() -> None:
    lessor = leading((1, 2000))
    with pytest.raises(LeaseExists):
        lessor.grant(1, 1000)
    with pytest.raises(LeaseNotFound):
        lessor.grant(0, 1000)
    with pytest.raises(LeaseNotFound):
        lessor.revoke(9)


def test_let_go_it_has_its_grace_and_no_more_than_was_left() -> None:
    lessor = leading((1, 2000), (2, 2000))
    assert lessor.let_go(1, 500).grace_ms == 500
    assert lessor.has_unscheduled
    lessor.schedule(101.0)
    assert lessor.next_deadline() == 101.5
    lessor.let_go(2, 500)
    lessor.schedule(101.8)
    assert lessor.tick(101.999) == [1]
    assert lessor.tick(102.0) == [2], "its TTL was over before its grace"


def test_held_again_it_has_its_whole_ttl_and_one_entry_that_counts() -> None:
    lessor = leading((1, 2000))
    for session in range(2, 10):
        lessor.let_go(1, 500)
        lessor.schedule(101.0)
        lessor.hold(1, session)
        lessor.schedule(101.2)
    assert lessor.tick(101.6) == []
    assert lessor.tick(103.1) == []
    assert lessor.tick(103.2) == [1]
    assert lessor.tick(103.3) == []


def test_a_renewal_within_the_grace_is_one_of_the_grace() -> None:
    lessor = leading((1, 2000))
    lessor.let_go(1, 500)
    lessor.schedule(100.0)
    assert lessor.keepalive(1, 100.4) == 2000
    assert lessor.tick(100.85) == []
    assert lessor.tick(100.9) == [1]


def marks(lessor: Lessor, now: float) -> list[tuple[int, int]]:
    return [(lease.id, left_ms) for lease, left_ms in lessor.marks(now)]


def granted(lessor: Lessor, lease_id: int, ttl_ms: int, now: float) -> None:
    lessor.grant(lease_id, ttl_ms)
    lessor.schedule(now)


def test_what_is_left_of_a_lease_nobody_renews_is_told_in_tenths() -> None:
    lessor = leading()
    granted(lessor, 1, 100_000, 100.0)
    granted(lessor, 2, 5_000, 100.0)
    granted(lessor, 3, 2_000, 100.0)  # too short to be told of
    assert marks(lessor, 101.9) == []
    assert marks(lessor, 102.0) == [(2, 3_000)]
    assert marks(lessor, 103.9) == []
    assert marks(lessor, 104.0) == [(2, 1_000)]
    assert marks(lessor, 110.0) == [(1, 90_000)]
    assert marks(lessor, 125.0) == [(1, 75_000)]
    assert marks(lessor, 134.9) == []
    assert marks(lessor, 135.0) == [(1, 65_000)]


def test_the_next_leader_gives_what_was_left() -> None:
    lessor = leading((1, 100_000), (2, 100_000))
    lease = lessor.get(1)
    assert lease is not None
    lease.remaining_ms = 30_000
    lessor.demote()
    lessor.promote(500.0)
    assert (lessor.remaining_ms(1, 500.0), lessor.remaining_ms(2, 500.0)) == (30_000, 100_000)
    assert lessor.keepalive(1, 500.0) == MARKED
    assert lessor.tick(530.0) == [1]


def test_a_marked_lease_is_renewed_once_its_mark_is_taken_back() -> None:
    lessor = leading()
    granted(lessor, 1, 100_000, 100.0)
    assert marks(lessor, 110.0) == [(1, 90_000)]
    assert lessor.keepalive(1, 111.0) == MARKED
    lease = lessor.get(1)
    assert lease is not None
    lessor.unmark(lease)
    lessor.unmark(lease)
    assert marks(lessor, 125.0) == [], "no mark while one is being taken back"
    lessor.unmarked(lease, done=False)
    assert lessor.keepalive(1, 126.0) == MARKED
    lessor.unmarked(lease, done=True)
    assert lessor.keepalive(1, 126.0) == 100_000
    assert marks(lessor, 175.9) == [], "one that is renewed has half its time first"
    assert lessor.keepalive(1, 175.9) == 100_000
    assert marks(lessor, 225.8) == []
    assert marks(lessor, 226.0) == [(1, 49_900)]


def test_marks_of_a_lease_that_went_are_nobodys() -> None:
    lessor = leading()
    granted(lessor, 1, 100_000, 100.0)
    lease = lessor.get(1)
    assert lease is not None
    lessor.unmark(lease)
    lessor.revoke(1)
    granted(lessor, 1, 100_000, 105.0)
    lessor.unmarked(lease, done=True)
    assert marks(lessor, 110.0) == []
    assert marks(lessor, 115.0) == [(1, 90_000)]
    lessor.demote()
    assert marks(lessor, 200.0) == []


def test_not_too_many_are_told_at_once() -> None:
    lessor = leading()
    for lease_id in range(1, 2_501):
        granted(lessor, lease_id, 100_000, 100.0)
    assert [len(marks(lessor, 110.0)) for _ in range(4)] == [1_000, 1_000, 500, 0]
