"""One stream of StreamAggregatedResources: state of the world. Pure; `now` is passed in, in seconds.

    receive(ask)      what a request changes: subscriptions, and whether the last answer was taken or refused
    take(snapshot)    the replies that are owed at this moment; an empty list most of the time

Nothing is queued: what is owed is what the snapshot has and the client was not told, so a client that reads slowly is
told of the latest state only, and costs no memory.

The rules, of xDS's own description of the protocol ("xDS REST and gRPC protocol"):
- The first request of a kind is always answered. A later one is an ACK or NACK of the reply that its nonce names, and
  subscribes to the names it lists; it is answered when these have changed.
- A request with the nonce of an earlier reply says nothing of the last one, which is on its way. Its names count all
  the same, and this is not as in that description: a client that leaves a name and takes it up again meanwhile has
  forgotten what it was told, and nothing that it says later would show it.
- Clusters and listeners: a request without names, as long as there was none with, asks for all of them.
- A cluster that is sent again with a new content waits in the client for its endpoints, even for those it has: they
  are sent again after it.
- A NACK leaves the client with what it had. It is not sent the same again, and a new version only after a pause.
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


@dataclass(slots=True)
class _Kind:
    """What is known of the client in one kind. sent: name to version, as of the last reply. owes: a request waits
    for its answer, whatever has changed. told: the names that the last reply was about."""

    names: frozenset[str] = frozenset()
    is_wildcard: bool = False
    has_named: bool = False
    owes: bool = True
    nonce: str = ""
    sent: dict[str, str] = field(default_factory=dict)
    told: tuple[str, ...] = ()
    pace: Pace = field(default_factory=Pace)

    def subscribe(self, ask: Ask) -> None:
        before = (self.is_wildcard, self.names)
        self.names = frozenset(ask.names) - {EVERYTHING}
        self.has_named = self.has_named or bool(ask.names)
        self.is_wildcard = ask.kind.is_whole and (EVERYTHING in ask.names or not self.has_named)
        if (self.is_wildcard, self.names) != before:
            self.owes = self.is_wildcard or bool(self.names)
            self.sent = {name: version for name, version in self.sent.items() if self.wants(name)}

    def wants(self, name: str) -> bool:
        return self.is_wildcard or name in self.names

    def wanted(self, resources: Mapping[str, Resource]) -> dict[str, Resource]:
        found = {name: resources[name] for name in sorted(self.names) if name in resources}
        if self.is_wildcard:
            found |= {name: one for name, one in resources.items() if not one.is_named_only}
        return found


class Stream:
    """deadline: when take() will have something because a pause ends; None when only news will do."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self._kinds: dict[Kind, _Kind] = {}
        self._count = 0

    def receive(self, ask: Ask, now: float) -> Refusal | None:
        """A refusal, when that is what it says. Raises TooManyNames."""
        if len(ask.names) > NAMES_MAX:
            raise TooManyNames
        known = self._kinds.setdefault(ask.kind, _Kind())
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
            changed = [one for name, one in wanted.items() if known.sent.get(name) != one.version]
            is_news = bool(changed) or (kind.is_whole and known.sent.keys() != wanted.keys())
            if not is_news and not (known.owes and kind.is_whole):
                known.owes = False
                continue
            if not known.owes and not known.pace.allows(now):
                self.deadline = min(self.deadline or known.pace.until, known.pace.until)
                continue
            if kind is Kind.CLUSTER:
                self._warm(changed)
            replies.append(self._reply(kind, known, wanted, changed))
        return replies

    def _reply(self, kind: Kind, known: _Kind, wanted: dict[str, Resource], changed: list[Resource]) -> Reply:
        gone = known.sent.keys() - wanted.keys() if kind.is_whole else set()
        known.sent = {name: one.version for name, one in wanted.items()}
        known.told = tuple(sorted({one.name for one in changed} | gone))
        known.owes = False
        self._count += 1
        known.nonce = str(self._count)
        resources = tuple(wanted.values() if kind.is_whole else changed)
        version = digest(repr([(one.name, one.version) for one in resources]).encode())
        return Reply(kind, version, known.nonce, resources)

    def _warm(self, clusters: list[Resource]) -> None:
        if (endpoints := self._kinds.get(Kind.ENDPOINTS)) is not None:
            for cluster in clusters:
                endpoints.sent.pop(cluster.name, None)
