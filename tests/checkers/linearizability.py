"""Linearizability in O(n log n): every answer names a revision, so the order of writes is known already.

What is left to check, and is checked here:
  real time   an operation's revision is not below that of anything answered before it was asked, and a write's
              is above it; a write happened between its being asked and being answered
  answers     each answer is what the request gives on the key space at its revision
  lost        a revision that a client was told to have made holds exactly what the client wrote
  unexplained what happened was asked for: by an answered write, by one of unknown outcome (each at most once,
              found by what it would have written), or by the end of a lease
Serializable reads are held to all of this but the lower bound of real time.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Any

from kvstore.pb.etcdserverpb_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    TxnResponse,
)
from tests.checkers.evaluate import Refused, interval, run
from tests.checkers.history import FOREVER, History, KeyValue, Operation, Violation
from tests.checkers.timeline import FIRST_REVISION, Timeline

_KEY_REQUESTS = (PutRequest, DeleteRangeRequest, RangeRequest, TxnRequest)
_READ_ERRORS = ("Compacted", "FutureRevision", "KeyNotFound")


def check(history: History, timeline: Timeline) -> int:
    """How many operations were checked. Raises Violation."""
    _check_real_time(history.operations)
    made: dict[int, Operation] = {}
    unknown: list[Operation] = []
    floors = _floors(history.operations)
    existing = _Existing(history)
    compacted = _acknowledged_compactions(history.operations)
    checked = 0
    for operation, floor in zip(history.operations, floors, strict=True):
        if operation.succeeded:
            checked += 1
            if operation.revision > existing.revision_at(operation.returned):
                raise Violation("real time", f"{told(operation)} names a revision that did not exist yet")
            if isinstance(operation.request, _KEY_REQUESTS):
                _check_answer(operation, timeline, made)
                _check_not_compacted(operation, compacted)
        elif operation.is_unknown and _may_write(operation.request):
            unknown.append(operation)
        elif operation.error in _READ_ERRORS:
            checked += 1
            _check_refusal(operation, floor, existing, timeline)
    _explain(history, timeline, made, unknown)
    return checked


def told(operation: Operation) -> str:
    """One line that says what was asked and answered."""
    request = f"{type(operation.request).__name__}({_short(operation.request)})"
    outcome = operation.error or f"revision {operation.revision} {_short(operation.response)}"
    return f"{operation.client} [{operation.invoked}..{_end(operation)}] {request} -> {outcome}"


def makes_revision(operation: Operation) -> bool:
    """Whether the answer says that this operation changed something."""
    request, response = operation.request, operation.response
    if not operation.succeeded:
        return False
    if isinstance(request, PutRequest):
        return True
    if isinstance(request, DeleteRangeRequest):
        return bool(response.deleted)
    return isinstance(request, TxnRequest) and _txn_wrote(response)


def _txn_wrote(response: TxnResponse) -> bool:
    for part in response.responses:
        kind = part.WhichOneof("response")
        if kind == "response_put":
            return True
        if kind == "response_delete_range" and part.response_delete_range.deleted:
            return True
        if kind == "response_txn" and _txn_wrote(part.response_txn):
            return True
    return False


def _may_write(request: Any) -> bool:
    if isinstance(request, TxnRequest):
        ops = [*request.success, *request.failure]
        return any(op.WhichOneof("request") != "request_range" for op in ops)
    return isinstance(request, (PutRequest, DeleteRangeRequest))


def _is_serializable(request: Any) -> bool:
    if isinstance(request, RangeRequest):
        return request.serializable
    if isinstance(request, TxnRequest):
        ops = [*request.success, *request.failure]
        return all(
            op.WhichOneof("request") == "request_range" and op.request_range.serializable for op in ops
        )
    return False


# Real time


def _floors(operations: list[Operation]) -> list[int]:
    """For each operation, the highest revision anybody had been told of when it was asked."""
    floors = [0] * len(operations)
    ends = sorted((op.returned, op.revision) for op in operations if op.succeeded)
    highest = at = 0
    for number in sorted(range(len(operations)), key=lambda each: operations[each].invoked):
        while at < len(ends) and ends[at][0] < operations[number].invoked:
            highest = max(highest, ends[at][1])
            at += 1
        floors[number] = highest
    return floors


def _check_real_time(operations: list[Operation]) -> None:
    for operation, floor in zip(operations, _floors(operations), strict=True):
        if not operation.succeeded or _is_serializable(operation.request):
            continue
        least = floor + makes_revision(operation)
        if operation.revision < least:
            raise Violation("real time", f"{told(operation)}, after revision {floor} was answered")


class _Existing:
    """Which revisions existed when."""

    def __init__(self, history: History) -> None:
        self._orders = [revision.order for revision in history.log]
        for before, after in zip(self._orders, self._orders[1:], strict=False):
            if after < before:
                raise Violation("log", "revisions did not come into being in their order")

    def revision_at(self, order: int) -> int:
        return FIRST_REVISION + bisect.bisect_left(self._orders, order)


# Answers


def _check_answer(operation: Operation, timeline: Timeline, made: dict[int, Operation]) -> None:
    revision = operation.revision
    if not makes_revision(operation):
        wanted = _evaluated(operation, timeline, revision)
        if wanted.events:
            raise Violation("answers", f"{told(operation)} should have written {wanted.events}")
    else:
        entry = timeline.entry(revision)
        if entry is None:
            raise Violation("lost", f"{told(operation)}, and there is no such revision")
        if not operation.invoked <= entry.order <= operation.returned:
            raise Violation("real time", f"{told(operation)} happened at {entry.order}")
        wanted = _evaluated(operation, timeline, revision - 1)
        if wanted.events != entry.events:
            raise Violation("lost", f"{told(operation)} and revision {revision} is {entry.events}")
        other = made.setdefault(revision, operation)
        if other is not operation:
            raise Violation("unexplained", f"{told(operation)} and {told(other)} made one revision")
    if wanted.response != operation.response:
        raise Violation("answers", f"{told(operation)} instead of {_short(wanted.response)}")


def _evaluated(operation: Operation, timeline: Timeline, revision: int) -> Any:
    try:
        return run(operation.request, timeline.at(revision), lambda lease: True)
    except Refused as refusal:
        raise Violation("answers", f"{told(operation)} instead of {refusal.args[0]}") from None


def _acknowledged_compactions(operations: list[Operation]) -> list[tuple[int, int]]:
    """(returned, highest revision compacted by then), ascending."""
    found: list[tuple[int, int]] = []
    highest = 0
    done = [op for op in operations if op.succeeded and isinstance(op.request, CompactionRequest)]
    for operation in sorted(done, key=lambda each: each.returned):
        highest = max(highest, operation.request.revision)
        found.append((operation.returned, highest))
    return found


def _check_not_compacted(operation: Operation, compacted: list[tuple[int, int]]) -> None:
    """What a linearizable read of an old revision is answered from was not compacted when it was asked."""
    request = operation.request
    if not isinstance(request, RangeRequest) or request.serializable or request.revision <= 0:
        return
    before = [revision for returned, revision in compacted if returned < operation.invoked]
    if before and before[-1] > request.revision:
        raise Violation("compaction", f"{told(operation)} reads below {before[-1]}, which is compacted")


def _check_refusal(operation: Operation, floor: int, existing: _Existing, timeline: Timeline) -> None:
    """There was a moment between question and answer at which the refusal was right."""
    request, error = operation.request, operation.error
    if not isinstance(request, (PutRequest, RangeRequest)):
        return
    ceiling = existing.revision_at(operation.returned)
    low = 0 if _is_serializable(request) else max(floor, FIRST_REVISION)
    if error == "FutureRevision":
        if isinstance(request, RangeRequest) and request.revision <= low:
            raise Violation("answers", f"{told(operation)}, which was there: {low}")
    elif error == "KeyNotFound" and isinstance(request, PutRequest):
        key = request.key
        if all(timeline.version_at(key, each) for each in _moments(timeline, key, low, ceiling)):
            raise Violation("answers", f"{told(operation)}, and the key was there all the time")
    elif error == "Compacted" and isinstance(request, RangeRequest):
        if request.revision >= ceiling:
            raise Violation("answers", f"{told(operation)}: nothing can be compacted that far")


def _moments(timeline: Timeline, key: bytes, low: int, high: int) -> Iterable[int]:
    yield low
    for revision in timeline.between(low + 1, high):
        if any(kv.key == key for kv in revision.events):
            yield revision.number


# Everything has a cause


def _explain(
    history: History, timeline: Timeline, made: dict[int, Operation], unknown: list[Operation]
) -> None:
    """Gives each revision that nobody was told to have made to a write of unknown outcome, or a lease's end."""
    by_lease = {end.revision for end in history.lease_ends}
    open_revisions = [each for each in history.log if each.number not in made]
    unclaimed = [each for each in open_revisions if each.number not in by_lease]
    for number in by_lease:
        if number in made:
            raise Violation("unexplained", f"{told(made[number])} and the end of a lease made one revision")
    candidates: dict[int, list[int]] = {}
    for revision in unclaimed:
        candidates[revision.number] = [
            at
            for at, operation in enumerate(unknown)
            if operation.invoked < revision.order
            and _writes(operation, revision.events)
            and _would_write(operation, timeline, revision.number) == revision.events
        ]
    taken: dict[int, int] = {}
    for number, options in candidates.items():
        if not _assign(number, options, candidates, taken, set()):
            entry = timeline.entry(number)
            events = entry.events if entry is not None else ()
            raise Violation("unexplained", f"nobody asked for revision {number}: {events}")


def _assign(
    number: int,
    options: list[int],
    candidates: dict[int, list[int]],
    taken: dict[int, int],
    tried: set[int],
) -> bool:
    """Bipartite matching by augmenting paths; there are few unknown writes, and most have one option."""
    for at in options:
        if at in tried:
            continue
        tried.add(at)
        holder = taken.get(at)
        if holder is None or _assign(holder, candidates[holder], candidates, taken, tried):
            taken[at] = number
            return True
    return False


def _writes(operation: Operation, events: tuple[KeyValue, ...]) -> bool:
    """Whether it could touch the first of these keys at all: cheaper than evaluating it."""
    request, key = operation.request, events[0].key
    if isinstance(request, PutRequest):
        return request.key == key
    if isinstance(request, DeleteRangeRequest):
        start, end = interval(request.key, request.range_end)
        return key >= start and (end is None or key < end)
    return True


def _would_write(operation: Operation, timeline: Timeline, number: int) -> tuple[KeyValue, ...]:
    try:
        return run(operation.request, timeline.at(number - 1), lambda lease: True).events
    except Refused:
        return ()


def _short(message: Any) -> str:
    return " ".join(str(message).split())[:300]


def _end(operation: Operation) -> str:
    return "?" if operation.returned == FOREVER else str(operation.returned)
