"""Quotas: what is refused, and use that is exact whatever happened, against a naive model."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvstore.commands import Kind
from kvstore.errors import InvalidQuota, PrefixQuotaExceeded, QuotaNotFound, StoreError
from kvstore.pb.etcdserverpb_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.pb.internal_pb2 import Announce, AnnounceEnd, LeaseExpire
from kvstore.pb.quota_pb2 import PrefixQuota, QuotaRemoveRequest, QuotaSetRequest, QuotaSetResponse
from kvstore.state.key_ranges import prefix_range
from kvstore.state.quotas import Quota, Quotas
from tests.unit.state.harness import Replica, matches

KEYS = [
    b"a",
    b"a/",
    b"a/1",
    b"a/2",
    b"a/b",
    b"a/b/1",
    b"a/b/2",
    b"b",
    b"\xff",
    b"\xff\xff",
    b"a/" + b"l" * 600,
]
PREFIXES = [b"a", b"a/", b"a/b", b"a/b/", b"a/1", b"b", b"\xff", b"\xffz"]
keys = st.sampled_from(KEYS)
values = st.binary(max_size=6)
FAST = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def put_op(key: bytes, value: bytes) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key, value=value))


def delete_op(key: bytes, end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=end))


class QuotasAgainstModel(RuleBasedStateMachine):
    """The model is a dictionary and what each quota allows; use is added up from it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.replica = Replica(self.directory)
        self.values: dict[bytes, bytes] = {}
        self.leases: dict[int, set[bytes]] = {}
        self.limits: dict[bytes, tuple[int, int]] = {}  # keys, bytes
        self.next_lease = 1

    def teardown(self) -> None:
        self.replica.machine.abandon()
        shutil.rmtree(self.directory)

    def used(self, prefix: bytes, values: dict[bytes, bytes]) -> tuple[int, int]:
        there = {key: value for key, value in values.items() if key.startswith(prefix)}
        return len(there), sum(len(key) + len(value) for key, value in there.items())

    def fits(self, after: dict[bytes, bytes]) -> bool:
        for prefix, limits in self.limits.items():
            before, then = self.used(prefix, self.values), self.used(prefix, after)
            for limit, old, new in zip(limits, before, then, strict=True):
                if limit and new > limit and new > old:
                    return False
        return True

    def write(self, after: dict[bytes, bytes], do: Callable[[], object]) -> bool:
        if self.fits(after):
            do()
            self.values = after
            return True
        before = self.replica.values()
        with pytest.raises(PrefixQuotaExceeded):
            do()
        assert self.replica.values() == before
        return False

    def attach(self, key: bytes, lease: int) -> None:
        for held in self.leases.values():
            held.discard(key)
        if lease:
            self.leases[lease].add(key)

    @rule(prefix=st.sampled_from(PREFIXES), keys_max=st.integers(0, 5), bytes_max=st.integers(0, 40))
    def set(self, prefix: bytes, keys_max: int, bytes_max: int) -> None:
        request = QuotaSetRequest(prefix=prefix, keys_max=keys_max, bytes_max=bytes_max)
        if keys_max or bytes_max:
            answer = QuotaSetResponse.FromString(self.replica.do(Kind.QUOTA_SET, request)[1])
            assert (answer.quota.used_keys, answer.quota.used_bytes) == self.used(prefix, self.values)
            self.limits[prefix] = keys_max, bytes_max
        else:
            with pytest.raises(InvalidQuota):
                self.replica.do(Kind.QUOTA_SET, request)

    @rule(prefix=st.sampled_from(PREFIXES))
    def remove(self, prefix: bytes) -> None:
        request = QuotaRemoveRequest(prefix=prefix)
        if prefix in self.limits:
            self.replica.do(Kind.QUOTA_REMOVE, request)
            del self.limits[prefix]
        else:
            with pytest.raises(QuotaNotFound):
                self.replica.do(Kind.QUOTA_REMOVE, request)

    @rule(key=keys, value=values, plain=st.booleans())
    def put(self, key: bytes, value: bytes, plain: bool) -> None:
        request = PutRequest(key=key, value=value, prev_kv=not plain)
        if self.write({**self.values, key: value}, lambda: self.replica.do(Kind.PUT, request)):
            self.attach(key, 0)

    @precondition(lambda self: self.values)
    @rule(data=st.data())
    def put_without_value(self, data: st.DataObject) -> None:
        """Changes no size, and is never refused."""
        key = data.draw(st.sampled_from(sorted(self.values)))
        self.replica.do(Kind.PUT, PutRequest(key=key, ignore_value=True, ignore_lease=True))

    @rule(key=keys, end=st.sampled_from([b"", b"", b"\0", *KEYS]))
    def delete(self, key: bytes, end: bytes) -> None:
        self.replica.delete(key, end)
        for gone in [each for each in self.values if matches(each, key, end)]:
            del self.values[gone]
            self.attach(gone, 0)

    @rule(
        puts=st.dictionaries(keys, values, max_size=4),
        ranges=st.lists(st.tuples(keys, st.sampled_from([b"", *KEYS])), max_size=2),
        nested=st.booleans(),
    )
    def txn(self, puts: dict[bytes, bytes], ranges: list[tuple[bytes, bytes]], nested: bool) -> None:
        puts = {key: v for key, v in puts.items() if not any(matches(key, *each) for each in ranges)}
        operations = [delete_op(*each) for each in ranges] + [put_op(*each) for each in puts.items()]
        if nested:
            inner = TxnRequest(success=operations, failure=[put_op(b"a/never", b"x" * 100)])
            operations = [RequestOp(request_txn=inner)]
        gone = [key for key in self.values if any(matches(key, *each) for each in ranges)]
        after = {key: value for key, value in self.values.items() if key not in gone} | puts
        if self.write(after, lambda: self.replica.txn(TxnRequest(success=operations))):
            for key in [*gone, *puts]:
                self.attach(key, 0)

    @rule(key=keys, value=values)
    def put_leased(self, key: bytes, value: bytes) -> None:
        lease, self.next_lease = self.next_lease, self.next_lease + 1
        self.replica.grant(lease)
        self.leases[lease] = set()
        if self.write({**self.values, key: value}, lambda: self.replica.put(key, value, lease)):
            self.attach(key, lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), expires=st.booleans())
    def end_lease(self, data: st.DataObject, expires: bool) -> None:
        lease = data.draw(st.sampled_from(sorted(self.leases)))
        if expires:
            self.replica.do(Kind.LEASE_EXPIRE, LeaseExpire(leader=1, term=1, IDs=[lease]))
        else:
            self.replica.revoke(lease)
        for key in self.leases.pop(lease):
            del self.values[key]

    @rule(key=keys, value=values, leave=st.booleans())
    def announce(self, key: bytes, value: bytes, leave: bool) -> None:
        lease, self.next_lease = self.next_lease, self.next_lease + 1
        request = Announce(lease_id=lease, ttl_ms=1000, session=lease, key=key, value=value)
        if not self.write({**self.values, key: value}, lambda: self.replica.do(Kind.ANNOUNCE, request)):
            assert self.replica.machine.lessor.get(lease) is None, "refused, and the lease is there"
            return
        self.attach(key, 0)
        self.leases[lease] = {key}
        if leave:
            self.replica.do(Kind.ANNOUNCE_END, AnnounceEnd(lease_id=lease, session=lease))
            del self.leases[lease], self.values[key]
        else:  # a put that takes the key off the lease: nobody holds an instance in this model
            self.replica.do(Kind.PUT, PutRequest(key=key, ignore_value=True))
            self.attach(key, 0)

    @rule(back=st.integers(0, 30))
    def compact(self, back: int) -> None:
        machine = self.replica.machine
        if machine.revision - back > machine.compact_revision:
            self.replica.compact(machine.revision - back)

    @rule()
    def turns(self) -> None:
        self.replica.turns()

    @rule(crash=st.booleans())
    def reopen(self, crash: bool) -> None:
        self.replica.reopen(crash=crash)

    @rule()
    def install_a_snapshot(self) -> None:
        """As a member does that has fallen behind: the state of another takes the place of its own."""
        machine = self.replica.machine
        machine.flush()
        path = os.path.join(self.directory, "received")
        machine.snapshot_to(path)
        machine.reopen_from(path)

    @invariant()
    def agrees(self) -> None:
        assert self.replica.values() == self.values
        found = {each.prefix: each for each in self.replica.machine.quotas.all()}
        assert set(found) == set(self.limits)
        for prefix, quota in found.items():
            assert (quota.used_keys, quota.used_bytes) == self.used(prefix, self.values), prefix
            assert (quota.keys_max, quota.bytes_max) == self.limits[prefix]


TestQuotasAgainstModel = QuotasAgainstModel.TestCase
TestQuotasAgainstModel.settings = FAST


@pytest.fixture
def replica(tmp_path: object) -> Replica:
    return Replica(str(tmp_path))


def set_quota(replica: Replica, prefix: bytes, **limits: int) -> PrefixQuota:
    request = QuotaSetRequest(prefix=prefix, **limits)
    return QuotaSetResponse.FromString(replica.do(Kind.QUOTA_SET, request)[1]).quota


def refusal(do: Callable[[], object]) -> str:
    with pytest.raises(PrefixQuotaExceeded) as refused:
        do()
    return refused.value.reason


def test_the_refusal_names_prefix_limit_and_use(replica: Replica) -> None:
    set_quota(replica, b"/team-a/", keys_max=2, bytes_max=100)
    replica.put(b"/team-a/1", b"x" * 41)
    assert refusal(lambda: replica.put(b"/team-a/2", b"x" * 60)) == (
        'quota on "/team-a/" exceeded: 100 bytes allowed, 50 in use, 69 more asked for'
    )
    replica.put(b"/team-a/2", b"x")
    assert refusal(lambda: replica.put(b"/team-a/3")) == (
        'quota on "/team-a/" exceeded: 2 keys allowed, 2 in use, 1 more asked for'
    )
    replica.put(b"/team-b/3", b"x" * 1000)
    quota = replica.machine.quotas.get(b"/team-a/")
    assert quota is not None and quota.refused == {"bytes": 1, "keys": 1, "qps": 0}


def test_what_is_there_above_a_new_limit_may_shrink_and_not_grow(replica: Replica) -> None:
    for number in range(5):
        replica.put(b"p%d" % number, b"x" * 10)
    quota = set_quota(replica, b"p", keys_max=2, bytes_max=20)
    assert (quota.used_keys, quota.used_bytes) == (5, 60)
    replica.put(b"p1", b"y" * 10)  # as large as before
    replica.put(b"p1", b"y")
    refusal(lambda: replica.put(b"p1", b"yy"))
    replica.txn(TxnRequest(success=[delete_op(b"p2"), put_op(b"p9", b"z" * 5)]))  # smaller on the whole
    replica.delete(b"p", b"q")
    replica.put(b"p1", b"y" * 10)


def test_of_a_limit_that_is_not_named_nothing_changes(replica: Replica) -> None:
    set_quota(replica, b"p", keys_max=2, bytes_max=20, qps_max=7)
    changed = set_quota(replica, b"p", bytes_max=30)
    assert (changed.keys_max, changed.bytes_max, changed.qps_max) == (2, 30, 7)
    lifted = set_quota(replica, b"p", keys_max=0)
    assert (lifted.keys_max, lifted.bytes_max, lifted.qps_max) == (0, 30, 7)
    assert replica.machine.quotas.rated == 1
    set_quota(replica, b"p", qps_max=0)
    assert replica.machine.quotas.rated == 0
    with pytest.raises(InvalidQuota):
        set_quota(replica, b"p", bytes_max=0)


@pytest.mark.parametrize("prefix", [b"", b"x" * 501])
def test_a_prefix_that_cannot_be_one(replica: Replica, prefix: bytes) -> None:
    with pytest.raises(InvalidQuota):
        set_quota(replica, prefix, keys_max=1)


def test_a_transaction_fails_whole_or_not_at_all(replica: Replica) -> None:
    set_quota(replica, b"p", keys_max=2)
    replica.put(b"p1")
    too_many = TxnRequest(success=[put_op(b"o", b""), put_op(b"p2", b""), put_op(b"p3", b"")])
    refusal(lambda: replica.txn(too_many))
    assert replica.values() == {b"p1": b""}
    makes_room = TxnRequest(success=[put_op(b"p2", b""), put_op(b"p3", b""), delete_op(b"p1", b"p2")])
    assert replica.txn(makes_room).succeeded
    other_way = TxnRequest(
        compare=[Compare(key=b"p1", target=Compare.VERSION, result=Compare.GREATER)],
        success=[put_op(b"p4", b"")],
    )
    assert not replica.txn(other_way).succeeded, "what the other branch would do is not counted"


def test_every_prefix_that_a_key_begins_with_is_found() -> None:
    random = Random(1)
    for _ in range(300):
        quotas = Quotas()
        prefixes = {bytes(random.choices(b"ab\xff", k=random.randint(1, 5))) for _ in range(12)}
        for prefix in prefixes:
            quotas.put_in(Quota(prefix, keys_max=1))
        for gone in random.sample(sorted(prefixes), 3):
            quota = quotas.get(gone)
            assert quota is not None
            quotas.take_out(quota)
            prefixes.discard(gone)
        for _ in range(30):
            key = bytes(random.choices(b"ab\xff", k=random.randint(0, 7)))
            found, quota = [], quotas.innermost(key)
            while quota is not None:
                found.append(quota.prefix)
                quota = quota.outer
            assert found == sorted((each for each in prefixes if key.startswith(each)), reverse=True)


def test_a_database_from_before_there_were_quotas_takes_one(replica: Replica) -> None:
    replica.put(b"p1", b"x")
    assert prefix_range(b"p") == (b"p", b"q")
    set_quota(replica, b"p", keys_max=1)
    outcome = replica.apply((Kind.PUT, PutRequest(key=b"p2")), (Kind.PUT, PutRequest(key=b"q")))
    assert isinstance(outcome[0], StoreError) and not isinstance(outcome[1], StoreError)
