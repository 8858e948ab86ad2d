"""State of the world: what a client is told after each thing it says and each thing that changes."""

from __future__ import annotations

import pytest

from kvstore.routing.xds.kinds import NAMES_MAX, Ask, Kind, TooManyNames
from kvstore.routing.xds.sotw import Stream
from tests.unit.routing.xds.stage import lines_of, parse_snapshot, play

SCRIPTS = {
    "an Envoy starts: everything once, in the order it asks": """
        have c:web=1 e:web=1 l:web@x=1 (l:web=1) r:web=1
        > c
        < 1 c web=1
        > c #1
        > e web
        < 2 e web=1
        > e web #2
        > l
        < 3 l web@x=1
        > r web
        < 4 r web=1
        """,
    "a gRPC client starts: by name only, and gets what is there for who names it": """
        have c:web=1 c:api=1 e:web=1 l:web@x=1 (l:web=1) r:web=1
        > l web
        < 1 l web=1
        > r web
        < 2 r web=1
        > c web
        < 3 c web=1
        > e web
        < 4 e web=1
        """,
    "only what has changed is pushed": """
        have c:web=1 c:api=1 e:web=1 e:api=1
        > c
        < 1 c web=1 api=1
        > e web api
        < 2 e api=1 web=1
        have c:web=1 c:api=1 e:web=2 e:api=1
        < 3 e web=2
        have c:web=1 c:api=1 e:web=2 e:api=1
        """,
    "it need not have acknowledged the last one": """
        have e:web=1
        > e web
        < 1 e web=1
        have e:web=2
        < 2 e web=2
        > e web #1
        have e:web=3
        < 3 e web=3
        > e web #3
        """,
    "all requests of a start before anything is known: answered when it is, clusters before endpoints": """
        have nothing
        > l
        > e web
        > c
        have c:web=1 e:web=1 l:web@x=1
        < 1 c web=1
        < 2 e web=1
        < 3 l web@x=1
        """,
    "clusters and listeners are answered even when there is none, endpoints and routes are not": """
        have c:web=1
        > c nosuch
        < 1 c
        > l
        < 2 l
        > e nosuch
        > r nosuch
        """,
    "endpoints that come later are sent then": """
        have c:web=1
        > e web
        have c:web=1 e:web=1
        < 1 e web=1
        """,
    "clusters: one that goes is told by leaving it out": """
        have c:web=1 c:api=1
        > c
        < 1 c web=1 api=1
        have c:web=1
        < 2 c web=1
        """,
    "endpoints that go are not told: their cluster's going is": """
        have e:web=1
        > e web
        < 1 e web=1
        have c:api=1
        """,
    "a name more: of endpoints what is new, of clusters all": """
        have c:web=1 c:api=1 e:web=1 e:api=1
        > c web
        < 1 c web=1
        > e web
        < 2 e web=1
        > c web api #1
        < 3 c api=1 web=1
        > e web api #2
        < 4 e api=1
        """,
    "a name less, and back": """
        have e:web=1 e:api=1
        > e web api
        < 1 e api=1 web=1
        > e web #1
        have e:web=1 e:api=2
        > e web api #1
        < 2 e api=2
        """,
    "no names after there were some: nothing, and not everything": """
        have c:web=1
        > c web
        < 1 c web=1
        > c #1
        have c:web=2
        """,
    "everything by its sign, and a name that only who names it gets": """
        have l:web@x=1 (l:web=1) (l:api=1)
        > l * web
        < 1 l web=1 web@x=1
        > l * #1
        < 2 l web@x=1
        """,
    "a name is left and taken up again while a reply is on its way": """
        have e:web=1 e:api=1
        > e web api
        < 1 e api=1 web=1
        have e:web=1 e:api=2
        < 2 e api=2
        > e api #1
        > e web api #1
        < 3 e web=1
        > e web api #2
        > e web api #3
        """,
    "a first request with the nonce of another stream is a first request": """
        have e:web=1
        > e web #77
        < 1 e web=1
        """,
    "a cluster that changes takes its endpoints with it": """
        have c:web=1 c:api=1 e:web=1 e:api=1
        > c
        < 1 c web=1 api=1
        > e web api
        < 2 e api=1 web=1
        have c:web=2 c:api=1 e:web=1 e:api=1
        < 3 c web=2 api=1
        < 4 e web=1
        """,
    "refused: not again the same, and the next version after a pause": """
        have l:web@x=1
        > l
        < 1 l web@x=1
        > l #1 !cannot bind
        refused l web@x: cannot bind
        at 0.5
        have l:web@x=2
        at 0.9
        at 1.0
        < 2 l web@x=2
        > l #2 !cannot bind either
        refused l web@x: cannot bind either
        have l:web@x=3
        at 2.9
        at 3.0
        < 3 l web@x=3
        > l #3
        have l:web@x=4
        < 4 l web@x=4
        """,
    "refused in one kind: the others go on": """
        have l:web@x=1 e:web=1
        > l
        < 1 l web@x=1
        > e web
        < 2 e web=1
        > l #1 !cannot bind
        refused l web@x: cannot bind
        have l:web@x=2 e:web=2
        < 3 e web=2
        """,
    "refused, and something else asked for: answered at once": """
        have e:web=1 e:api=1
        > e web
        < 1 e web=1
        > e web api #1 !no good
        refused e web: no good
        < 2 e api=1
        """,
    "refused after the next was sent: it counts": """
        have e:web=1 e:api=1
        > e web
        < 1 e web=1
        have e:web=2 e:api=1
        < 2 e web=2
        > e web #1 !no good
        refused e ?: no good
        have e:web=3 e:api=1
        at 1.0
        < 3 e web=3
        """,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_script(script: str) -> None:
    assert play(Stream(), script) == lines_of(script)


def test_the_deadline_is_when_a_pause_ends_that_holds_something_back() -> None:
    stream = Stream()
    play(stream, "have e:web=1\n> e web\n> e web #1 !no")
    assert stream.deadline is None
    assert stream.take(parse_snapshot("e:web=2"), 0.5) == []
    assert stream.deadline == 1.0
    assert len(stream.take(parse_snapshot("e:web=2"), 1.0)) == 1
    assert stream.deadline is None


def test_equal_content_has_an_equal_version_whoever_says_it() -> None:
    snapshot = parse_snapshot("c:web=1 c:api=1")
    versions = set()
    for _ in range(2):
        stream = Stream()
        stream.receive(Ask(Kind.CLUSTER), 0.0)
        versions |= {reply.version for reply in stream.take(snapshot, 0.0)}
    assert len(versions) == 1


def test_too_many_names() -> None:
    with pytest.raises(TooManyNames):
        Stream().receive(Ask(Kind.ROUTE, names=tuple(map(str, range(NAMES_MAX + 1)))), 0.0)
