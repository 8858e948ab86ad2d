"""A page of very many keys: its count is made in turns of the loop that others have in between."""

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
from kvstore.state.ranges import LEARNED_KEYS
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
