"""A range in chunks says what the same range in one answer says, while others write, and no faster than it is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvstore import errors
from kvstore.api.context import Context
from kvstore.api.range_stream import BUFFER_BYTES_MAX, FIRST_KEYS, RangeStream
from kvstore.config import load
from kvstore.pb.etcdserverpb_pb2 import RangeRequest, RangeResponse, RangeStreamResponse
from kvstore.rpc import StreamCall
from tests.unit.state.harness import Replica

ALL = {"key": b"k", "range_end": b"l"}


class Call:
    def __init__(self) -> None:
        self.sent: list[RangeResponse] = []
        self.buffered_bytes = 0
        self.reads = True
        self.ended: tuple[int, str] | None = None

    def send(self, message: bytes) -> None:
        self.sent.append(RangeStreamResponse.FromString(message).range_response)
        if not self.reads:
            self.buffered_bytes += len(message)

    def finish(self, status: int = 0, message: str = "") -> None:
        self.ended = status, message


class Store:
    """A replica, and the calls that a loop would make next."""

    def __init__(self, folder: str) -> None:
        self.replica = Replica(folder)
        self.machine = self.replica.machine
        self.due: deque[Callable[[], None]] = deque()
        self.read_fails: errors.StoreError | None = None
        driver = SimpleNamespace(node=SimpleNamespace(term=1), read=lambda done: done(self.read_fails))
        self.context = Context(
            load([], {}),
            cast(Any, driver),
            self.machine,
            1,
            2,
            lambda: 0.0,
            lambda _, call: self.due.append(call),
        )

    def ask(self, call: Call, **fields: Any) -> RangeStream:
        stream = RangeStream(self.context, cast(StreamCall, call))
        stream.message(RangeRequest(**fields).SerializeToString())
        return stream

    def run(self, turns: int = 10_000) -> None:
        while self.due and turns:
            turns -= 1
            self.due.popleft()()

    def whole(self, **fields: Any) -> RangeResponse:
        revision, body = self.machine.range(RangeRequest(**fields))
        return RangeResponse.FromString(self.context.header(revision) + body)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path))
    for number in range(60):
        made.replica.put(b"k%04d" % number, b"v" * number)
    yield made
    made.machine.abandon()


def joined(answers: list[RangeResponse]) -> RangeResponse:
    whole = RangeResponse()
    for answer in answers:
        whole.MergeFrom(answer)
    return whole


@pytest.mark.parametrize(
    "fields",
    [
        ALL,
        {**ALL, "limit": 7},
        {**ALL, "limit": 60},
        {**ALL, "limit": 25},
        {**ALL, "keys_only": True},
        {**ALL, "count_only": True},
        {**ALL, "count_only": True, "limit": 5},
        {**ALL, "revision": 31},
        {**ALL, "serializable": True},
        {"key": b"k0003"},
        {"key": b"k0003", "range_end": b"\0"},
        {"key": b"nothing"},
        {"key": b"x", "range_end": b"\0"},
    ],
    ids=str,
)
def test_the_chunks_are_the_answer(store: Store, fields: dict[str, Any]) -> None:
    call = Call()
    store.ask(call, **fields)
    store.run()
    assert call.ended == (0, "")
    assert joined(call.sent) == store.whole(**fields)
    assert all(not each.HasField("header") and not each.count for each in call.sent[:-1])


def test_it_stays_at_its_revision_while_others_write(store: Store) -> None:
    expected, call = store.whole(**ALL), Call()
    store.ask(call, **ALL)
    assert len(call.sent[0].kvs) == FIRST_KEYS
    store.replica.put(b"k0059", b"later")
    store.replica.put(b"k9999")
    store.replica.delete(b"k0030")
    store.run()
    assert joined(call.sent) == expected


def test_a_revision_that_is_compacted_meanwhile_ends_it(store: Store) -> None:
    call = Call()
    store.ask(call, **ALL)
    store.replica.put(b"k0000")
    store.replica.compact(store.machine.revision)
    store.run()
    assert call.ended == (11, "etcdserver: mvcc: required revision has been compacted")


def test_it_waits_for_a_client_that_does_not_read(store: Store) -> None:
    for number in range(40):
        store.replica.put(b"k%04d" % number, b"v" * 200_000)
    call = Call()
    call.reads = False
    stream = store.ask(call, **ALL)
    store.run()
    assert call.ended is None
    assert BUFFER_BYTES_MAX < call.buffered_bytes < BUFFER_BYTES_MAX + (1 << 20)
    call.reads, call.buffered_bytes = True, 0
    stream.drained()
    store.run()
    assert joined(call.sent) == store.whole(**ALL)


def test_one_that_was_given_up_reads_no_more(store: Store) -> None:
    call = Call()
    store.ask(call, **ALL).cancelled()
    store.run()
    assert (len(call.sent), call.ended) == (1, None)


def test_what_is_refused(store: Store) -> None:
    for fields, status in (
        ({"key": b""}, 3),
        ({**ALL, "revision": 1000}, 11),
        ({**ALL, "sort_order": 1}, 12),
        ({**ALL, "min_mod_revision": 1}, 12),
    ):
        call = Call()
        store.ask(call, **fields)
        assert call.ended is not None and call.ended[0] == status, fields
    store.read_fails = errors.NoLeader()
    call = Call()
    store.ask(call, **ALL)
    assert call.ended == (14, "etcdserver: no leader")
