"""Ways to falsify a valid history at a random place, each of which a checker must find.

A corruption takes a random source and a history and returns a falsified copy, or None where the history has no
place for it. It changes nothing of what it was given. Each is wrong wherever it is done: what could also have
happened (the last event of a watch that ended with its member, say, is allowed to be missing) is left alone.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from kvstore.pb.etcdserverpb_pb2 import (
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchCreateRequest,
    WatchResponse,
)
from kvstore.pb.mvccpb_pb2 import Event
from tests.checkers.evaluate import answer, interval, proto
from tests.checkers.history import History, KeyValue, Operation, Received, Renewal, Revision, WatchRecord
from tests.checkers.timeline import Timeline

Corruption = Callable[[Random, History], History | None]
T = TypeVar("T")
ALL: list[Corruption] = []


def corruption(function: Corruption) -> Corruption:
    ALL.append(function)
    return function


def pick(random: Random, options: Sequence[T]) -> T | None:
    return random.choice(options) if options else None


# Watches


def _responses(history: History, wanted: Callable[[WatchRecord, int], bool]) -> list[tuple[int, int]]:
    """(watch, response) positions that fit."""
    return [
        (at, number)
        for at, watch in enumerate(history.watches)
        for number in range(len(watch.responses))
        if wanted(watch, number)
    ]


def _with_responses(history: History, at: int, responses: list[Received]) -> History:
    watches = list(history.watches)
    watches[at] = replace(watches[at], responses=responses)
    return replace(history, watches=watches)


def _edited(history: History, place: tuple[int, int], edit: Callable[[WatchResponse], None]) -> History:
    at, number = place
    responses = list(history.watches[at].responses)
    response = WatchResponse()
    response.CopyFrom(responses[number].response)
    edit(response)
    responses[number] = responses[number]._replace(response=response)
    return _with_responses(history, at, responses)


def _last_revision(watch: WatchRecord) -> int:
    return max((e.kv.mod_revision for each in watch.responses for e in each.response.events), default=0)


def _is_missed(watch: WatchRecord, number: int) -> bool:
    """Whether events of that response would be missed: something later says that they were due."""
    response = watch.responses[number].response
    return bool(response.events) and response.events[-1].kv.mod_revision < _last_revision(watch)


def _has_events(watch: WatchRecord, number: int) -> bool:
    return bool(watch.responses[number].response.events)


@corruption
def event_dropped(random: Random, history: History) -> History | None:
    place = pick(random, _responses(history, _is_missed))
    if place is None:
        return None

    def edit(response: WatchResponse) -> None:
        del response.events[random.randrange(len(response.events))]
        if not response.events:
            response.created = False

    edited = _edited(history, place, edit)
    watch = edited.watches[place[0]]
    if not watch.responses[place[1]].response.events:
        return _with_responses(
            edited, place[0], watch.responses[: place[1]] + watch.responses[place[1] + 1 :]
        )
    return edited


@corruption
def response_dropped(random: Random, history: History) -> History | None:
    place = pick(random, _responses(history, _is_missed))
    if place is None:
        return None
    responses = history.watches[place[0]].responses
    return _with_responses(history, place[0], responses[: place[1]] + responses[place[1] + 1 :])


@corruption
def last_response_dropped(random: Random, history: History) -> History | None:
    def last(watch: WatchRecord, number: int) -> bool:
        response = watch.responses[number].response
        later = watch.responses[number + 1 :]
        return watch.complete and bool(response.events) and not any(each.response.events for each in later)

    place = pick(random, _responses(history, last))
    return (
        None
        if place is None
        else _with_responses(history, place[0], history.watches[place[0]].responses[: place[1]])
    )


@corruption
def event_repeated(random: Random, history: History) -> History | None:
    place = pick(random, _responses(history, _has_events))
    if place is None:
        return None

    def edit(response: WatchResponse) -> None:
        event = Event()
        event.CopyFrom(random.choice(response.events))
        response.events.append(event)

    return _edited(history, place, edit)


@corruption
def response_repeated(random: Random, history: History) -> History | None:
    place = pick(random, _responses(history, _has_events))
    if place is None:
        return None
    responses = list(history.watches[place[0]].responses)
    responses.insert(place[1], responses[place[1]])
    return _with_responses(history, place[0], responses)


@corruption
def events_swapped(random: Random, history: History) -> History | None:
    place = pick(random, _responses(history, lambda w, n: len(w.responses[n].response.events) > 1))
    if place is None:
        return None

    def edit(response: WatchResponse) -> None:
        one, other = random.sample(range(len(response.events)), 2)
        events = list(response.events)
        events[one], events[other] = events[other], events[one]
        del response.events[:]
        response.events.extend(events)

    return _edited(history, place, edit)


@corruption
def responses_swapped(random: Random, history: History) -> History | None:
    def followed(watch: WatchRecord, number: int) -> bool:
        later = watch.responses[number + 1 :]
        return _has_events(watch, number) and bool(later) and bool(later[0].response.events)

    place = pick(random, _responses(history, followed))
    if place is None:
        return None
    responses, at = list(history.watches[place[0]].responses), place[1]
    responses[at], responses[at + 1] = responses[at + 1], responses[at]
    return _with_responses(history, place[0], responses)


@corruption
def revision_split(random: Random, history: History) -> History | None:
    def several(watch: WatchRecord, number: int) -> bool:
        response = watch.responses[number].response
        events = response.events
        return (
            not response.fragment
            and len(events) > 1
            and (events[-1].kv.mod_revision == events[-2].kv.mod_revision)
        )

    place = pick(random, _responses(history, several))
    if place is None:
        return None
    responses, at = list(history.watches[place[0]].responses), place[1]
    first, second = WatchResponse(), WatchResponse()
    first.CopyFrom(responses[at].response)
    second.CopyFrom(responses[at].response)
    del first.events[-1]
    del second.events[:-1]
    pieces = [responses[at]._replace(response=first), responses[at]._replace(response=second)]
    return _with_responses(history, place[0], responses[:at] + pieces + responses[at + 1 :])


def _event_edited(
    random: Random, history: History, fits: Callable[[Event], bool], edit: Callable[[Event], None]
) -> History | None:
    def has(watch: WatchRecord, number: int) -> bool:
        return any(fits(event) for event in watch.responses[number].response.events)

    place = pick(random, _responses(history, has))
    if place is None:
        return None
    return _edited(history, place, lambda r: edit(random.choice([e for e in r.events if fits(e)])))


@corruption
def prev_kv_wrong(random: Random, history: History) -> History | None:
    def edit(event: Event) -> None:
        if random.random() < 0.5:
            event.prev_kv.value += b"?"
        else:
            event.prev_kv.mod_revision -= 1

    return _event_edited(random, history, lambda event: event.HasField("prev_kv"), edit)


@corruption
def prev_kv_missing(random: Random, history: History) -> History | None:
    compacted = max((each.revision for each in history.compactions), default=0)
    return _event_edited(
        random,
        history,
        lambda event: event.HasField("prev_kv") and event.kv.mod_revision > compacted,
        lambda event: event.ClearField("prev_kv"),
    )


@corruption
def prev_kv_of_a_creation(random: Random, history: History) -> History | None:
    def creates(event: Event) -> bool:
        return event.kv.version == 1

    return _event_edited(random, history, creates, lambda event: event.prev_kv.CopyFrom(event.kv))


@corruption
def version_wrong(random: Random, history: History) -> History | None:
    def edit(event: Event) -> None:
        if random.random() < 0.5:
            event.kv.version += 1
        else:
            event.kv.create_revision -= 1

    return _event_edited(random, history, lambda event: event.kv.version > 0, edit)


@corruption
def value_wrong_in_event(random: Random, history: History) -> History | None:
    def edit(event: Event) -> None:
        event.kv.value = b"another"

    return _event_edited(random, history, lambda event: event.kv.version > 0, edit)


@corruption
def lease_wrong_in_event(random: Random, history: History) -> History | None:
    def edit(event: Event) -> None:
        event.kv.lease += 1

    return _event_edited(random, history, lambda event: event.kv.version > 0, edit)


@corruption
def type_wrong(random: Random, history: History) -> History | None:
    def edit(event: Event) -> None:
        event.type = Event.PUT if event.type == Event.DELETE else Event.DELETE

    return _event_edited(random, history, lambda event: True, edit)


@corruption
def event_for_another_key(random: Random, history: History) -> History | None:
    def edit(event: Event) -> None:
        event.kv.key += b"?"

    return _event_edited(random, history, lambda event: True, edit)


@corruption
def event_that_was_filtered(random: Random, history: History) -> History | None:
    """One that the range or the filters of the watch leave out, among those it was sent."""
    by_number = {revision.number: revision for revision in history.log}

    def unwanted(watch: WatchRecord, kv: KeyValue) -> bool:
        start, end = interval(watch.request.key or b"\0", watch.request.range_end)
        inside = kv.key >= start and (end is None or kv.key < end)
        kind = WatchCreateRequest.NODELETE if kv.deleted else WatchCreateRequest.NOPUT
        return not inside or kind in watch.request.filters

    def options(watch: WatchRecord, number: int) -> list[KeyValue]:
        response = watch.responses[number].response
        if not response.events or response.fragment:
            return []
        return [kv for kv in by_number[response.events[-1].kv.mod_revision].events if unwanted(watch, kv)]

    place = pick(random, _responses(history, lambda watch, number: bool(options(watch, number))))
    if place is None:
        return None
    kv = random.choice(options(history.watches[place[0]], place[1]))
    return _edited(
        history,
        place,
        lambda r: r.events.append(Event(type=int(kv.deleted), kv=proto(kv))),  # type: ignore[arg-type]
    )


@corruption
def event_below_the_start(random: Random, history: History) -> History | None:
    """The event before the first one asked for, sent all the same."""

    def before(watch: WatchRecord) -> list[KeyValue]:
        start, end = interval(watch.request.key or b"\0", watch.request.range_end)
        return [
            kv
            for revision in history.log[: max(0, watch.request.start_revision - 2)]
            for kv in revision.events
            if kv.key >= start and (end is None or kv.key < end)
        ]

    def fits(watch: WatchRecord, number: int) -> bool:
        created = watch.responses[0].response
        return number == 0 and created.created and not created.canceled and bool(before(watch))

    place = pick(random, _responses(history, fits))
    if place is None:
        return None
    watch = history.watches[place[0]]
    kv = before(watch)[-1]
    response = WatchResponse(events=[Event(type=int(kv.deleted), kv=proto(kv))])  # type: ignore[arg-type]
    response.header.revision = history.log[-1].number
    responses = [watch.responses[0], Received(response, watch.responses[0].sent), *watch.responses[1:]]
    return _with_responses(history, place[0], responses)


@corruption
def progress_too_early(random: Random, history: History) -> History | None:
    place = pick(random, _responses(history, _has_events))
    if place is None:
        return None
    responses = list(history.watches[place[0]].responses)
    response = WatchResponse()
    response.header.revision = random.choice(responses[place[1]].response.events).kv.mod_revision
    responses.insert(place[1], Received(response, responses[place[1]].sent))
    return _with_responses(history, place[0], responses)


@corruption
def progress_beyond_the_end(random: Random, history: History) -> History | None:
    def is_progress(watch: WatchRecord, number: int) -> bool:
        response = watch.responses[number].response
        return not (response.created or response.canceled or response.events)

    place = pick(random, _responses(history, is_progress))

    def edit(response: WatchResponse) -> None:
        response.header.revision = history.log[-1].number + random.randint(1, 100)

    return None if place is None else _edited(history, place, edit)


@corruption
def events_after_the_cancellation(random: Random, history: History) -> History | None:
    place = pick(random, _responses(history, lambda w, n: w.responses[n].response.canceled))
    other = pick(random, _responses(history, _has_events))
    if place is None or other is None:
        return None
    watch = history.watches[place[0]]
    late = history.watches[other[0]].responses[other[1]]
    return _with_responses(history, place[0], [*watch.responses, late])


@corruption
def cancelled_for_what_was_not_compacted(random: Random, history: History) -> History | None:
    place = pick(random, _responses(history, lambda w, n: bool(w.responses[n].response.compact_revision)))

    def edit(response: WatchResponse) -> None:
        response.compact_revision = random.choice((1, history.log[-1].number + 5))

    return None if place is None else _edited(history, place, edit)


@corruption
def cancelled_without_need(random: Random, history: History) -> History | None:
    """By a compaction at or below what the watch had been sent already."""
    points = [each.revision for each in history.compactions]

    def fits(watch: WatchRecord, number: int) -> bool:
        response = watch.responses[number].response
        return (
            bool(response.events)
            and not response.fragment
            and (bisect.bisect_right(points, response.events[-1].kv.mod_revision) > 0)
        )

    place = pick(random, _responses(history, fits))
    if place is None:
        return None
    responses = history.watches[place[0]].responses[: place[1] + 1]
    last = responses[-1].response.events[-1].kv.mod_revision
    point = random.choice([each for each in points if each <= last])
    response = WatchResponse(canceled=True, compact_revision=point)
    return _with_responses(history, place[0], [*responses, Received(response, 1 << 60)])


# Operations


def _operations(history: History, wanted: Callable[[Operation], bool]) -> list[int]:
    return [at for at, each in enumerate(history.operations) if each.succeeded and wanted(each)]


def _with_operation(history: History, at: int, operation: Operation) -> History:
    operations = list(history.operations)
    operations[at] = operation
    return replace(history, operations=operations)


def _response_edited(history: History, at: int, edit: Callable[[Any], None]) -> History:
    operation = history.operations[at]
    response = type(operation.response)()
    response.CopyFrom(operation.response)
    edit(response)
    return _with_operation(history, at, replace(operation, response=response))


def _asks(kind: type[Any]) -> Callable[[Operation], bool]:
    return lambda operation: isinstance(operation.request, kind)


@corruption
def stale_read(random: Random, history: History) -> History | None:
    """A right answer, from before something that somebody knew already when it was asked for."""
    floors: dict[int, int] = {}
    for at in _operations(history, _asks(RangeRequest)):
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
    return _with_operation(history, chosen, replace(operation, revision=revision, response=response))


@corruption
def read_from_the_future(random: Random, history: History) -> History | None:
    at = pick(random, _operations(history, lambda o: _asks(RangeRequest)(o) and not o.request.revision))
    if at is None:
        return None
    operation = history.operations[at]
    known = sum(1 for revision in history.log if revision.order < operation.returned) + 1
    if known >= history.log[-1].number:
        return None
    revision = random.randint(known + 1, history.log[-1].number)
    response = answer(operation.request, Timeline(history.log).at(revision))
    return _with_operation(history, at, replace(operation, revision=revision, response=response))


@corruption
def value_wrong_in_range(random: Random, history: History) -> History | None:
    at = pick(random, _operations(history, lambda o: _asks(RangeRequest)(o) and bool(o.response.kvs)))

    def edit(response: Any) -> None:
        random.choice(response.kvs).value += b"?"

    return None if at is None else _response_edited(history, at, edit)


@corruption
def key_missing_in_range(random: Random, history: History) -> History | None:
    at = pick(random, _operations(history, lambda o: _asks(RangeRequest)(o) and bool(o.response.kvs)))

    def edit(response: Any) -> None:
        del response.kvs[random.randrange(len(response.kvs))]
        response.count -= 1

    return None if at is None else _response_edited(history, at, edit)


@corruption
def count_wrong(random: Random, history: History) -> History | None:
    at = pick(random, _operations(history, _asks(RangeRequest)))

    def edit(response: Any) -> None:
        response.count += 1

    return None if at is None else _response_edited(history, at, edit)


@corruption
def prev_kv_wrong_in_put(random: Random, history: History) -> History | None:
    at = pick(random, _operations(history, lambda o: _asks(PutRequest)(o) and o.response.HasField("prev_kv")))

    def edit(response: Any) -> None:
        response.prev_kv.version += 1

    return None if at is None else _response_edited(history, at, edit)


@corruption
def deleted_wrong(random: Random, history: History) -> History | None:
    at = pick(random, _operations(history, _asks(DeleteRangeRequest)))

    def edit(response: Any) -> None:
        response.deleted += 1

    return None if at is None else _response_edited(history, at, edit)


@corruption
def comparison_wrong(random: Random, history: History) -> History | None:
    at = pick(random, _operations(history, _asks(TxnRequest)))

    def edit(response: Any) -> None:
        response.succeeded = not response.succeeded

    return None if at is None else _response_edited(history, at, edit)


@corruption
def write_moved_to_another_revision(random: Random, history: History) -> History | None:
    at = pick(random, _operations(history, _asks(PutRequest)))
    if at is None:
        return None
    operation = history.operations[at]
    others = [each.number for each in history.log if each.number != operation.revision]
    return _with_operation(history, at, replace(operation, revision=random.choice(others)))


@corruption
def answered_before_it_happened(random: Random, history: History) -> History | None:
    by_number = {revision.number: revision for revision in history.log}
    at = pick(random, _operations(history, _asks(PutRequest)))
    if at is None:
        return None
    operation = history.operations[at]
    order = by_number[operation.revision].order
    if random.random() < 0.5:
        return _with_operation(history, at, replace(operation, returned=order - 1))
    return _with_operation(history, at, replace(operation, invoked=order + 1))


@corruption
def acknowledged_write_lost(random: Random, history: History) -> History | None:
    """As if the cluster had forgotten its last writes: an answered one among them."""
    at = pick(random, _operations(history, _asks(PutRequest)))
    if at is None:
        return None
    revision = history.operations[at].revision
    watches = [replace(watch, complete=False) for watch in history.watches]
    log = [each for each in history.log if each.number < revision]
    ends = [end for end in history.lease_ends if end.revision < revision]
    return replace(history, log=log, lease_ends=ends, watches=watches)


@corruption
def acknowledged_write_overwritten(random: Random, history: History) -> History | None:
    at = pick(random, _operations(history, _asks(PutRequest)))
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
    at = pick(random, _operations(history, _asks(PutRequest)))
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
    at = pick(random, _operations(history, _asks(PutRequest)))
    if at is None:
        return None
    operation = replace(history.operations[at], error="NoLeader", response=None, revision=0)
    return _with_operation(history, at, operation)


@corruption
def log_with_a_hole(random: Random, history: History) -> History | None:
    log = list(history.log)
    if len(log) < 3:
        return None
    del log[random.randrange(len(log) - 1)]
    return replace(history, log=log)


# Leases


@corruption
def lease_gone_too_early(random: Random, history: History) -> History | None:
    expired = [at for at, end in enumerate(history.lease_ends) if end.expired]
    at = pick(random, expired)
    if at is None:
        return None
    ends = list(history.lease_ends)
    start = next(each for each in history.lease_starts if each.lease == ends[at].lease)
    ends[at] = ends[at]._replace(at_s=start.at_s + start.ttl_s * random.uniform(0.1, 0.99))
    return replace(history, lease_ends=ends)


@corruption
def lease_gone_though_renewed(random: Random, history: History) -> History | None:
    at = pick(random, [end for end in history.lease_ends if end.expired])
    if at is None:
        return None
    start = next(each for each in history.lease_starts if each.lease == at.lease)
    sent_s = at.at_s - start.ttl_s * random.uniform(0.1, 0.9)
    sent = max(start.order + 1, at.order - 2)
    renewal = Renewal(at.lease, start.ttl_s, sent, at.order - 1, sent_s, sent_s)
    return replace(history, renewals=[*history.renewals, renewal])


@corruption
def lease_revived(random: Random, history: History) -> History | None:
    end = pick(random, history.lease_ends)
    if end is None:
        return None
    start = next(each for each in history.lease_starts if each.lease == end.lease)
    renewal = Renewal(end.lease, start.ttl_s, end.order + 1, end.order + 2, end.at_s + 1e6, end.at_s + 1e6)
    return replace(history, renewals=[*history.renewals, renewal])


@corruption
def renewal_denied(random: Random, history: History) -> History | None:
    at = pick(random, [at for at, each in enumerate(history.renewals) if each.ttl_s])
    if at is None:
        return None
    before = history.renewals[at]
    ended = {end.lease: end.order for end in history.lease_ends}
    if ended.get(before.lease, before.answered + 1) < before.answered:
        return None
    renewals = list(history.renewals)
    renewals[at] = replace(before, ttl_s=0)
    return replace(history, renewals=renewals)


@corruption
def lease_that_stays(random: Random, history: History) -> History | None:
    at = pick(random, [at for at, end in enumerate(history.lease_ends) if end.expired and not end.revision])
    if at is None:
        return None
    return replace(history, lease_ends=history.lease_ends[:at] + history.lease_ends[at + 1 :])


@corruption
def key_that_outlives_its_lease(random: Random, history: History) -> History | None:
    """The lease's end claims to have deleted nothing, though something hung on it."""
    at = pick(random, [at for at, end in enumerate(history.lease_ends) if end.revision])
    if at is None:
        return None
    ends = list(history.lease_ends)
    ends[at] = ends[at]._replace(revision=0)
    return replace(history, lease_ends=ends)


@corruption
def grant_lost(random: Random, history: History) -> History | None:
    at = pick(random, _operations(history, _asks(LeaseGrantRequest)))
    if at is None:
        return None
    lease = history.operations[at].response.ID
    return replace(
        history,
        lease_starts=[each for each in history.lease_starts if each.lease != lease],
        lease_ends=[each for each in history.lease_ends if each.lease != lease],
        renewals=[each for each in history.renewals if each.lease != lease],
    )


@corruption
def revocation_lost(random: Random, history: History) -> History | None:
    at = pick(random, _operations(history, _asks(LeaseRevokeRequest)))
    if at is None:
        return None
    lease = history.operations[at].request.ID
    ends = [end for end in history.lease_ends if end.lease != lease or end.revision]
    return None if len(ends) == len(history.lease_ends) else replace(history, lease_ends=ends)


@corruption
def revoked_by_nobody(random: Random, history: History) -> History | None:
    asked = {o.request.ID for o in history.operations if isinstance(o.request, LeaseRevokeRequest)}
    options = [at for at, end in enumerate(history.lease_ends) if end.expired and end.lease not in asked]
    at = pick(random, options)
    if at is None:
        return None
    ends = list(history.lease_ends)
    ends[at] = ends[at]._replace(expired=False)
    return replace(history, lease_ends=ends)


@corruption
def keys_of_a_lease_wrong(random: Random, history: History) -> History | None:
    at = pick(
        random, _operations(history, lambda o: _asks(LeaseTimeToLiveRequest)(o) and o.response.TTL >= 0)
    )

    def edit(response: Any) -> None:
        if response.keys and random.random() < 0.5:
            del response.keys[-1]
        else:
            response.keys.append(b"another")

    return None if at is None else _response_edited(history, at, edit)


@corruption
def living_lease_said_to_be_gone(random: Random, history: History) -> History | None:
    ends = {end.lease: end.order for end in history.lease_ends}

    def lives(operation: Operation) -> bool:
        if not isinstance(operation.request, LeaseTimeToLiveRequest) or operation.response.TTL < 0:
            return False
        return ends.get(operation.request.ID, operation.returned + 1) > operation.returned

    at = pick(random, _operations(history, lives))
    if at is None:
        return None
    operation = history.operations[at]
    gone = type(operation.response)(ID=operation.request.ID, TTL=-1)
    return _with_operation(history, at, replace(operation, response=gone))
