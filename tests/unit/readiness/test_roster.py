"""Instances and orders to drain, by key."""

from kvstore.readiness.instance import Instance, State, drain_key, drain_order, drained_key, encode
from kvstore.readiness.roster import Item, Roster

WEB = Instance(service="web", id="a", address="127.0.0.1:80")
ANNOUNCED = Item(WEB.key, encode(WEB))
ORDER = Item(drain_key(WEB.key), drain_order(0))


def states(roster: Roster) -> list[tuple[str, str]]:
    return [(instance.id, instance.state.value) for _, instance in roster]


def test_an_order_makes_a_ready_one_drain_until_it_is_taken_back() -> None:
    roster = Roster()
    roster.take([ANNOUNCED, ORDER])
    assert states(roster) == [("a", "draining")]
    roster.take([Item(ORDER.key, None)])
    assert states(roster) == [("a", "ready")]


def test_an_announcement_that_is_repeated_does_not_undo_it() -> None:
    roster = Roster()
    roster.take([ANNOUNCED, ORDER, ANNOUNCED])
    assert states(roster) == [("a", "draining")]


def test_it_outlives_the_instance() -> None:
    roster = Roster()
    roster.take([ANNOUNCED, ORDER, Item(WEB.key, None)])
    assert (states(roster), roster.absent) == ([], [WEB.key])
    roster.take([ANNOUNCED])
    assert (states(roster), roster.absent) == ([("a", "draining")], [])


def test_it_changes_no_other_state() -> None:
    failed = Instance(service="web", id="a", address="127.0.0.1:80", state=State.FAILED)
    roster = Roster()
    roster.take([Item(failed.key, encode(failed)), ORDER])
    assert states(roster) == [("a", "failed")]


def test_a_whole_list_replaces_orders_too() -> None:
    roster = Roster()
    roster.take([ANNOUNCED, ORDER, Item(b"/kvstore/services/web/b", b"{")])
    assert list(roster.refused) == [b"/kvstore/services/web/b"]
    roster.replace([ANNOUNCED])
    assert (states(roster), roster.drained, roster.refused) == ([("a", "ready")], set(), {})


def test_an_instance_may_be_called_drain() -> None:
    assert drained_key(b"/kvstore/services/web/drain") is None
    assert drained_key(b"/kvstore/services/web/drain/drain") == b"/kvstore/services/web/drain"
