"""All checkers of one history."""

from __future__ import annotations

from tests.checkers import leases, linearizability, watches
from tests.checkers.history import History
from tests.checkers.timeline import Timeline


def check(history: History) -> dict[str, float]:
    """What was checked, counted. Raises Violation."""
    timeline = Timeline(history.log)
    return {
        "operations": linearizability.check(history, timeline),
        "watch_events": watches.check(history, timeline),
        "leases": leases.check(history, timeline),
    }
