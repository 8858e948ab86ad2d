"""One stream of DeltaAggregatedResources: the incremental variant. Pure; `now` is passed in, in seconds.

Like sotw.py, and in these points not:
- Requests say which names come to the subscription and which leave it, and the first one what the client has from an
  earlier stream; replies say what has changed and what is not there (any more).
- The first request of clusters or of listeners asks for all of them when it names none; a later one when it
  subscribes to "*", until it unsubscribes from that.
- A name that is subscribed to is answered, once more even when it was subscribed to before: with the resource, or
  with that there is none. What the client brought along in the same version needs no answer.
- A reply is refused as a whole; what it was about is not sent again before it has another version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kvstore.routing.xds.kinds import (
    EVERYTHING,
    NAMES_MAX,
    Ask,
    Kind,
    Refusal,
    Reply,
    Resource,
    Snapshot,
    TooManyNames,
    digest,
)
from kvstore.routing.xds.pace import Pace

ABSENT = ""  # the version of what is not there


@dataclass(slots=True)
class _Kind:
    """has: what the client has, as far as we know: name to version, ABSENT where it was told that there is none.
    owed: names whose answer does not wait for a pause. owes: an answer is due even if it has nothing to say."""

    names: set[str] = field(default_factory=set)
    is_wildcard: bool = False
    owes: bool = True
    nonce: str = ""
    has: dict[str, str] = field(default_factory=dict)
    owed: set[str] = field(default_factory=set)
    told: tuple[str, ...] = ()
    pace: Pace = field(default_factory=Pace)

    def begin(self, ask: Ask) -> None:
        """The first request of its kind."""
        self.is_wildcard = ask.kind.is_whole and not ask.names
        self.owes = self.is_wildcard
        self.subscribe(ask)
        self.has = {name: version for name, version in ask.known.items() if self.wants(name)}

    def subscribe(self, ask: Ask) -> None:
        asked = set(ask.names) - {EVERYTHING}
        if EVERYTHING in ask.names and ask.kind.is_whole:
            self.is_wildcard = self.owes = True
        self.names |= asked
        if len(self.names) > NAMES_MAX:
            raise TooManyNames
        left = set(ask.gone)
        if EVERYTHING in left:
            self.is_wildcard = False
        self.names -= left
        self.owed = {name for name in self.owed | asked if self.wants(name)}
        if self.is_wildcard:
            self.owed |= left - {EVERYTHING}
        for name in asked | left:
            self.has.pop(name, None)
        if left:
            self.has = {name: version for name, version in self.has.items() if self.wants(name)}

    def wants(self, name: str) -> bool:
        return self.is_wildcard or name in self.names

    def wanted(self, resources: Mapping[str, Resource]) -> dict[str, str]:
        """Name to version of what the client should have."""
        found = {name: resources[name].version if name in resources else ABSENT for name in self.names}
        if self.is_wildcard:
            found |= {name: one.version for name, one in resources.items() if not one.is_named_only}
        return found


class Stream:
    """deadline: when take() will have something because a pause ends; None when only news will do."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self._kinds: dict[Kind, _Kind] = {}
        self._count = 0

    def receive(self, ask: Ask, now: float) -> Refusal | None:
        """A refusal, when that is what it says. Raises TooManyNames."""
        known = self._kinds.get(ask.kind)
        if known is None:
            known = self._kinds[ask.kind] = _Kind()
            known.begin(ask)
            return None
        refusal = None
        if ask.error:
            told = known.told if ask.nonce == known.nonce else ()
            refusal = Refusal(ask.kind, told, ask.error, known.pace.refused(now))
        elif ask.nonce and ask.nonce == known.nonce:
            known.pace.accepted()
        known.subscribe(ask)
        return refusal

    def take(self, snapshot: Snapshot | None, now: float) -> list[Reply]:
        """None: nothing is known yet, and everybody waits."""
        self.deadline = None
        replies: list[Reply] = []
        for kind in Kind if snapshot is not None else ():
            if (known := self._kinds.get(kind)) is None:
                continue
            assert snapshot is not None
            wanted = known.wanted(snapshot[kind])
            for name in known.has.keys() | known.owed:
                wanted.setdefault(name, ABSENT)
            news = {name for name, version in wanted.items() if known.has.get(name) != version}
            may_push = known.pace.allows(now)
            if news - known.owed and not may_push:
                self.deadline = min(self.deadline or known.pace.until, known.pace.until)
                news &= known.owed
            if not news and not known.owes:
                continue
            if kind is Kind.CLUSTER:
                self._warm(news)
            replies.append(self._reply(kind, known, snapshot[kind], wanted, news))
        return replies

    def _reply(
        self,
        kind: Kind,
        known: _Kind,
        resources: Mapping[str, Resource],
        wanted: Mapping[str, str],
        news: set[str],
    ) -> Reply:
        known.told = tuple(sorted(news))
        for name in news:
            known.has[name] = wanted[name]
        known.has = {
            name: version for name, version in known.has.items() if version != ABSENT or name in known.names
        }
        known.owed, known.owes = set(), False
        self._count += 1
        known.nonce = str(self._count)
        return Reply(
            kind,
            version=digest(repr([(name, wanted[name]) for name in known.told]).encode()),
            nonce=known.nonce,
            resources=tuple(resources[name] for name in known.told if wanted[name] != ABSENT),
            removed=tuple(name for name in known.told if wanted[name] == ABSENT),
        )

    def _warm(self, clusters: set[str]) -> None:
        """The endpoints of clusters that are sent again go out after them, changed or not."""
        if (endpoints := self._kinds.get(Kind.ENDPOINTS)) is not None:
            for name in clusters & endpoints.names:
                endpoints.has.pop(name, None)
                endpoints.owed.add(name)
