"""Incremental: what a client is told after each thing it says and each thing that changes."""

from __future__ import annotations

import pytest

from kvstore.routing.xds.delta import Stream
from kvstore.routing.xds.kinds import NAMES_MAX, Ask, Kind, TooManyNames
from tests.unit.routing.xds.stage import lines_of, parse_snapshot, play

SCRIPTS = {
    "an Envoy starts: everything once": """
        have c:web=1 e:web=1 l:web@x=1 (l:web=1) r:web=1
        > c
        < 1 c web=1
        > c #1
        > e web
        < 2 e web=1
        > e #2
        > l
        < 3 l web@x=1
        > r web
        < 4 r web=1
        """,
    "only what has changed is pushed, of every kind": """
        have c:web=1 c:api=1
        > c
        < 1 c api=1 web=1
        have c:web=2 c:api=1
        < 2 c web=2
        have c:web=2
        < 3 c -api
        have c:web=2 c:new=1
        < 4 c new=1
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
    "an empty everything is an answer": """
        have e:web=1
        > c
        < 1 c
        > l
        < 2 l
        """,
    "back after a restart of ours: what has not changed is not sent": """
        have c:web=1 c:api=2 e:web=1
        > c ~web=1 ~api=1 ~old=1
        < 1 c api=2 -old
        > e web ~web=1
        have c:web=1 c:api=2 e:web=2
        < 2 e web=2
        """,
    "back, and nothing has changed": """
        have c:web=1 e:web=1
        > c ~web=1
        < 1 c
        > e web ~web=1
        """,
    "by name: there or not, and then there": """
        have c:web=1
        > c web nosuch
        < 1 c web=1 -nosuch
        > c #1
        have c:web=1 c:nosuch=1
        < 2 c nosuch=1
        have c:web=1
        < 3 c -nosuch
        """,
    "subscribed to again: sent again": """
        have e:web=1
        > e web
        < 1 e web=1
        > e web #1
        < 2 e web=1
        """,
    "unsubscribed: nothing more, and subscribed again: again": """
        have e:web=1 e:api=1
        > e web api
        < 1 e api=1 web=1
        > e -api #1
        have e:web=1 e:api=2
        > e api
        < 2 e api=2
        """,
    "a name beside everything, and without it again: whether it is in everything": """
        have l:web@x=1 (l:web=1)
        > l * web web@x
        < 1 l web=1 web@x=1
        > l -web -web@x
        < 2 l web@x=1 -web
        """,
    "everything no more": """
        have c:web=1 c:api=1
        > c
        < 1 c api=1 web=1
        > c web -*
        < 2 c web=1
        have c:web=1 c:api=2
        """,
    "everything only later": """
        have c:web=1 c:api=1
        > c web
        < 1 c web=1
        > c *
        < 2 c api=1
        """,
    "a cluster that changes takes its endpoints with it": """
        have c:web=1 c:api=1 e:web=1 e:api=1
        > c
        < 1 c api=1 web=1
        > e web api
        < 2 e api=1 web=1
        have c:web=2 c:api=1 e:web=1 e:api=1
        < 3 c web=2
        < 4 e web=1
        """,
    "refused: not again the same, and the next version after a pause": """
        have l:web@x=1 l:api@x=1
        > l
        < 1 l api@x=1 web@x=1
        > l #1 !cannot bind
        refused l api@x,web@x: cannot bind
        have l:web@x=2 l:api@x=1
        at 0.9
        at 1.0
        < 2 l web@x=2
        > l #2
        have l:web@x=3 l:api@x=1
        < 3 l web@x=3
        > l #3 !and now
        refused l web@x: and now
        have l:web@x=4 l:api@x=1
        at 2.0
        < 4 l web@x=4
        """,
    "refused, and something else asked for: that at once, the rest after the pause": """
        have e:web=1 e:api=1
        > e web
        < 1 e web=1
        > e #1 !no good
        refused e web: no good
        have e:web=2 e:api=1
        > e api
        < 2 e api=1
        at 1.0
        < 3 e web=2
        """,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_script(script: str) -> None:
    assert play(Stream(), script) == lines_of(script)


def test_the_deadline_is_when_a_pause_ends_that_holds_something_back() -> None:
    stream = Stream()
    play(stream, "have e:web=1\n> e web\n> e #1 !no")
    assert stream.deadline is None
    assert stream.take(parse_snapshot("e:web=2"), 0.5) == []
    assert stream.deadline == 1.0
    assert len(stream.take(parse_snapshot("e:web=2"), 1.0)) == 1
    assert stream.deadline is None


def test_too_many_names() -> None:
    stream = Stream()
    stream.receive(Ask(Kind.ROUTE, names=tuple(map(str, range(NAMES_MAX)))), 0.0)
    with pytest.raises(TooManyNames):
        stream.receive(Ask(Kind.ROUTE, names=("one more",)), 0.0)
