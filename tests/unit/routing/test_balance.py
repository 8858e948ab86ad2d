"""Whose turn it is, with literal times."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.readiness.instance import Instance, State
from kvstore.routing.balance import Balance, Order
from kvstore.routing.ejection import Policy


def instance(name: str, weight: int = 100, zone: str = "") -> Instance:
    return Instance(service="web", id=name, address=f"{name}:80", weight=weight, zone=zone)


def picks(balance: Balance, count: int, now: float = 0.0) -> str:
    chosen = [balance.pick(now) for _ in range(count)]
    return " ".join(one.instance.id if one else "-" for one in chosen)


def balance_of(*instances: Instance, order: Order = Order.ROUND_ROBIN, zone: str = "") -> Balance:
    balance = Balance(Policy(after=2, first_s=1.0), order=order, zone=zone)
    balance.reconcile(instances)
    return balance


def refused(balance: Balance, name: str, now: float) -> None:
    balance.failed(name, now, is_connected=False)


def test_equal_weights_take_turns() -> None:
    assert picks(balance_of(instance("a"), instance("b"), instance("c")), 7) == "a b c a b c a"


def test_one_that_comes_is_next_in_turn() -> None:
    balance = balance_of(instance("a"), instance("b"))
    assert picks(balance, 3) == "a b a"
    balance.reconcile([instance("a"), instance("b"), instance("c")])
    assert picks(balance, 4).startswith("c ")


def test_weights_are_honoured_and_spread() -> None:
    assert picks(balance_of(instance("a", 3), instance("b", 1)), 8) == "a a b a a a b a"


def test_weight_zero_gets_nothing() -> None:
    assert picks(balance_of(instance("a", 0), instance("b")), 3) == "b b b"
    assert picks(balance_of(instance("a", 0)), 1) == "-"
    assert balance_of(instance("a", 0)).is_empty(0.0)


def test_nobody_is_ready() -> None:
    assert picks(Balance(), 1) == "-"
    assert Balance().is_empty(0.0)


def test_the_excluded_are_not_picked() -> None:
    balance = balance_of(instance("a"), instance("b"))
    chosen = balance.pick(0.0, exclude={"a"})
    assert chosen is not None
    assert chosen.instance.id == "b"
    assert balance.pick(0.0, exclude={"a", "b"}) is None


def test_one_that_refused_is_passed_over_until_its_time_ends() -> None:
    balance = balance_of(instance("a"), instance("b"))
    refused(balance, "a", 10.0)
    assert balance.ejected_for("a", 10.25) == 0.75
    assert picks(balance, 3, now=10.9) == "b b b"
    assert "a" in picks(balance, 2, now=11.0)


def test_one_that_drains_gets_nothing_new() -> None:
    balance = balance_of(instance("a"), replace(instance("b"), state=State.DRAINING))
    assert picks(balance, 3) == "a a a"


def test_when_everybody_is_ejected_everybody_is_asked() -> None:
    balance = balance_of(instance("a"), instance("b"))
    refused(balance, "a", 10.0)
    refused(balance, "b", 10.0)
    assert sorted(picks(balance, 2, now=10.1).split()) == ["a", "b"]
    balance.answered("b", sent_at=10.1, now=10.2)
    assert picks(balance, 2, now=10.2) == "b b"


def test_the_ejected_are_asked_when_all_others_were_tried() -> None:
    balance = balance_of(instance("a"), instance("b"))
    refused(balance, "a", 10.0)
    chosen = balance.pick(10.1, exclude=["b"])
    assert chosen is not None
    assert chosen.instance.id == "a"


def test_an_instance_that_stays_keeps_its_place_and_its_ejection() -> None:
    balance = balance_of(instance("a"), instance("b"))
    assert picks(balance, 1) == "a"
    refused(balance, "a", 10.0)
    balance.reconcile([instance("a"), instance("b"), instance("c")])
    assert "a" not in picks(balance, 4, now=10.5)


def test_an_instance_that_announced_itself_again_starts_afresh_but_for_what_it_has() -> None:
    balance = balance_of(instance("a"))
    refused(balance, "a", 10.0)
    busy = balance.pick(10.0)
    assert busy is not None
    busy.in_flight_count = 3
    balance.reconcile([replace(instance("a"), since_ms=99), instance("b")])
    assert "a" in picks(balance, 2, now=10.1)
    assert {one.instance.id: one.in_flight_count for one in balance.candidates()} == {"a": 3, "b": 0}
    balance.reconcile([replace(instance("a"), address="elsewhere:80")])
    assert [one.in_flight_count for one in balance.candidates()] == [0]


def test_a_stranger_is_ignored() -> None:
    balance = balance_of(instance("a"))
    refused(balance, "z", 10.0)
    balance.answered("z", 10.0, 10.0)
    assert picks(balance, 1) == "a"


@pytest.mark.parametrize(
    ("in_flight", "expected"),
    [
        ({"a": 0, "b": 0, "c": 0}, "a b c"),  # among equals as round robin
        ({"a": 1, "b": 0, "c": 0}, "b c b"),
        ({"a": 2, "b": 1, "c": 2}, "b b b"),
        ({"a": 5, "b": 6, "c": 7}, "a a a"),
    ],
)
def test_least_requests(in_flight: dict[str, int], expected: str) -> None:
    balance = balance_of(*(instance(name) for name in in_flight), order=Order.LEAST_REQUESTS)
    for one in balance.candidates():
        one.in_flight_count = in_flight[one.instance.id]
    assert picks(balance, 3) == expected


def test_least_requests_for_its_weight() -> None:
    balance = balance_of(instance("a", 200), instance("b", 100), order=Order.LEAST_REQUESTS)
    assert Counter(picks(balance, 6).split()) == {"a": 4, "b": 2}  # nothing in flight: by weight
    for one in balance.candidates():
        one.in_flight_count = 3
    assert picks(balance, 2) == "a a"


ZONES = ("n1", "n2", "n3", "s1", "s2", "s3", "w1", "w2", "w3")


@pytest.mark.parametrize(
    ("left", "asked"),
    [
        ("n1 n2 n3 s1 s2 s3 w1 w2 w3", "n1 n2 n3"),
        ("n1 n2 s1 s2 s3 w1 w2 w3", "n1 n2"),
        ("n1 s1 s2 s3 w1 w2 w3", "n1 s1 s2 s3 w1 w2 w3"),  # 1 is less than half of 7 / 3
        ("n1 s1 w1", "n1"),
        ("n1 n2", "n1 n2"),
        ("s1 w1", "s1 w1"),
    ],
)
def test_the_own_zone_comes_first_while_there_is_enough_of_it(left: str, asked: str) -> None:
    balance = balance_of(*(instance(name, zone=name[0]) for name in left.split()), zone="n")
    assert " ".join(sorted(set(picks(balance, 20).split()))) == asked


def test_a_zone_whose_instances_are_ejected_is_not_enough() -> None:
    balance = balance_of(*(instance(name, zone=name[0]) for name in ZONES), zone="n")
    refused(balance, "n1", 0.0)
    refused(balance, "n2", 0.0)
    assert len(set(picks(balance, 20, now=0.5).split())) == 7
    assert set(picks(balance, 20, now=1.0).split()) == {"n1", "n2", "n3"}


def test_when_the_own_zone_was_tried_another_is_asked() -> None:
    balance = balance_of(instance("n1", zone="n"), instance("s1", zone="s"), zone="n")
    chosen = balance.pick(0.0, exclude=["n1"])
    assert chosen is not None
    assert chosen.instance.id == "s1"


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 5))
def test_in_every_round_each_comes_up_weight_times(weights: list[int], rounds: int) -> None:
    balance = balance_of(*(instance(str(number), weight) for number, weight in enumerate(weights)))
    for _ in range(rounds):
        counts = Counter(picks(balance, sum(weights)).split())
        assert counts == {str(number): weight for number, weight in enumerate(weights)}


STEP = st.one_of(
    st.tuples(st.just("set"), st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9))),
    st.tuples(st.just("pick"), st.frozensets(st.sampled_from("abcde"))),
    st.tuples(st.just("busy"), st.tuples(st.sampled_from("abcde"), st.integers(0, 3))),
    st.tuples(st.just("fail"), st.tuples(st.sampled_from("abcde"), st.booleans())),
    st.tuples(st.just("wait"), st.floats(0, 3)),
)


@given(st.lists(STEP, max_size=60), st.sampled_from(Order), st.sampled_from(("", "n")))
def test_whatever_happens_somebody_is_picked_when_there_is_somebody(
    steps: list[tuple[str, object]], order: Order, zone: str
) -> None:
    balance = balance_of(order=order, zone=zone)
    able: set[str] = set()
    now = 0.0
    for kind, value in steps:
        if kind == "set" and isinstance(value, dict):
            zones = {name: "n" if name < "c" else "s" for name in value}
            balance.reconcile([instance(name, value[name], zones[name]) for name in sorted(value)])
            able = {name for name, weight in value.items() if weight}
        elif kind == "pick" and isinstance(value, frozenset):
            chosen = balance.pick(now, value)
            assert (chosen is None) == (not able - value)
            assert chosen is None or chosen.instance.id in able - value
            assert balance.is_empty(now) == (not able)
        elif kind == "busy" and isinstance(value, tuple):
            for one in balance.candidates():
                if one.instance.id == value[0]:
                    one.in_flight_count = value[1]
        elif kind == "fail" and isinstance(value, tuple):
            balance.failed(value[0], now, is_connected=value[1])
        elif isinstance(value, float):
            now += value


@given(st.lists(st.frozensets(st.sampled_from("abcd"), max_size=3), max_size=300))
def test_nobodys_credit_runs_away(excluded: list[frozenset[str]]) -> None:
    weights = {"a": 1, "b": 5, "c": 50, "d": 256}
    balance = balance_of(*(instance(name, weight) for name, weight in weights.items()))
    for exclude in excluded:
        balance.pick(0.0, exclude)
    credits = [one.credit for one in balance.candidates()]
    assert sum(credits) == 0
    assert max(credits) - min(credits) <= 4 * sum(weights.values())
