"""Leases, their renewals and what is said of them, falsified."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from kvstore.pb.etcdserverpb_pb2 import (
    LeaseGrantRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
)
from tests.checkers.corruptions.places import (
    asks,
    corruption,
    operations,
    pick,
    response_edited,
    with_operation,
)
from tests.checkers.history import History, Operation, Renewal


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
    at = pick(random, operations(history, asks(LeaseGrantRequest)))
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
    at = pick(random, operations(history, asks(LeaseRevokeRequest)))
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
    at = pick(random, operations(history, lambda o: asks(LeaseTimeToLiveRequest)(o) and o.response.TTL >= 0))

    def edit(response: Any) -> None:
        if response.keys and random.random() < 0.5:
            del response.keys[-1]
        else:
            response.keys.append(b"another")

    return None if at is None else response_edited(history, at, edit)


@corruption
def living_lease_said_to_be_gone(random: Random, history: History) -> History | None:
    ends = {end.lease: end.order for end in history.lease_ends}

    def lives(operation: Operation) -> bool:
        if not isinstance(operation.request, LeaseTimeToLiveRequest) or operation.response.TTL < 0:
            return False
        return ends.get(operation.request.ID, operation.returned + 1) > operation.returned

    at = pick(random, operations(history, lives))
    if at is None:
        return None
    operation = history.operations[at]
    gone = type(operation.response)(ID=operation.request.ID, TTL=-1)
    return with_operation(history, at, replace(operation, response=gone))
