"""Scripts for one stream: what is there and what the client says, and after each the replies it gets.

    have c:web=1 e:web=1    the snapshot from now on: kind:name=version; (l:web=1) is there for who names it only
    have nothing            not even an empty snapshot
    at 3.5                  the time, in seconds
    > c web *               a request: kind, names; #1: the reply it answers; !text: refuses it;
                            -name: unsubscribes; ~name=1: brought along from an earlier stream
    < 1 c web=1 -api        a reply: its nonce, kind, resources, removed names
    refused c web: text     what a refusal is reported as

play() returns the script as it went, to be compared with the script as it was written.
"""

from __future__ import annotations

from kvstore.routing.xds import delta, sotw
from kvstore.routing.xds.kinds import Ask, Kind, Reply, Resource, Snapshot

KINDS = {"c": Kind.CLUSTER, "e": Kind.ENDPOINTS, "l": Kind.LISTENER, "r": Kind.ROUTE}
LETTERS = {kind: letter for letter, kind in KINDS.items()}


def lines_of(script: str) -> list[str]:
    return [line.strip() for line in script.strip().splitlines()]


def play(stream: sotw.Stream | delta.Stream, script: str) -> list[str]:
    went: list[str] = []
    now = 0.0
    snapshot: Snapshot | None = None
    for line in lines_of(script):
        word, _, rest = line.partition(" ")
        if word == "have":
            snapshot = None if rest == "nothing" else parse_snapshot(rest)
        elif word == "at":
            now = float(rest)
        elif word != ">":
            continue
        went.append(line)
        if word == ">":
            refusal = stream.receive(parse_ask(rest), now)
            if refusal is not None:
                went.append(
                    f"refused {LETTERS[refusal.kind]} {','.join(refusal.names) or '?'}: {refusal.error}"
                )
        went += [told(reply) for reply in stream.take(snapshot, now)]
    return went


def parse_snapshot(text: str) -> Snapshot:
    found: dict[Kind, dict[str, Resource]] = {kind: {} for kind in Kind}
    for word in text.split():
        letter, _, rest = word.strip("()").partition(":")
        name, _, version = rest.partition("=")
        found[KINDS[letter]][name] = Resource(name, version, b"", word.startswith("("))
    return found


def parse_ask(text: str) -> Ask:
    text, _, error = text.partition("!")
    letter, *words = text.split()
    return Ask(
        KINDS[letter],
        names=tuple(word for word in words if word[0] not in "#-~"),
        nonce="".join(word[1:] for word in words if word[0] == "#"),
        error=error,
        gone=tuple(word[1:] for word in words if word[0] == "-"),
        known=dict(word[1:].split("=") for word in words if word[0] == "~"),
    )


def told(reply: Reply) -> str:
    words = [f"{one.name}={one.version}" for one in reply.resources] + [f"-{name}" for name in reply.removed]
    return " ".join(["<", reply.nonce, LETTERS[reply.kind], *words])
