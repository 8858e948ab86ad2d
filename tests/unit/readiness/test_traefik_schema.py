"""Keys for Traefik, and the ranges between them."""

import pytest

from kvstore.readiness.instance import Instance
from kvstore.readiness.traefik_schema import Route, gaps, server_keys, shared_keys


def test_keys_of_an_instance_and_of_all() -> None:
    one = Instance(service="web", id="a", address="[::1]:80", protocol="h2c", weight=7)
    at = "traefik/http/services/web/loadbalancer"
    assert server_keys(one) == {f"{at}/servers/a/url": "h2c://[::1]:80", f"{at}/servers/a/weight": "7"}
    assert shared_keys("web", Route("Host(`w`)", ("in", "out"))) == {
        f"{at}/passhostheader": "true",
        "traefik/http/routers/web/rule": "Host(`w`)",
        "traefik/http/routers/web/service": "web",
        "traefik/http/routers/web/entrypoints/0": "in",
        "traefik/http/routers/web/entrypoints/1": "out",
    }


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([], [("e/", "e0")]),
        (["e/0"], [("e/", "e/0"), ("e/0\0", "e0")]),
        (["e/1", "e/0"], [("e/", "e/0"), ("e/0\0", "e/1"), ("e/1\0", "e0")]),
    ],
)
def test_gaps_are_all_but_the_given_keys(keys: list[str], expected: list[tuple[str, str]]) -> None:
    assert gaps("e/", keys) == expected
    assert not any(first <= key < end for key in keys for first, end in expected)
