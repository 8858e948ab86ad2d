"""What members wrote with KVSTORE_TRACE, put together to the way of each put. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

STAGES = (
    "in",  # the request was read from the client's socket
    "proposed",
    "appended",  # in the leader's log, in memory
    "sent",  # to the followers
    "received",  # by the follower that acknowledged first
    "synced there",
    "replied",  # by that follower
    "acked",  # read by the leader
    "committed",
    "applied",
    "out",  # the answer was given to the client's socket
)
HOPS = tuple(pairwise(STAGES))
BESIDE = (("appended", "synced"), ("applied", "watched"))
"""What goes on at the same time: the leader's own sync, and the event to a watcher."""
WHOLE = ("in", "out")

Way = dict[str, int]
"""Stamps of one put in ns, by stage; one that was not seen is left out."""


@dataclass(slots=True)
class Member:
    """Stamps by index; watches by revision."""

    id: str = ""
    at: dict[str, dict[int, int]] = field(default_factory=dict)
    replies: list[tuple[int, int]] = field(default_factory=list)
    acks: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    puts: list[tuple[int, ...]] = field(default_factory=list)
    watches: dict[int, int] = field(default_factory=dict)


def read(lines: Iterable[str]) -> Member:
    """One member's file. Raises ValueError for a line that is none of its; the last may be cut off."""
    member = Member()
    for line in lines:
        if not line.endswith("\n"):
            break
        kind, *words = line.split()
        if kind == "member":
            member.id = words[0]
        elif kind == "put":
            member.puts.append(tuple(map(int, words)))
        elif kind == "watch":
            member.watches.setdefault(int(words[0]), int(words[1]))
        elif kind == "reply":
            member.replies.append((int(words[0]), int(words[1])))
        elif kind == "ack":
            member.acks.setdefault(words[0], []).append((int(words[1]), int(words[2])))
        elif kind in ("append", "send", "receive", "sync", "commit"):
            first, last, at = map(int, words)
            stamps = member.at.setdefault(kind, {})
            for index in range(first, last + 1):
                stamps.setdefault(index, at)
        else:
            raise ValueError(f"not a line of a trace: {line!r}")
    return member


def ways(members: Sequence[Member], since: int = 0, until: int = 1 << 62) -> list[Way]:
    """Of each put that was read from its socket in that time and whose whole way was seen."""
    by_id = {member.id: member for member in members}
    watched: dict[int, int] = {}
    for member in members:
        for revision, at in member.watches.items():
            watched[revision] = min(at, watched.get(revision, at))
    entries: dict[int, Way] = {}
    found = []
    for origin in members:
        for index, revision, came, proposed, applied, out in origin.puts:
            if not since <= came <= until:
                continue
            entry = entries.get(index)
            if entry is None:
                entry = entries[index] = _entry(members, by_id, index)
            way = {"in": came, "proposed": proposed, **entry, "applied": applied, "out": out}
            if revision in watched:
                way["watched"] = watched[revision]
            if all(stage in way for stage in STAGES):
                found.append(way)
    return found


def _entry(members: Sequence[Member], by_id: dict[str, Member], index: int) -> Way:
    """The stamps that all puts of one entry share."""
    way: Way = {}
    leader = next((member for member in members if index in member.at.get("append", {})), None)
    if leader is None:
        return way
    for stage, kind in (
        ("appended", "append"),
        ("sent", "send"),
        ("committed", "commit"),
        ("synced", "sync"),
    ):
        if (at := leader.at.get(kind, {}).get(index)) is not None:
            way[stage] = at
    acks = [(at, name) for name, given in leader.acks.items() if (at := _first(given, index)) is not None]
    if not acks:
        return way
    way["acked"], name = min(acks)
    follower = by_id.get(name)
    if follower is None:
        return way
    for stage, kind in (("received", "receive"), ("synced there", "sync")):
        if (at := follower.at.get(kind, {}).get(index)) is not None:
            way[stage] = at
    if (at := _first(follower.replies, index)) is not None:
        way["replied"] = at
    return way


def _first(given: Sequence[tuple[int, int]], index: int) -> int | None:
    """When everything up to index was first said to be there; given by ascending index, as it is said."""
    at = bisect_left(given, (index, 0))
    return given[at][1] if at < len(given) else None


def took(found: Sequence[Way], first: str, last: str) -> list[float]:
    """µs from one stage to the other, of each way that has both."""
    return [(way[last] - way[first]) / 1e3 for way in found if first in way and last in way]
