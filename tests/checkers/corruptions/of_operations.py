"""Answers to calls, and the log behind them, falsified."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from kvstore.pb.etcdserverpb_pb2 import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)
from tests.checkers.corruptions.places import (
    asks,
    corruption,
    operations,
    pick,
    response_edited,
    with_operation,
)
from tests.checkers.evaluate import answer
from tests.checkers.history import History, KeyValue, Revision
from tests.checkers.timeline import Timeline


@corruption
def stale_read(random: Random, history: History) -> History | None:
    """A right answer, from before something that somebody knew already when it was asked for."""
    floors: dict[int, int] = {}
    for at in operations(history, asks(RangeRequest)):
        operation = history.operations[at]
        told = [o.revision for o in history.operations if o.succeeded and o.returned < operation.invoked]
        if not operation.request.serializable and not operation.request.revision and max(told, default=0) > 2:
            floors[at] = max(told)
    chosen = pick(random, sorted(floors))
    if chosen is None:
        return None
    revision = random.randint(1, floors[chosen] - 1)
    operation = history.operations[chosen]
    response = answer(operation.request, Timeline(history.log).at(revision))
    return with_operation(history, chosen, replace(operation, revision=revision, response=response))


@corruption
def read_from_the_future(random: Random, history: History) -> History | None:
    at = pick(random, operations(history, lambda o: asks(RangeRequest)(o) and not o.request.revision))
    if at is None:
        return None
    operation = history.operations[at]
    known = sum(1 for revision in history.log if revision.order < operation.returned) + 1
    if known >= history.log[-1].number:
        return None
    revision = random.randint(known + 1, history.log[-1].number)
    response = answer(operation.request, Timeline(history.log).at(revision))
    return with_operation(history, at, replace(operation, revision=revision, response=response))


@corruption
def value_wrong_in_range(random: Random, history: History) -> History | None:
    at = pick(random, operations(history, lambda o: asks(RangeRequest)(o) and bool(o.response.kvs)))

    def edit(response: Any) -> None:
        random.choice(response.kvs).value += b"?"

    return None if at is None else response_edited(history, at, edit)


@corruption
def key_missing_in_range(random: Random, history: History) -> History | None:
    at = pick(random, operations(history, lambda o: asks(RangeRequest)(o) and bool(o.response.kvs)))

    def edit(response: Any) -> None:
        del response.kvs[random.randrange(len(response.kvs))]
        response.count -= 1

    return None if at is None else response_edited(history, at, edit)


@corruption
def count_wrong(random: Random, history: History) -> History | None:
    at = pick(random, operations(history, asks(RangeRequest)))

    def edit(response: Any) -> None:
        response.count += 1

    return None if at is None else response_edited(history, at, edit)


@corruption
def prev_kv_wrong_in_put(random: Random, history: History) -> History | None:
    at = pick(random, operations(history, lambda o: asks(PutRequest)(o) and o.response.HasField("prev_kv")))

    def edit(response: Any) -> None:
        response.prev_kv.version += 1

    return None if at is None else response_edited(history, at, edit)


@corruption
def deleted_wrong(random: Random, history: History) -> History | None:
    at = pick(random, operations(history, asks(DeleteRangeRequest)))

    def edit(response: Any) -> None:
        response.deleted += 1

    return None if at is None else response_edited(history, at, edit)


@corruption
def comparison_wrong(random: Random, history: History) -> History | None:
    at = pick(random, operations(history, asks(TxnRequest)))

    def edit(response: Any) -> None:
        response.succeeded = not response.succeeded

    return None if at is None else response_edited(history, at, edit)


@corruption
def write_moved_to_another_revision(random: Random, history: History) -> History | None:
    at = pick(random, operations(history, asks(PutRequest)))
    if at is None:
        return None
    operation = history.operations[at]
    others = [each.number for each in history.log if each.number != operation.revision]
    return with_operation(history, at, replace(operation, revision=random.choice(others)))


@corruption
def answered_before_it_happened(random: Random, history: History) -> History | None:
    by_number = {revision.number: revision for revision in history.log}
    at = pick(random, operations(history, asks(PutRequest)))
    if at is None:
        return None
    operation = history.operations[at]
    order = by_number[operation.revision].order
    if random.random() < 0.5:
        return with_operation(history, at, replace(operation, returned=order - 1))
    return with_operation(history, at, replace(operation, invoked=order + 1))


@corruption
def acknowledged_write_lost(random: Random, history: History) -> History | None:
    """As if the cluster had forgotten its last writes: an answered one among them."""
    at = pick(random, operations(history, asks(PutRequest)))
    if at is None:
        return None
    revision = history.operations[at].revision
    watches = [replace(watch, complete=False) for watch in history.watches]
    log = [each for each in history.log if each.number < revision]
    ends = [end for end in history.lease_ends if end.revision < revision]
    return replace(history, log=log, lease_ends=ends, watches=watches)


@corruption
def acknowledged_write_overwritten(random: Random, history: History) -> History | None:
    at = pick(random, operations(history, asks(PutRequest)))
    if at is None:
        return None
    number = history.operations[at].revision
    log = [
        each._replace(events=tuple(kv._replace(value=kv.value + b"?") for kv in each.events))
        if each.number == number
        else each
        for each in history.log
    ]
    return replace(history, log=log)


@corruption
def write_taking_effect_twice(random: Random, history: History) -> History | None:
    at = pick(random, operations(history, asks(PutRequest)))
    if at is None:
        return None
    timeline = Timeline(history.log)
    entry = timeline.entry(history.operations[at].revision)
    assert entry is not None
    last, kv = history.log[-1], entry.events[0]
    number, before = last.number + 1, timeline.get(kv.key)
    again = KeyValue(
        kv.key,
        kv.value,
        before.create_revision if before else number,
        number,
        before.version + 1 if before else 1,
        0,
    )
    log = [*history.log, Revision(number, (again,), last.order + 1, last.at_s)]
    return replace(history, log=log, watches=[replace(each, complete=False) for each in history.watches])


@corruption
def revision_nobody_asked_for(random: Random, history: History) -> History | None:
    """A write that was answered with a refusal took effect."""
    at = pick(random, operations(history, asks(PutRequest)))
    if at is None:
        return None
    operation = replace(history.operations[at], error="NoLeader", response=None, revision=0)
    return with_operation(history, at, operation)


@corruption
def log_with_a_hole(random: Random, history: History) -> History | None:
    log = list(history.log)
    if len(log) < 3:
        return None
    del log[random.randrange(len(log) - 1)]
    return replace(history, log=log)
