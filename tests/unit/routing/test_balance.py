"""Whose turn it is, with literal times."""

from dataclasses import replace

from kvstore.readiness.instance import Instance, State
from kvstore.routing.balance import Balance


def instance(name: str, weight: int = 100) -> Instance:
    return Instance(service="web", id=name, address=f"{name}:80", weight=weight)


def picks(balance: Balance, count: int, now: float = 0.0) -> str:
    chosen = [balance.pick(now) for _ in range(count)]
    return " ".join(one.id if one else "-" for one in chosen)


def balance_of(*instances: Instance) -> Balance:
    balance = Balance(rest_s=1.0)
    balance.reconcile(instances)
    return balance


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


def test_nobody_is_ready() -> None:
    assert picks(Balance(), 1) == "-"


def test_the_excluded_are_not_picked() -> None:
    balance = balance_of(instance("a"), instance("b"))
    chosen = balance.pick(0.0, exclude={"a"})
    assert chosen is not None
    assert chosen.id == "b"
    assert balance.pick(0.0, exclude={"a", "b"}) is None


def test_one_that_refused_is_passed_over_until_its_rest_ends() -> None:
    balance = balance_of(instance("a"), instance("b"))
    balance.refused("a", 10.0)
    assert picks(balance, 3, now=10.9) == "b b b"
    assert "a" in picks(balance, 2, now=11.0)


def test_an_answer_ends_the_rest() -> None:
    balance = balance_of(instance("a"), instance("b"))
    balance.refused("a", 10.0)
    balance.answered("a")
    assert sorted(picks(balance, 2, now=10.0).split()) == ["a", "b"]


def test_one_that_drains_gets_nothing_new() -> None:
    balance = balance_of(instance("a"), replace(instance("b"), state=State.DRAINING))
    assert picks(balance, 3) == "a a a"


def test_when_everybody_rests_everybody_is_asked() -> None:
    balance = balance_of(instance("a"), instance("b"))
    balance.refused("a", 10.0)
    balance.refused("b", 10.0)
    assert sorted(picks(balance, 2, now=10.1).split()) == ["a", "b"]


def test_an_instance_that_stays_keeps_its_place_and_its_rest() -> None:
    balance = balance_of(instance("a"), instance("b"))
    assert picks(balance, 1) == "a"
    balance.refused("a", 10.0)
    balance.reconcile([instance("a"), instance("b"), instance("c")])
    assert "a" not in picks(balance, 4, now=10.5)


def test_an_instance_that_announced_itself_again_starts_afresh() -> None:
    balance = balance_of(instance("a"))
    balance.refused("a", 10.0)
    balance.reconcile([replace(instance("a"), since_ms=99), instance("b")])
    assert "a" in picks(balance, 2, now=10.1)


def test_a_stranger_is_ignored() -> None:
    balance = balance_of(instance("a"))
    balance.refused("z", 10.0)
    balance.answered("z")
    assert picks(balance, 1) == "a"
