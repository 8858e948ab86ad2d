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
    parse_used,
    plan,
    surplus,
    targets,
    trouble,
)

HEADER = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_port\n"
A, B = "kv:10.0.0.1:80", "kv:10.0.0.2:80"


def server(
    name: str,
    is_enabled: bool = True,
    weight: int = 100,
    is_draining: bool = False,
    at: str = "",
    used: int = 0,
) -> Server:
    return Server(name, is_enabled, weight, is_draining, at or name, used)


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
    "it is draining": ([server(A, True, 100, True)], [drains(A)], ""),
    "it drains no more": ([server(A, True, 100, True)], [target(A)], f"set server web/{A} state ready"),
    "it went while it drained": (
        [server(A, True, 100, True)],
        [],
        f"disable server web/{A}; del server web/{A}",
    ),
    "one that HAProxy does not know drains": ([], [drains(A)], ""),
    "one drains that is out already": ([server(A, False)], [drains(A)], ""),
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


K1, K2 = server("kv1", False, 1, at="kv:0.0.0.0:0"), server("kv2", False, 1, at="kv:0.0.0.0:0")
SET_1 = "shutdown sessions server web/kv1; set server web/kv1 addr 10.0.0.1 port 80"
ADD_B = f"add server web/{B} 10.0.0.2:80 weight 100; enable server web/{B}"
SLOT_CASES = {
    "nothing is asked of free slots": ([K1, K2], [], ""),
    "a free slot first gets its address": ([K1, K2], [target(A)], SET_1),
    "and is enabled when it has it": (
        [server("kv1", False, 1, at=A), K2],
        [target(A)],
        "set server web/kv1 weight 100; enable server web/kv1",
    ),
    "nothing is taken out before": ([K1, server("kv2", at=B)], [target(A)], SET_1),
    "and then it is disabled, and stays": (
        [server("kv1", at=A), server("kv2", at=B)],
        [target(A)],
        "disable server web/kv2",
    ),
    "when they run out servers are added": ([K1], [target(A), target(B)], f"{SET_1}; {ADD_B}"),
    "not while connections are in use": (
        [server("kv1", at=A, used=1)],
        [target(B)],
        f"{ADD_B}; disable server web/kv1",
    ),
    "nor after it was disabled": ([server("kv1", False, at=A, used=1)], [target(B)], ADD_B),
    "but for the address that it has": (
        [server("kv1", False, at=A, used=1)],
        [target(A)],
        "enable server web/kv1",
    ),
    "one that has the address already is not given another": (
        [server("kv1", False, at=B), server("kv2", False, at="kv:10.0.0.3:80")],
        [target(A), target(B)],
        "shutdown sessions server web/kv2; set server web/kv2 addr 10.0.0.1 port 80; enable server web/kv1",
    ),
    "of two with one address one stays": (
        [server("kv1", at=A), server(A)],
        [target(A)],
        f"disable server web/{A}; del server web/{A}",
    ),
    "an instance that drains keeps its slot": (
        [server("kv1", at=A)],
        [drains(A)],
        "set server web/kv1 state drain",
    ),
    "IPv6 without brackets": (
        [K1],
        [Target("kv:::1:81", "[::1]:81", 100)],
        "shutdown sessions server web/kv1; set server web/kv1 addr ::1 port 81",
    ),
}


@pytest.mark.parametrize("case", SLOT_CASES)
def test_plan_with_slots(case: str) -> None:
    current, desired, expected = SLOT_CASES[case]
    commands = plan("web", {s.name: s for s in current}, {t.name: t for t in desired})
    assert "; ".join(commands) == expected


def test_a_slot_that_takes_no_address_is_passed_over() -> None:
    commands = plan("web", {"kv1": K1}, {B: target(B)}, unusable={"kv1"})
    assert "; ".join(commands) == ADD_B


def test_a_slot_is_surplus_until_its_last_connection_has_gone() -> None:
    slot = server("kv1", at=A)
    for one, expected in [
        (slot, ["kv1"]),
        (replace(slot, is_enabled=False, used_count=2), ["kv1"]),
        (replace(slot, is_enabled=False), []),
    ]:
        assert surplus({"kv1": one}, {}) == expected
    assert surplus({"kv1": slot}, {A: target(A)}) == []
    late = replace(slot, is_enabled=False, used_count=2)
    assert plan("web", {"kv1": late}, {}, overdue={"kv1"}) == ["shutdown sessions server web/kv1"]


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


def test_slots_are_known_by_their_prefix_and_a_number() -> None:
    rows = "".join(f"3 web 1 {name} 10.0.0.1 0 5 1 1 80\n" for name in ("kv1", "kv12", "kvx", "kv", "slot1"))
    assert parse_state(HEADER + rows) == {name: server(name, False, 1, at=A) for name in ("kv1", "kv12")}
    assert list(parse_state(HEADER + rows, "slot")) == ["slot1"]
    started = "3 web 1 kv1 10.0.0.1 2 4 1 1 80\n"  # 4: `disabled` in the configuration, which stays for ever
    assert parse_state(HEADER + started)["kv1"].is_enabled


def test_connections_are_read_by_column_name() -> None:
    text = "# bkname/svname bkid/svid addr port - used_cur idle_per_thr[2]\nweb/kv1 3/1 1.2.3.4 5 - 2 0 0\n"
    assert parse_used(text) == {"kv1": 2}
    for answer in ("", "Can't find backend.", "# bkname/svname\nweb/kv1"):
        with pytest.raises(UnreadableState):
            parse_used(answer)


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
        (
            "set server web/kv1 addr 10.0.0.1 port 80",
            "IP changed from '0.0.0.0' to '10.0.0.1', port changed from '+0' to '80' by 'stats socket command'",
            None,
        ),
        (
            "set server web/kv1 addr 10.0.0.1 port 80",
            "no need to change the addr, port changed from '81' to '80' by 'stats socket command'",
            None,
        ),
        ("set server web/kv1 addr 10.0.0.1 port 80", "Invalid addr format.", "Invalid addr format."),
        ("add server web/x", "Permission denied", "Permission denied (the stats socket needs `level admin`)"),
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
