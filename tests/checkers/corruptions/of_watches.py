"""Events and responses of watches, falsified."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import replace
from random import Random

from kvstore.pb.etcdserverpb_pb2 import (
    WatchCreateRequest,
    WatchResponse,
)
from kvstore.pb.mvccpb_pb2 import Event
from tests.checkers.corruptions.places import (
    corruption,
    pick,
)
from tests.checkers.evaluate import interval, proto
from tests.checkers.history import History, KeyValue, Received, WatchRecord


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
