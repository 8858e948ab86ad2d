"""What is known of services in, snapshots out."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

from kvstore.readiness.instance import Instance
from kvstore.routing.xds.catalogue import Catalogue
from kvstore.routing.xds.kinds import Kind, Snapshot
from kvstore.routing.xds.resources import OPTIONS, Door, parse_door


def one(address: str, *, protocol: str = "http", zone: str = "") -> Instance:
    return Instance(service="web", id=address, address=address, protocol=protocol, zone=zone)


def made(catalogue: Catalogue, zone: str = "") -> Snapshot:
    snapshot = catalogue.snapshot(zone)
    assert snapshot is not None
    return snapshot


def addresses(snapshot: Snapshot, service: str = "web") -> list[str]:
    message = endpoint_pb2.ClusterLoadAssignment.FromString(snapshot[Kind.ENDPOINTS][service].body)
    found = [
        each.endpoint.address.socket_address for place in message.endpoints for each in place.lb_endpoints
    ]
    return [f"{where.address}:{where.port_value}" for where in found]


def priorities(snapshot: Snapshot) -> dict[str, int]:
    message = endpoint_pb2.ClusterLoadAssignment.FromString(snapshot[Kind.ENDPOINTS]["web"].body)
    return {place.locality.zone: place.priority for place in message.endpoints}


def is_http2(snapshot: Snapshot) -> bool:
    message = cluster_pb2.Cluster.FromString(snapshot[Kind.CLUSTER]["web"].body)
    return OPTIONS in message.typed_extension_protocol_options


def test_nothing_is_said_before_everything_is_known() -> None:
    catalogue = Catalogue(["web", "api"])
    catalogue.put("web", [])
    assert catalogue.snapshot() is None
    assert catalogue.unlisted == ["api"]
    catalogue.put("api", [])
    assert set(made(catalogue)[Kind.CLUSTER]) == {"web", "api"}


def test_one_service_changes_and_nothing_else_does() -> None:
    catalogue = Catalogue(["web", "api"], [Door("web", "0.0.0.0", 80)])
    catalogue.put("web", [])
    catalogue.put("api", [])
    before = made(catalogue)
    catalogue.put("web", [one("10.0.0.1:80")])
    after = made(catalogue)
    assert addresses(after) == ["10.0.0.1:80"]
    changed = {
        (kind.label, name)
        for kind in Kind
        for name in after[kind]
        if after[kind][name] != before[kind].get(name)
    }
    assert changed == {("endpoints", "web")}


def test_a_listener_for_who_asks_by_name_and_one_for_everybody() -> None:
    catalogue = Catalogue(["web"], [Door("web", "::", 80)])
    catalogue.put("web", [])
    listeners = made(catalogue)[Kind.LISTENER]
    assert {name: found.is_named_only for name, found in listeners.items()} == {
        "web": True,
        "web@[::]:80": False,
    }
    assert listener_pb2.Listener.FromString(listeners["web"].body).HasField("api_listener")
    assert listener_pb2.Listener.FromString(listeners["web@[::]:80"].body).HasField("address")


@pytest.mark.parametrize(
    ("protocols", "expected"),
    [(["http"], False), (["h2c"], True), (["grpc", "H2C"], True), (["grpc", "http"], False)],
)
def test_http2_where_everybody_speaks_it(protocols: list[str], expected: bool) -> None:
    catalogue = Catalogue(["web"])
    instances = [one(f"10.0.0.{at}:80", protocol=protocol) for at, protocol in enumerate(protocols)]
    catalogue.put("web", instances)
    assert is_http2(made(catalogue)) is expected
    catalogue.put("web", [])  # nobody is there to ask: as it was
    assert is_http2(made(catalogue)) is expected


def test_zones_have_snapshots_of_their_own_where_they_are_preferred() -> None:
    instances = [one("10.0.0.1:80", zone="a"), one("10.0.0.2:80", zone="b")]
    for prefers in (False, True):
        catalogue = Catalogue(["web"], prefers_zone=prefers)
        catalogue.put("web", instances)
        assert priorities(made(catalogue, "b")) == {"a": int(prefers), "b": 0}
        assert priorities(made(catalogue, "a")) == {"a": 0, "b": int(prefers)}
        assert priorities(made(catalogue)) == {"a": 0, "b": 0}


def test_host_names_are_asked_for_and_told() -> None:
    catalogue = Catalogue(["web"])
    catalogue.put("web", [one("10.0.0.1:80"), one("web.example:80")])
    assert catalogue.host_names == {"web.example"}
    assert addresses(made(catalogue)) == ["10.0.0.1:80"]
    catalogue.resolve({"web.example": "10.0.0.9"})
    assert addresses(made(catalogue)) == ["10.0.0.1:80", "10.0.0.9:80"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web=0.0.0.0:80", Door("web", "0.0.0.0", 80)),
        ("web=[::1]:80", Door("web", "::1", 80)),
        ("db=tcp://127.0.0.1:5432", Door("db", "127.0.0.1", 5432, is_tcp=True)),
    ],
)
def test_doors(text: str, expected: Door) -> None:
    assert parse_door(text) == expected


@pytest.mark.parametrize(
    "text", ["web", "=1.2.3.4:80", "web=80", "web=host:80", "web=1.2.3.4:0", "web=1.2.3.4:x"]
)
def test_what_is_no_door(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_door(text)


def test_what_envoy_would_do_otherwise_is_switched_off() -> None:
    """Fields whose absence means something else than their zero."""
    catalogue = Catalogue(["web"])
    catalogue.put("web", [])
    snapshot = made(catalogue)
    balance = cluster_pb2.Cluster.FromString(snapshot[Kind.CLUSTER]["web"].body).common_lb_config
    assert balance.HasField("healthy_panic_threshold")
    assert balance.HasField("update_merge_window")
    (host,) = route_pb2.RouteConfiguration.FromString(snapshot[Kind.ROUTE]["web"].body).virtual_hosts
    assert [rule.route.HasField("timeout") for rule in host.routes] == [True, True]
