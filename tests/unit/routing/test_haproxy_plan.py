"""Current state and desired set in, exact commands out."""

from dataclasses import replace

import pytest

from kvstore.readiness.instance import Instance, State
from kvstore.routing.haproxy_plan import (
    BUSY,
    Server,
    Target,
    UnreadableState,
    parse_state,
    plan,
    targets,
    trouble,
)

HEADER = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_port\n"
A, B = "kv:10.0.0.1:80", "kv:10.0.0.2:80"


def server(name: str, is_enabled: bool = True, weight: int = 100) -> Server:
    return Server(name, is_enabled, weight)


def target(name: str, weight: int = 100) -> Target:
    return Target(name, name.removeprefix("kv:"), weight)


def drains(name: str) -> Target:
    return replace(target(name), is_draining=True)


CASES = {
    "nothing to do": ([server(A)], [target(A)], ""),
    "empty on both sides": ([], [], ""),
    "one comes": ([], [target(A)], f"add server web/{A} 10.0.0.1:80 weight 100; enable server web/{A}"),
    "one goes": ([server(A)], [], f"disable server web/{A}; del server web/{A}"),
    "a replacement comes in before the old one goes": (
        [server(A)],
        [target(B)],
        f"add server web/{B} 10.0.0.2:80 weight 100; enable server web/{B}; "
        f"disable server web/{A}; del server web/{A}",
    ),
    "left half added by a crash": ([server(A, False)], [target(A)], f"enable server web/{A}"),
    "back before it was deleted": (
        [server(A, False, 7)],
        [target(A)],
        f"set server web/{A} weight 100; enable server web/{A}",
    ),
    "left half deleted by a crash": ([server(A, False)], [], f"del server web/{A}"),
    "one drains": ([server(A)], [drains(A)], f"set server web/{A} state drain"),
    "it is draining": ([Server(A, True, 100, True)], [drains(A)], ""),
    "it drains no more": ([Server(A, True, 100, True)], [target(A)], f"set server web/{A} state ready"),
    "it went while it drained": (
        [Server(A, True, 100, True)],
        [],
        f"disable server web/{A}; del server web/{A}",
    ),
    "one that HAProxy does not know drains": ([], [drains(A)], ""),
    "weight changes": ([server(A)], [target(A, 5)], f"set server web/{A} weight 5"),
    "all out of the rotation before any is tidied up": (
        [server(A), server(B)],
        [],
        f"disable server web/{A}; disable server web/{B}; del server web/{A}; del server web/{B}",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str) -> None:
    current, desired, expected = CASES[case]
    commands = plan("web", {s.name: s for s in current}, {t.name: t for t in desired})
    assert "; ".join(commands) == expected


def test_overdue_sessions_are_shut_down_before_deleting() -> None:
    assert plan("web", {A: server(A, False)}, {}, overdue={A}) == [
        f"shutdown sessions server web/{A}",
        f"del server web/{A}",
    ]


def test_options_are_appended_to_what_is_added() -> None:
    assert plan("web", {}, {A: target(A)}, options="check inter 1s")[0].endswith(" weight 100 check inter 1s")


def test_state_is_read_by_column_name_and_only_ours() -> None:
    rows = f"3 web 1 {A} 10.0.0.1 2 0 100 1 80\n3 web 2 {B} 10.0.0.2 0 1 7 1 80\n3 web 3 static 10.0.0.3 2 0 1 1 80\n"
    assert parse_state(HEADER + rows) == {A: server(A), B: server(B, False, 7)}
    assert parse_state(HEADER) == {}


@pytest.mark.parametrize(
    "answer", ["", "Can't find backend.", "Permission denied", "1\nnonsense", HEADER + "3 web"]
)
def test_an_answer_that_is_no_state_is_refused(answer: str) -> None:
    with pytest.raises(UnreadableState):
        parse_state(answer)


def instance(name: str, address: str, weight: int = 100) -> Instance:
    return Instance(service="web", id=name, address=address, weight=weight)


def test_targets_are_named_after_their_ip_and_port() -> None:
    found = targets(
        [instance("a", "10.0.0.1:80"), instance("b", "[::1]:81"), instance("c", "web.internal:82")],
        {"10.0.0.1": "10.0.0.1", "::1": "::1", "web.internal": "10.0.0.9"},
    )
    assert list(found.values()) == [
        Target("kv:10.0.0.1:80", "10.0.0.1:80", 100),
        Target("kv:::1:81", "[::1]:81", 100),
        Target("kv:10.0.0.9:82", "10.0.0.9:82", 100),
    ]


def test_one_address_is_one_server_and_an_unknown_host_is_none() -> None:
    found = targets(
        [instance("a", "10.0.0.1:80", 200), instance("b", "10.0.0.1:80", 100), instance("c", "gone:80")],
        {"10.0.0.1": "10.0.0.1"},
    )
    assert list(found.values()) == [Target(A, "10.0.0.1:80", 256)]


@pytest.mark.parametrize(
    ("command", "answer", "expected"),
    [
        ("add server web/x 1.2.3.4:80", "New server registered.\n", None),
        ("del server web/x", "Server deleted.", None),
        ("del server web/x", BUSY, None),
        ("enable server web/x", "", None),
        ("enable server web/x", "No such\n server.\n", "No such server."),
        ("disable server web/x", BUSY, BUSY),
    ],
)
def test_what_counts_as_trouble(command: str, answer: str, expected: str | None) -> None:
    assert trouble(command, answer) == expected


def test_one_address_drains_when_all_who_announce_it_do() -> None:
    a = Instance(service="web", id="a", address="10.0.0.1:80")
    b = replace(a, id="b", weight=50, state=State.DRAINING)
    ips = {"10.0.0.1": "10.0.0.1"}
    assert targets([a, b], ips) == targets([b, a], ips) == {A: target(A)}
    assert targets([b, replace(b, id="c")], ips) == {A: Target(A, "10.0.0.1:80", 50, True)}
