"""Leases against time: none goes too early, each goes in the end, and nothing outlives its own.

early       an expired lease had its whole TTL since its grant and since the sending of each renewal that was
            answered with yes
revived     no renewal is answered with yes that was sent after the lease had ended
denied      none is answered with no while the lease lived from the question to the answer
late        once nobody renews and nothing is broken, it goes: within its TTL and SLACK_S
survivor    the end of a lease deletes all its keys, in one revision; no key hangs on a lease that is not
lost        a grant or revocation that was answered took place, between question and answer
unexplained a lease that did not expire was revoked by somebody
"""

from __future__ import annotations

import bisect

from kvstore.pb.etcdserverpb_pb2 import (
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
)
from tests.checkers.evaluate import delete_keys
from tests.checkers.history import History, LeaseEnd, LeaseStart, Operation, Violation
from tests.checkers.linearizability import told
from tests.checkers.timeline import Timeline

SLACK_S = 2.0
_EPSILON_S = 1e-6


def check(history: History, timeline: Timeline) -> int:
    """How many leases were checked. Raises Violation."""
    starts = {start.lease: start for start in history.lease_starts}
    ends = {end.lease: end for end in history.lease_ends}
    if len(starts) != len(history.lease_starts) or len(ends) != len(history.lease_ends):
        raise Violation("lease twice", "a lease began or ended twice")
    for end in ends.values():
        if end.lease not in starts or starts[end.lease].order > end.order:
            raise Violation("lease unexplained", f"{end} of a lease that was not granted")
    _check_renewals(history, starts, ends)
    _check_early(history, starts, ends)
    _check_late(history, starts, ends)
    _check_operations(history, starts, ends)
    _check_survivors(history, timeline, starts, ends)
    for operation in history.operations:
        if operation.succeeded and isinstance(operation.request, LeaseTimeToLiveRequest):
            _check_told(operation, timeline, starts, ends)
        elif operation.succeeded and isinstance(operation.request, LeaseLeasesRequest):
            _check_listed(operation, starts, ends)
    return len(starts)


def _check_told(
    operation: Operation, timeline: Timeline, starts: dict[int, LeaseStart], ends: dict[int, LeaseEnd]
) -> None:
    request, response = operation.request, operation.response
    start, end = starts.get(request.ID), ends.get(request.ID)
    if response.TTL < 0:
        if start is not None and start.order < operation.invoked:
            if end is None or end.order > operation.returned:
                raise Violation("lease told", f"{told(operation)}, and it lived from {start} to {end}")
        return
    if start is None or start.order > operation.returned or (end and end.order < operation.invoked):
        raise Violation("lease told", f"{told(operation)}, and it lived from {start} to {end}")
    if response.grantedTTL != start.ttl_s or response.TTL > start.ttl_s:
        raise Violation("lease told", f"{told(operation)} of {start}")
    keys = [kv.key for kv in timeline.at(operation.revision).span(b"", None) if kv.lease == request.ID]
    if request.keys and list(response.keys) != keys:
        raise Violation("lease told", f"{told(operation)}, and on it hung {keys}")


def _check_listed(operation: Operation, starts: dict[int, LeaseStart], ends: dict[int, LeaseEnd]) -> None:
    listed = [status.ID for status in operation.response.leases]
    for lease in listed:
        start, end = starts.get(lease), ends.get(lease)
        if start is None or start.order > operation.returned or (end and end.order < operation.invoked):
            raise Violation("lease told", f"{told(operation)}, and {lease} lived from {start} to {end}")
    for start in starts.values():
        end = ends.get(start.lease)
        lives = start.order < operation.invoked and (end is None or end.order > operation.returned)
        if lives and start.lease not in listed:
            raise Violation("lease told", f"{told(operation)} without {start}, which ended as {end}")


def _check_early(history: History, starts: dict[int, LeaseStart], ends: dict[int, LeaseEnd]) -> None:
    for end in ends.values():
        start = starts[end.lease]
        if end.expired and end.at_s < start.at_s + start.ttl_s / history.clock_rate_max - _EPSILON_S:
            raise Violation("lease early", f"{end} and granted as {start}")


def _check_renewals(history: History, starts: dict[int, LeaseStart], ends: dict[int, LeaseEnd]) -> None:
    for renewal in history.renewals:
        start, end = starts.get(renewal.lease), ends.get(renewal.lease)
        if renewal.ttl_s > 0:
            if start is None or start.order > renewal.answered:
                raise Violation("lease revived", f"{renewal} of a lease that is not there")
            if end is not None and end.order < renewal.sent:
                raise Violation("lease revived", f"{renewal} after {end}")
            if end is not None and end.expired:
                if end.at_s < renewal.sent_s + renewal.ttl_s / history.clock_rate_max - _EPSILON_S:
                    raise Violation("lease early", f"{end} and renewed by {renewal}")
            if renewal.ttl_s != start.ttl_s:
                raise Violation("lease renewed", f"{renewal} of {start}")
        elif start is not None and start.order < renewal.sent:
            if end is None or end.order > renewal.answered:
                raise Violation("lease denied", f"{renewal} and it lived from {start} to {end}")


def _check_late(history: History, starts: dict[int, LeaseStart], ends: dict[int, LeaseEnd]) -> None:
    """Every new leader starts the time of all leases anew."""
    anew = max([history.healthy_since_s, *history.leaders_s])
    for start in starts.values():
        if start.lease in ends:
            continue
        gone_by = max(anew, start.at_s) + start.ttl_s + SLACK_S
        if gone_by < history.ended_s:
            raise Violation(
                "lease late", f"{start} is still there at {history.ended_s:.3f}, not {gone_by:.3f}"
            )


def _check_operations(history: History, starts: dict[int, LeaseStart], ends: dict[int, LeaseEnd]) -> None:
    revoked: dict[int, int] = {}
    for operation in history.operations:
        request = operation.request
        if isinstance(request, LeaseGrantRequest) and operation.succeeded:
            start = starts.get(operation.response.ID)
            if start is None or not operation.invoked <= start.order <= operation.returned:
                raise Violation("lease lost", f"{told(operation)}: {start}")
            if start.ttl_s != operation.response.TTL or start.ttl_s < request.TTL:
                raise Violation("lease granted", f"{told(operation)}: {start}")
        elif isinstance(request, LeaseRevokeRequest):
            if operation.succeeded or operation.is_unknown:
                revoked[request.ID] = min(operation.invoked, revoked.get(request.ID, operation.invoked))
            if operation.succeeded:
                end = ends.get(request.ID)
                if end is None or not operation.invoked <= end.order <= operation.returned:
                    raise Violation("lease lost", f"{told(operation)}: {end}")
    for end in ends.values():
        if not end.expired and revoked.get(end.lease, end.order) >= end.order:
            raise Violation("lease unexplained", f"nobody revoked what {end} says")


def _check_survivors(
    history: History, timeline: Timeline, starts: dict[int, LeaseStart], ends: dict[int, LeaseEnd]
) -> None:
    orders = [revision.order for revision in history.log]
    for revision in history.log:
        for kv in revision.events:
            if not kv.lease:
                continue
            start, end = starts.get(kv.lease), ends.get(kv.lease)
            if start is None or start.order > revision.order:
                raise Violation("lease survivor", f"{kv} hangs on a lease that was not granted: {start}")
            if end is not None and end.order < revision.order:
                raise Violation("lease survivor", f"{kv} hangs on what ended as {end}")
    held = _attached(history)
    for end in ends.values():
        if end.revision:
            entry = timeline.entry(end.revision)
            keys = held.get((end.lease, end.revision - 1), [])
            events = entry.events if entry is not None else ()
            if events != delete_keys(keys, end.revision):
                raise Violation("lease survivor", f"{end} deletes {events}, and on it hung {keys}")
        else:
            last = bisect.bisect_right(orders, end.order)
            keys = [key for key, lease in _leases_at(history, last).items() if lease == end.lease]
            if keys:
                raise Violation("lease survivor", f"{end} deletes nothing, and on it hung {keys}")


def _attached(history: History) -> dict[tuple[int, int], list[bytes]]:
    """(lease, revision) -> its keys in order, just before each revision that ended a lease."""
    wanted = {end.revision: end.lease for end in history.lease_ends if end.revision}
    leases: dict[bytes, int] = {}
    found: dict[tuple[int, int], list[bytes]] = {}
    for revision in history.log:
        lease = wanted.get(revision.number)
        if lease is not None:
            found[lease, revision.number - 1] = sorted(k for k, each in leases.items() if each == lease)
        for kv in revision.events:
            leases[kv.key] = kv.lease
    return found


def _leases_at(history: History, count: int) -> dict[bytes, int]:
    """Which lease each key hangs on after the first `count` revisions."""
    leases: dict[bytes, int] = {}
    for revision in history.log[:count]:
        for kv in revision.events:
            leases[kv.key] = kv.lease
    return leases
