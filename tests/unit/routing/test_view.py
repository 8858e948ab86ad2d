"""The view, step by step, with literal times and revisions."""

from kvstore.readiness.instance import Instance, State, drain_key, drain_order, encode
from kvstore.readiness.roster import Item
from kvstore.routing.view import View


def put(name: str, state: State = State.READY) -> Item:
    instance = Instance(service="web", id=name, address="127.0.0.1:80", state=state)
    return Item(instance.key, encode(instance))


def gone(name: str) -> Item:
    return Item(Instance(service="web", id=name, address="127.0.0.1:80").key, None)


def names(view: View) -> str:
    return " ".join(instance.id for instance in view.ready())


def loaded(*instances: str, keep_s: float = 10.0) -> View:
    view = View(keep_s=keep_s)
    view.load([put(name) for name in instances], 5, 0.0)
    return view


def test_list_then_events_gives_the_ready_ones_in_order_of_id() -> None:
    view = loaded("b", "a")
    assert (names(view), view.revision) == ("a b", 5)
    view.apply([put("c"), gone("a"), put("d", State.DRAINING), put("e", State.STARTING)], 7, 1.0)
    assert (names(view), view.revision) == ("b c", 7)
    assert [(one.id, one.is_ready) for one in view.serving()] == [("b", True), ("c", True), ("d", False)]


def test_a_batch_seen_before_changes_nothing() -> None:
    view = loaded("a")
    view.apply([gone("a")], 5, 1.0)
    assert names(view) == "a"


def test_the_only_instance_going_is_taken_out_at_once() -> None:
    view = loaded("a")
    view.apply([gone("a")], 6, 1.0)
    assert names(view) == ""
    assert view.next_deadline is None


def test_instances_going_one_after_another_are_taken_out_at_once() -> None:
    view = loaded("a", "b")
    view.apply([gone("a")], 6, 1.0)
    view.apply([gone("b")], 7, 1.0)
    assert names(view) == ""


def test_all_going_in_one_step_are_kept_for_a_while() -> None:
    view = loaded("a", "b", keep_s=10.0)
    view.apply([gone("a"), gone("b")], 6, 1.0)
    assert (names(view), view.kept_count, view.next_deadline) == ("a b", 2, 11.0)
    view.expire(10.9)
    assert names(view) == "a b"
    view.expire(11.0)
    assert (names(view), view.next_deadline) == ("", None)


def test_one_that_comes_back_takes_its_place_and_the_others_stay_kept() -> None:
    view = loaded("a", "b", "c")
    view.apply([gone("a"), gone("b"), gone("c")], 6, 1.0)
    view.apply([put("b")], 7, 2.0)
    assert (names(view), view.kept_count) == ("a b c", 2)
    view.apply([gone("b")], 8, 3.0)
    assert names(view) == "a c"
    view.expire(11.0)
    assert names(view) == ""


def test_one_left_over_means_the_rest_is_believed() -> None:
    view = loaded("a", "b", "c")
    view.apply([gone("a"), gone("b")], 6, 1.0)
    assert names(view) == "c"


def test_nothing_is_kept_when_the_threshold_is_off() -> None:
    view = loaded("a", "b", keep_s=0.0)
    view.apply([gone("a"), gone("b")], 6, 1.0)
    assert names(view) == ""


def test_draining_is_a_statement_and_not_a_disappearance() -> None:
    view = loaded("a", "b")
    view.apply([put("a", State.DRAINING), put("b", State.FAILED)], 6, 1.0)
    assert names(view) == ""


def test_an_empty_list_after_a_lost_watch_is_a_step_too() -> None:
    view = loaded("a", "b")
    view.load([], 90, 1.0)
    assert (names(view), view.revision) == ("a b", 90)
    view.load([put("c")], 95, 2.0)
    assert names(view) == "a b c"


def test_a_list_replaces_what_was_known_and_may_be_of_an_older_revision() -> None:
    view = loaded("a", "b", "c")
    view.load([put("b"), put("d")], 2, 1.0)
    assert (names(view), view.revision) == ("b d", 2)


def test_what_cannot_be_read_is_not_ready_and_says_why() -> None:
    view = loaded("a", "b")
    broken = Item(gone("a").key, b"{}")
    view.apply([broken], 6, 1.0)
    assert names(view) == "b"
    assert view.refused == {broken.key: "version: missing"}
    view.apply([put("a")], 7, 2.0)
    assert (names(view), view.refused) == ("a b", {})


def test_an_instance_that_is_to_drain_is_there_and_gets_nothing_new() -> None:
    view = loaded("a", "b")
    order = Item(drain_key(put("a").key), drain_order(0))
    view.apply([order], 6, 1.0)
    assert (names(view), [one.id for one in view.serving()]) == ("b", ["a", "b"])
    view.apply([Item(order.key, None)], 7, 2.0)
    assert names(view) == "a b"


def test_draining_everybody_keeps_nobody() -> None:
    view = loaded("a", "b")
    view.apply([Item(drain_key(put(name).key), drain_order(0)) for name in "ab"], 6, 1.0)
    assert (names(view), view.next_deadline) == ("", None)
