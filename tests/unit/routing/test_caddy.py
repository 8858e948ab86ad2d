"""What is in Caddy's list and who is ready in, the list as it should be out."""

import pytest

from kvstore.readiness.instance import Instance, State
from kvstore.routing.caddy import wanted


def one(address: str, weight: int = 100, state: State = State.READY) -> Instance:
    return Instance(service="web", id=address.replace(":", "-"), address=address, weight=weight, state=state)


A, B = one("10.0.0.1:80"), one("10.0.0.2:80")
DIAL_A, DIAL_B = {"dial": "10.0.0.1:80"}, {"dial": "10.0.0.2:80"}
KNOWN_B = {"dial": "10.0.0.2:80", "max_requests": 7}


@pytest.mark.parametrize(
    ("current", "instances", "expected"),
    [
        ([], [], []),
        ([], [B, A], [DIAL_A, DIAL_B]),
        ([DIAL_B, DIAL_A], [A, B], [DIAL_B, DIAL_A]),
        ([KNOWN_B, DIAL_A], [B], [KNOWN_B]),
        ([KNOWN_B, KNOWN_B], [A, B], [KNOWN_B, DIAL_A]),
        (["nonsense", {"max_requests": 1}, None], [A], [DIAL_A]),
        ([DIAL_A], [one("10.0.0.1:80", state=State.DRAINING), one("10.0.0.2:80", weight=0)], []),
        ([], [A, one("10.0.0.1:80")], [DIAL_A]),
    ],
)
def test_who_stays_keeps_its_place(
    current: list[object], instances: list[Instance], expected: list[object]
) -> None:
    assert wanted(current, instances) == expected
    assert wanted(expected, instances) == expected
