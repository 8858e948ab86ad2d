"""What an engine tells, as it puts it, and who is announced for it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.readiness.docker import Containers, read_container
from kvstore.readiness.instance import State

HOST = "10.0.0.5"


def document(name: str = "a", *, labels: dict[str, str] | None = None, **said: Any) -> dict[str, Any]:
    """As of GET /containers/ID/json: a container that runs and exposes port 80, in one network."""
    return {
        "Id": said.get("id", name * 64),
        "Name": f"/{name}",
        "Created": said.get("created", "2026-01-31T12:00:00Z"),
        "State": {
            "Running": True,
            "Paused": False,
            "Restarting": False,
            "Dead": False,
            **said.get("state", {}),
        },
        "Config": {
            "Labels": {"kvstore.service": "web", **(labels or {})},
            "ExposedPorts": said.get("exposed", {"80/tcp": {}}),
            "StopSignal": said.get("stop_signal"),
        },
        "HostConfig": {"NetworkMode": said.get("mode", "front")},
        "NetworkSettings": {
            "Ports": said.get("ports", {"80/tcp": None}),
            "Networks": said.get("networks", {"front": {"IPAddress": "172.18.0.2"}}),
        },
    }


def event(action: str, name: str = "a", kind: str = "container", **attributes: str) -> dict[str, Any]:
    said = {"kvstore.service": "web", **attributes}
    return {"Type": kind, "Action": action, "Actor": {"ID": name * 64, "Attributes": said}}


def holding(*documents: dict[str, Any]) -> Containers:
    containers = Containers(HOST)
    for one in documents:
        assert containers.take(one["Id"], one, containers.version(one["Id"]))
    return containers


def states(containers: Containers) -> dict[str, State]:
    wanted, wrong = containers.desired()
    assert wrong == {}
    return {one.instance.address: one.instance.state for one in wanted.values()}


def published(ip: str, port: str = "8080") -> dict[str, Any]:
    return {"80/tcp": [{"HostIp": ip, "HostPort": port}]}


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ({}, "172.18.0.2:80"),
        ({"ports": published("127.0.0.1")}, "127.0.0.1:8080"),
        ({"ports": published("0.0.0.0")}, "10.0.0.5:8080"),
        (
            {"ports": {"80/tcp": [*published("::")["80/tcp"], *published("0.0.0.0")["80/tcp"]]}},
            "10.0.0.5:8080",
        ),
        ({"ports": published("fd00::1")}, "[fd00::1]:8080"),
        ({"mode": "host", "networks": {"host": {"IPAddress": ""}}}, "10.0.0.5:80"),
        ({"labels": {"kvstore.network": "front"}, "ports": published("127.0.0.1")}, "172.18.0.2:80"),
        ({"labels": {"kvstore.port": "81"}, "ports": published("127.0.0.1")}, "172.18.0.2:81"),
        ({"networks": {"six": {"IPAddress": "", "GlobalIPv6Address": "fd00::2"}}}, "[fd00::2]:80"),
    ],
)
def test_where_it_is_reached(said: dict[str, Any], address: str) -> None:
    assert states(holding(document(**said))) == {address: State.READY}


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"exposed": {}, "ports": {}}, "it exposes no port: label kvstore.port says which"),
        ({"exposed": {"80/tcp": {}, "81/tcp": {}}}, "it exposes 2 ports: label kvstore.port says which"),
        ({"exposed": {"80/udp": {}}, "ports": {}}, "it exposes no port: label kvstore.port says which"),
        (
            {"labels": {"kvstore.network": "back"}},
            "kvstore.network: it is not in network 'back', but in: front",
        ),
        (
            {"networks": {"b": {"IPAddress": "172.18.0.2"}, "a": {"IPAddress": "172.19.0.2"}}},
            "label kvstore.network says in which network it is reached: a, b",
        ),
        ({"networks": {}}, "port 80 is not published, and the container has no address of its own"),
        ({"labels": {"kvstore.id": "a/b"}}, "id: 'a/b' is not a name"),
        ({"labels": {"kvstore.weight": "257"}}, "weight: '257' is not a number from 0 to 256"),
    ],
)
def test_what_is_wrong_with_one_is_said_and_takes_no_other_down(said: dict[str, Any], text: str) -> None:
    good = document("b", ports=published("127.0.0.1"))
    wanted, wrong = holding(document(**said), good).desired()
    assert [one.instance.address for one in wanted.values()] == ["127.0.0.1:8080"]
    assert text in wrong.pop("a")
    assert wrong == {}


def test_what_is_said_in_labels_is_announced() -> None:
    said = {
        "kvstore.id": "x",
        "kvstore.weight": "7",
        "kvstore.zone": "z1",
        "kvstore.tags": "blue,fast",
        "kvstore.protocol": "grpc",
        "kvstore.check": "/ok",
    }
    wanted, _ = holding(document(labels=said)).desired()
    (one,) = wanted.values()
    instance = one.instance
    assert (instance.id, instance.weight, instance.zone, instance.tags) == ("x", 7, "z1", ("blue", "fast"))
    assert (instance.protocol, one.check) == ("grpc", "/ok")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, State.READY),
        ({"Health": {"Status": "none"}}, State.READY),
        ({"Health": {"Status": "starting"}}, State.STARTING),
        ({"Health": {"Status": "healthy"}}, State.READY),
        ({"Health": {"Status": "unhealthy"}}, State.FAILED),
        ({"Running": False}, None),
        ({"Paused": True}, None),
        ({"Restarting": True}, None),
    ],
)
def test_the_engines_word_on_its_state(state: dict[str, Any], expected: State | None) -> None:
    assert list(states(holding(document(state=state))).values()) == ([expected] if expected else [])


@pytest.mark.parametrize(
    "end",
    [
        event("die"),
        event("stop"),
        event("pause"),
        event("destroy"),
        event("kill", signal="9"),
        event("kill", signal="15"),
    ],
)
def test_an_end_takes_effect_with_its_event(end: dict[str, Any]) -> None:
    containers = holding(document())
    assert containers.take_event(end) == ""
    assert states(containers) == {}


def test_a_signal_that_is_not_to_stop_it_is_its_own_business_and_an_image_may_have_another() -> None:
    containers = holding(document())
    containers.take_event(event("kill", signal="1"))
    assert list(states(containers).values()) == [State.READY]
    containers = holding(document(stop_signal="SIGWINCH"))
    containers.take_event(event("kill", signal="28"))
    assert states(containers) == {}


def test_one_that_was_told_to_stop_stays_away_until_it_is_started_again() -> None:
    containers = holding(document())
    containers.take_event(event("kill", signal="15"))
    containers.take("a" * 64, document(), containers.version("a" * 64))  # a new list: it runs still
    assert states(containers) == {}
    containers.take_event(event("die"))
    assert containers.take_event(event("start")) == "a" * 64
    containers.take("a" * 64, document(), containers.version("a" * 64))
    assert list(states(containers).values()) == [State.READY]


def test_health_takes_effect_with_its_event_and_says_nothing_of_one_that_is_gone() -> None:
    containers = holding(document(state={"Health": {"Status": "starting"}}))
    for word, state in (("healthy", State.READY), ("unhealthy", State.FAILED)):
        assert containers.take_event(event(f"health_status: {word}")) == ""
        assert list(states(containers).values()) == [state]
    containers.take_event(event("die"))
    containers.take_event(event("health_status: healthy"))
    assert states(containers) == {}


def test_what_was_found_before_an_event_does_not_count_after_it() -> None:
    containers = Containers(HOST)
    assert containers.take_event(event("start")) == "a" * 64
    asked_at = containers.version("a" * 64)
    containers.take_event(event("die"))
    assert not containers.take("a" * 64, document(), asked_at)
    assert states(containers) == {}


def test_a_new_network_is_looked_at_and_others_containers_are_not() -> None:
    containers = holding(document())
    assert containers.take_event(event("connect", kind="network", container="a" * 64)) == "a" * 64
    theirs = {"Type": "container", "Action": "start", "Actor": {"ID": "f" * 64, "Attributes": {}}}
    assert containers.take_event(theirs) == ""
    assert containers.take_event({}) == ""


def test_of_two_that_want_one_name_the_older_has_it_and_the_other_takes_its_place() -> None:
    same = {"kvstore.id": "x"}
    newer = document("a", labels=same, created="2026-01-31T12:00:01Z", ports=published("127.0.0.1", "1"))
    containers = holding(newer, document("b", labels=same, ports=published("127.0.0.1", "2")))
    wanted, wrong = containers.desired()
    assert [one.instance.address for one in wanted.values()] == ["127.0.0.1:2"]
    assert wrong == {"a": "web/x is container b already; label kvstore.id names it otherwise"}
    containers.take_event(event("die", "b"))
    assert list(states(containers)) == ["127.0.0.1:1"]


def test_who_is_not_in_the_whole_list_is_gone() -> None:
    containers = holding(document("a", labels={"kvstore.id": "a"}), document("b", labels={"kvstore.id": "b"}))
    containers.keep(["b" * 64])
    assert [one.instance.id for one in containers.desired()[0].values()] == ["b"]


def test_what_is_kept_of_containers_that_are_gone_is_bounded() -> None:
    containers = Containers(HOST)
    for number in range(5000):
        containers.take_event({**event("die"), "Actor": {"ID": str(number), "Attributes": {}}})
    assert len(containers._versions) <= 4096


def test_an_answer_that_is_not_understood_is_told_of() -> None:
    containers = Containers(HOST)
    assert containers.take("a" * 64, {"Id": "a" * 64}, 0)
    assert containers.desired()[1] == {
        "a" * 12: "the engine's answer is not understood: KeyError('NetworkSettings')"
    }


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_nothing_an_engine_says_is_more_than_not_understood(said: Any) -> None:
    if isinstance(said, dict):
        with pytest.raises(ValueError, match="not understood"):
            read_container(said)
