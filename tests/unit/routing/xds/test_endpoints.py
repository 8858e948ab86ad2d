"""Instances in, endpoints out: who is there, with which weight, in which locality."""

from __future__ import annotations

import pytest
from envoy.config.endpoint.v3 import endpoint_pb2

from kvstore.readiness.instance import Instance, State
from kvstore.routing.xds.endpoints import DRAINING, HEALTHY, assignment, endpoints


def one(
    address: str, weight: int = 100, *, state: State = State.READY, zone: str = "", name: str = ""
) -> Instance:
    name = name or address.replace("[", "").replace("]", "")
    return Instance(service="web", id=name, address=address, weight=weight, state=state, zone=zone)


def drains(address: str, weight: int = 100, **fields: str) -> Instance:
    return one(address, weight, state=State.DRAINING, **fields)


A, B, C = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"

# Localities as PRIORITY/ZONE/SUB_ZONE=WEIGHT, and their endpoints as ADDRESS*WEIGHT, those that drain in brackets.
CASES: dict[str, tuple[list[Instance], str, list[str]]] = {
    "nobody": ([], "", []),
    "two alike": ([one(B), one(A)], "", [f"0//=200 {A}*100 {B}*100"]),
    "other weights are localities of their own": (
        [one(A, 50), one(B), one(C, 50)],
        "",
        [f"0//=100 {B}*100", f"0//weight-50=100 {A}*50 {C}*50"],
    ),
    "zones": ([one(A, zone="a"), one(B, zone="b")], "", [f"0/a/=100 {A}*100", f"0/b/=100 {B}*100"]),
    "one that drains is there, and weighs nothing": (
        [one(A), drains(B, 7)],
        "",
        [f"0//=100 {A}*100 ({B}*1)"],
    ),
    "so is one with a weight of nothing": ([one(A), one(B, 0)], "", [f"0//=100 {A}*100 ({B}*1)"]),
    "only some that drain: a locality weighs something all the same": ([drains(A)], "", [f"0//=1 ({A}*1)"]),
    "one address, twice: one endpoint with both weights": (
        [one(A, 30, name="x"), one(A, 40, name="y")],
        "",
        [f"0//weight-70=70 {A}*70"],
    ),
    "one address, twice, one of them drains": (
        [drains(A, name="x"), one(A, 40, name="y")],
        "",
        [f"0//weight-40=40 {A}*40"],
    ),
    "IPv6": ([one("[2001:db8::1]:80")], "", ["0//=100 2001:db8::1:80*100"]),
    "a host name that is known, and one that is not": (
        [one("known.example:80"), one("unknown.example:80")],
        "",
        ["0//=100 10.9.9.9:80*100"],
    ),
    "a host name's address is somebody's already": (
        [one("known.example:80", 10), one("10.9.9.9:80", 5)],
        "",
        ["0//weight-15=15 10.9.9.9:80*15"],
    ),
    "my zone first": (
        [one(A, zone="a"), one(B, zone="b"), one(C)],
        "b",
        [f"0/b/=100 {B}*100", f"1//=100 {C}*100", f"1/a/=100 {A}*100"],
    ),
    "nobody in my zone": ([one(A, zone="a")], "b", [f"0/a/=100 {A}*100"]),
    "in my zone only one that drains": (
        [one(A, zone="a"), drains(B, zone="b")],
        "b",
        [f"0/a/=100 {A}*100", f"0/b/=1 ({B}*1)"],
    ),
}


@pytest.mark.parametrize(("instances", "near", "expected"), CASES.values(), ids=CASES.keys())
def test_assignment(instances: list[Instance], near: str, expected: list[str]) -> None:
    body = assignment("web", endpoints(instances, {"known.example": "10.9.9.9"}), near)
    message = endpoint_pb2.ClusterLoadAssignment.FromString(body)
    assert message.cluster_name == "web"
    assert [_told(locality) for locality in message.endpoints] == expected


def test_the_order_of_instances_changes_nothing() -> None:
    some = [one(A, zone="a"), one(B, zone="b"), one(C, 5)]
    assert assignment("web", endpoints(some, {})) == assignment("web", endpoints(some[::-1], {}))


def _told(locality: endpoint_pb2.LocalityLbEndpoints) -> str:
    words = []
    for each in locality.lb_endpoints:
        where = each.endpoint.address.socket_address
        text = f"{where.address}:{where.port_value}*{each.load_balancing_weight.value}"
        assert each.health_status in (HEALTHY, DRAINING)
        words.append(text if each.health_status == HEALTHY else f"({text})")
    place = f"{locality.priority}/{locality.locality.zone}/{locality.locality.sub_zone}"
    return " ".join([f"{place}={locality.load_balancing_weight.value}", *words])
