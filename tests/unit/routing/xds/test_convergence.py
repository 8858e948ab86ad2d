"""Whatever happens in whatever order: a client that follows the protocol ends with what it asked for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

import pytest

from kvstore.routing.xds import delta, sotw
from kvstore.routing.xds.kinds import Ask, Kind, Reply, Resource, Snapshot

NAMES = ("a", "b", "c")
SEEDS, MOVES = 300, 40


@dataclass
class Client:
    """What it says waits in requests, what it is told in replies; both in order, as on a stream."""

    kind: Kind
    is_delta: bool
    names: set[str] = field(default_factory=set)
    nonce: str = ""
    has: dict[str, str] = field(default_factory=dict)
    requests: deque[Ask] = field(default_factory=deque)
    replies: deque[Reply] = field(default_factory=deque)

    def want(self, names: set[str]) -> None:
        added, gone = names - self.names, self.names - names
        self.names = names
        self.has = {name: version for name, version in self.has.items() if name in names}
        if self.is_delta:
            self.requests.append(Ask(self.kind, names=tuple(sorted(added)), gone=tuple(sorted(gone))))
        else:
            self.requests.append(Ask(self.kind, names=tuple(sorted(names)), nonce=self.nonce))

    def hear(self, reply: Reply, *, refuses: bool) -> None:
        told = {one.name: one.version for one in reply.resources if one.name in self.names}
        if not refuses:
            if self.kind.is_whole and not self.is_delta:
                self.has = told
            self.has |= told
            for name in reply.removed:
                self.has.pop(name, None)
        self.nonce = reply.nonce
        names = () if self.is_delta else tuple(sorted(self.names))
        self.requests.append(Ask(self.kind, names, reply.nonce, error="no good" if refuses else ""))


def snapshot_of(kind: Kind, have: dict[str, str]) -> Snapshot:
    mine = {name: Resource(name, version, b"") for name, version in have.items()}
    return {each: mine if each is kind else {} for each in Kind}


@pytest.mark.parametrize("kind", [Kind.CLUSTER, Kind.ENDPOINTS])
@pytest.mark.parametrize("is_delta", [False, True], ids=["whole", "delta"])
def test_the_client_has_what_there_is(kind: Kind, is_delta: bool) -> None:
    for seed in range(SEEDS):
        client, have = run(kind, is_delta, Random(seed))
        expected = {name: version for name, version in have.items() if name in client.names}
        if not kind.is_whole and not is_delta:  # of endpoints that are gone nothing is said
            expected |= {name: version for name, version in client.has.items() if name not in have}
        assert client.has == expected, f"seed {seed}"


def run(kind: Kind, is_delta: bool, random: Random) -> tuple[Client, dict[str, str]]:
    stream: sotw.Stream | delta.Stream = delta.Stream() if is_delta else sotw.Stream()
    client = Client(kind, is_delta)
    client.want({"a"})
    have: dict[str, str] = {}
    refuses = random.random() < 0.3
    now = 0.0
    for _ in range(MOVES):
        client.replies.extend(stream.take(snapshot_of(kind, have), now))
        move = random.choice(("have", "names", "ask", "ask", "reply", "reply"))
        if move == "have":
            have = {name: random.choice("12") for name in NAMES if random.random() < 0.6}
        elif move == "names":
            client.want({name for name in NAMES if random.random() < 0.5} or {"a"})
        elif move == "ask" and client.requests:
            stream.receive(client.requests.popleft(), now)
        elif move == "reply" and client.replies:
            client.hear(client.replies.popleft(), refuses=refuses and random.random() < 0.3)
    now += 1000.0
    if refuses:
        have = dict.fromkeys(NAMES, "new")  # what was refused is not sent again before it is another
    for _ in range(4 * MOVES):
        client.replies.extend(stream.take(snapshot_of(kind, have), now))
        if client.replies:
            client.hear(client.replies.popleft(), refuses=False)
        elif client.requests:
            stream.receive(client.requests.popleft(), now)
    assert not client.requests, "they talk for ever"
    return client, have
