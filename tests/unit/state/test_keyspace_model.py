"""The whole key space against a naive model: writes, reads at every revision, compaction, restarts, crashes."""

from __future__ import annotations

import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvstore.errors import Compacted, FutureRevision
from kvstore.pb.etcdserverpb_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from tests.unit.state.harness import Model, Replica

PREFIX = b"p" * 499
KEYS = [
    b"a",
    b"a\0",
    b"ab",
    b"b",
    b"b\xff",
    b"\xff\xff",
    PREFIX,
    PREFIX + b"\0",
    PREFIX + b"q",
    PREFIX + b"q\0",
    PREFIX + b"qa",
    PREFIX + b"qa" + b"z" * 12,
    PREFIX + b"q\xff",
    PREFIX + b"r",
    PREFIX + b"r" * 2000,
]
keys = st.sampled_from(KEYS)
ends = st.sampled_from([b"", b"", b"\0", *KEYS])
values = st.binary(max_size=4)
FAST = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class KeyspaceAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.replica = Replica(self.directory)
        self.model = Model()

    def teardown(self) -> None:
        self.replica.machine.abandon()
        shutil.rmtree(self.directory)

    @rule(key=keys, value=values)
    def put(self, key: bytes, value: bytes) -> None:
        self.model.write({key: (value, 0)}, set())
        assert self.replica.put(key, value) == self.model.revision

    @rule(key=keys, end=ends)
    def delete(self, key: bytes, end: bytes) -> None:
        self.model.write({}, {kv.key for kv in self.model.within(key, end)})
        assert self.replica.delete(key, end) == self.model.revision

    @rule(puts=st.dictionaries(keys, values, max_size=4), gone=st.sets(keys, max_size=3), guard=keys)
    def txn(self, puts: dict[bytes, bytes], gone: set[bytes], guard: bytes) -> None:
        """Writes when the guard is there, and reads the whole store after it."""
        request = TxnRequest(compare=[Compare(key=guard, target=Compare.VERSION, result=Compare.GREATER)])
        deletes = sorted(gone - puts.keys())
        request.success.extend(RequestOp(request_delete_range=DeleteRangeRequest(key=key)) for key in deletes)
        for key, value in puts.items():
            request.success.append(RequestOp(request_put=PutRequest(key=key, value=value)))
        request.success.append(RequestOp(request_range=RangeRequest(key=b"\0", range_end=b"\0")))
        holds = guard in self.model.now
        if holds:
            self.model.write({key: (value, 0) for key, value in puts.items()}, set(deletes))
        response = self.replica.txn(request)
        assert response.succeeded == holds
        assert response.header.revision == self.model.revision
        if holds:
            seen = response.responses[-1].response_range
            assert list(seen.kvs) == self.model.within(b"\0", b"\0")
            assert seen.header.revision == self.model.revision

    @rule(key=keys, end=ends, back=st.integers(-1, 60), limit=st.integers(0, 4), keys_only=st.booleans())
    def range(self, key: bytes, end: bytes, back: int, limit: int, keys_only: bool) -> None:
        revision = max(self.model.revision - back, 1)
        try:
            got = self.replica.range(key, end, revision=revision, limit=limit, keys_only=keys_only)
        except FutureRevision:
            assert revision > self.model.revision
            return
        except Compacted:
            assert revision < self.model.compacted
            return
        wanted = self.model.within(key, end, revision)
        assert got.count == len(wanted)
        assert got.more == (0 < limit < len(wanted))
        shown = wanted[:limit] if limit else wanted
        assert [kv.key for kv in got.kvs] == [kv.key for kv in shown]
        if not keys_only:
            assert list(got.kvs) == shown

    @rule(back=st.integers(0, 30))
    def compact(self, back: int) -> None:
        revision = self.model.revision - back
        if revision <= self.model.compacted:
            with pytest.raises(Compacted):
                self.replica.compact(revision)
        else:
            self.replica.compact(revision)
            self.model.compacted = revision

    @rule()
    def turn(self) -> None:
        self.replica.machine.turn()

    @rule()
    def turns(self) -> None:
        self.replica.turns()

    @precondition(lambda self: self.model.revision > 1)
    @rule(crash=st.booleans())
    def reopen(self, crash: bool) -> None:
        before = self.replica.machine.hash_kv()
        self.replica.reopen(crash=crash)
        assert self.replica.machine.hash_kv() == before

    @invariant()
    def agrees(self) -> None:
        machine = self.replica.machine
        assert machine.revision == self.model.revision
        assert machine.compact_revision == self.model.compacted
        assert list(self.replica.range(b"\0", b"\0").kvs) == self.model.within(b"\0", b"\0")
        assert machine.durable_index <= machine.applied_index == len(self.replica.log)


TestKeyspaceAgainstModel = KeyspaceAgainstModel.TestCase
TestKeyspaceAgainstModel.settings = FAST


def test_a_chain_is_read_at_every_revision(tmp_path: object) -> None:
    replica = Replica(str(tmp_path))
    for number in range(300):
        replica.put(b"k", b"%d" % number)
        if number % 50 == 0:
            replica.machine.turn()
    for revision in range(2, 302):
        assert replica.values(revision) == {b"k": b"%d" % (revision - 2)}
    replica.compact(200)
    replica.turns()
    for revision in range(200, 302):
        assert replica.values(revision) == {b"k": b"%d" % (revision - 2)}
    with pytest.raises(Compacted):
        replica.values(199)
    replica.machine.abandon()


def test_an_entry_applied_before_changes_nothing(tmp_path: object) -> None:
    replica = Replica(str(tmp_path))
    replica.put(b"k", b"1")
    assert replica.machine.apply(1, 1, replica.log[0]) is None, "same index"
    assert replica.machine.apply(2, 2, replica.log[0]) is None, "same batch, from a new leader"
    assert (replica.machine.revision, replica.machine.applied_index) == (2, 2)
    replica.machine.abandon()
