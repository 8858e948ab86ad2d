"""Ranges of very many keys are counted and read in turns of the loop; others have theirs in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvstore.api.context import Context
from kvstore.api.kv import KvService
from kvstore.config import load
from kvstore.pb.etcdserverpb_pb2 import RangeRequest, RangeResponse
from kvstore.rpc import UnaryCall
from kvstore.state.ranges import LEARNED_KEYS, STEP_KEYS
from tests.unit.api.door import Call
from tests.unit.state.harness import Replica

KEYS = 3 * LEARNED_KEYS
ALL = {"key": b"k", "range_end": b"l", "limit": 10}


class Store:
    """A replica of many keys, its service, and the calls that a loop would make next."""

    def __init__(self, folder: str) -> None:
        self.replica = Replica(folder)
        for number in range(KEYS):
            self.replica.put(b"k%06d" % number, b"")
        self.replica.machine.flush()
        self.due: deque[Callable[[], None]] = deque()
        driver = SimpleNamespace(
            node=SimpleNamespace(term=1, leader_id=1), leader_id=1, read=lambda done: done(None)
        )
        context = Context(
            load([], {}),
            cast(Any, driver),
            self.replica.machine,
            1,
            2,
            lambda: 0.0,
            lambda _, call: self.due.append(call),
        )
        self.service = KvService(context)

    def ask(self, **fields: Any) -> Call:
        call = Call({})
        self.service.range(cast(UnaryCall, call), RangeRequest(**fields).SerializeToString())
        return call

    def run(self) -> int:
        """Until nothing is due; how many turns it took."""
        turns = 0
        while self.due:
            turns += 1
            self.due.popleft()()
        return turns


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(str(tmp_path_factory.mktemp("kv")))
    yield made
    made.replica.machine.abandon()


def test_it_is_answered_after_several_turns_and_the_next_page_at_once(store: Store) -> None:
    then = store.replica.machine.revision
    first = store.ask(**ALL)
    assert not first.sent
    store.replica.put(b"k000000x", b"")  # others have their turn, and are seen
    assert store.run() >= 2
    answer = RangeResponse.FromString(first.sent[0])
    assert (len(answer.kvs), answer.count, answer.more) == (10, KEYS + 1, True)
    second = store.ask(**ALL | {"key": answer.kvs[-1].key + b"\0", "revision": then})
    store.run()
    assert RangeResponse.FromString(second.sent[0]).count == KEYS - 9
    third = store.ask(**ALL | {"key": b"k000100", "revision": then})
    assert RangeResponse.FromString(third.sent[0]).count == KEYS - 100, (
        "what the second has looked at is known"
    )


def test_a_caller_that_has_gone_is_not_counted_for(store: Store) -> None:
    store.replica.machine.keyspace._counts = None
    call = store.ask(**ALL)
    call.cancelled = True
    assert store.run() == 1
    assert not call.sent


def test_a_revision_that_is_compacted_meanwhile(store: Store) -> None:
    keyspace = store.replica.machine.keyspace
    keyspace._counts = None
    keyspace._counts_then.clear()
    store.replica.put(b"k", b"")
    then = store.replica.put(b"k", b"")
    store.replica.put(b"k", b"")
    call = store.ask(**ALL | {"revision": then})
    assert not call.sent
    store.replica.compact(store.replica.machine.revision)
    store.run()
    assert call.ended == (11, "etcdserver: mvcc: required revision has been compacted")
    assert not call.sent


WHOLE: dict[str, Any] = {"key": b"k", "range_end": b"l"}


def test_a_long_range_is_read_at_one_revision_while_others_write(store: Store) -> None:
    machine = store.replica.machine
    then, before = machine.revision, store.replica.range(**WHOLE)
    call = store.ask(**WHOLE)
    assert not call.sent
    store.replica.put(b"k000001", b"later")
    store.replica.put(b"kz", b"later")
    assert store.run() >= before.count // STEP_KEYS - 1
    answer = RangeResponse.FromString(call.sent[0])
    assert answer.header.revision == then
    assert (list(answer.kvs), answer.count, answer.more) == (list(before.kvs), before.count, False)


@pytest.mark.parametrize(
    "how",
    [
        {"sort_order": RangeRequest.DESCEND, "sort_target": RangeRequest.MOD},
        {"sort_order": RangeRequest.DESCEND, "limit": 3},
        {"max_mod_revision": 5_000},
        {"keys_only": True},
        {"limit": STEP_KEYS + 1},
        {"sort_target": RangeRequest.CREATE, "limit": STEP_KEYS + 1},
    ],
    ids=str,
)
def test_a_long_range_is_answered_as_a_short_one_is(store: Store, how: dict[str, Any]) -> None:
    whole = store.replica.range(**WHOLE, **how)
    call = store.ask(**WHOLE, **how)
    assert not call.sent
    store.run()
    answer = RangeResponse.FromString(call.sent[0])
    assert (list(answer.kvs), answer.count, answer.more) == (list(whole.kvs), whole.count, whole.more)


def test_a_long_range_begins_anew_where_its_revision_is_compacted_meanwhile(store: Store) -> None:
    call = store.ask(**WHOLE)
    store.replica.put(b"k000001", b"even later")
    store.replica.put(b"k000001", b"last")
    store.replica.compact(store.replica.machine.revision)
    store.run()
    answer = RangeResponse.FromString(call.sent[0])
    assert answer.header.revision == store.replica.machine.revision
    assert [kv.value for kv in answer.kvs if kv.key == b"k000001"] == [b"last"]


def test_a_past_revision_that_is_compacted_while_it_is_read(store: Store) -> None:
    then = store.replica.machine.revision
    call = store.ask(**WHOLE, revision=then)
    store.replica.put(b"k000001", b"")
    store.replica.put(b"k000001", b"")
    store.replica.compact(store.replica.machine.revision)
    store.run()
    assert call.ended == (11, "etcdserver: mvcc: required revision has been compacted")


def test_a_caller_that_has_gone_is_not_read_for(store: Store) -> None:
    call = store.ask(**WHOLE)
    call.cancelled = True
    assert store.run() == 1
    assert not call.sent


def test_a_short_range_among_many_keys_is_answered_at_once(store: Store) -> None:
    answer = RangeResponse.FromString(store.ask(key=b"k0001", range_end=b"k0002").sent[0])
    assert answer.count == 100
