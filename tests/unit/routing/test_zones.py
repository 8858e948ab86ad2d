"""Which instances are routed to from a zone."""

import pytest

from kvstore.readiness.instance import Instance, State
from kvstore.routing.zones import nearest


def one(name: str, zone: str, weight: int = 100, state: State = State.READY) -> Instance:
    return Instance(service="web", id=name, address="10.0.0.1:80", zone=zone, weight=weight, state=state)


HERE, THERE, NOWHERE = one("a", "z1"), one("b", "z2"), one("c", "")
SPENT, LEAVING = one("d", "z1", weight=0), one("e", "z1", state=State.DRAINING)


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ([HERE, THERE, NOWHERE], "a"),
        ([THERE, NOWHERE], "bc"),
        ([SPENT, THERE], "db"),
        ([LEAVING, THERE], "eb"),
        ([HERE, one("f", "z2", state=State.DRAINING), THERE], "af"),
        ([], ""),
    ],
)
def test_the_zone_comes_first_and_all_when_nobody_is_there(instances: list[Instance], expected: str) -> None:
    assert "".join(each.id for each in nearest(instances, "z1")) == expected
