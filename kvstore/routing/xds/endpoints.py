"""One service's instances in, its ClusterLoadAssignment out. Pure.

Weights. Envoy takes an endpoint's; gRPC's round robin takes a locality's and spreads evenly inside of it. Both are
right when instances of one zone with different weights are in localities of their own, told apart by sub_zone, and a
locality weighs what its endpoints weigh together. Instances with the usual weight have no sub_zone.

What drains, or is ready with a weight of 0, is there as DRAINING: it gets nothing new and its connections go on.
Two instances that announce one address are one endpoint (clients refuse an address that is there twice), with the
weights of both; it drains only when both do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from envoy.config.core.v3 import health_check_pb2
from envoy.config.endpoint.v3 import endpoint_pb2

from kvstore.readiness.instance import DEFAULT_WEIGHT, Instance, split_address

HEALTHY, DRAINING = health_check_pb2.HealthStatus.HEALTHY, health_check_pb2.HealthStatus.DRAINING


@dataclass(frozen=True, slots=True)
class Endpoint:
    """weight: 0 when it drains."""

    ip: str
    port: int
    weight: int
    zone: str

    @property
    def sub_zone(self) -> str:
        return "" if self.weight in (0, DEFAULT_WEIGHT) else f"weight-{self.weight}"


def endpoints(instances: Iterable[Instance], ip_of: Mapping[str, str]) -> list[Endpoint]:
    """By address. ip_of: host names to IPs, which is all that EDS has room for; an instance with a host name that is
    not in it is left out."""
    found: dict[tuple[str, int], Endpoint] = {}
    for instance in sorted(instances, key=lambda one: one.id):
        host, port = split_address(instance.address)
        ip = host if is_ip(host) else ip_of.get(host)
        if ip is None:
            continue
        weight = instance.weight if instance.is_ready else 0
        other = found.get((ip, port))
        if other is None or (other.weight == 0 and weight):
            found[ip, port] = Endpoint(ip, port, weight, instance.zone)
        elif weight:
            found[ip, port] = Endpoint(ip, port, other.weight + weight, other.zone)
    return [found[address] for address in sorted(found)]


def assignment(service: str, found: Iterable[Endpoint], near: str = "") -> bytes:
    """A ClusterLoadAssignment. near: a zone whose endpoints come first; those of other zones stand by, and take
    over when there is nobody left there. "": all zones alike."""
    localities: dict[tuple[int, str, str], list[Endpoint]] = {}
    found = list(found)
    has_near = bool(near) and any(one.zone == near and one.weight for one in found)
    for one in found:
        priority = 1 if has_near and one.zone != near else 0
        localities.setdefault((priority, one.zone, one.sub_zone), []).append(one)
    message = endpoint_pb2.ClusterLoadAssignment(cluster_name=service)
    for (priority, zone, sub_zone), members in sorted(localities.items()):
        locality = message.endpoints.add(priority=priority)
        locality.locality.zone = zone
        locality.locality.sub_zone = sub_zone
        locality.load_balancing_weight.value = max(sum(one.weight for one in members), 1)
        for one in members:
            _add(locality, one)
    return message.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _add(locality: endpoint_pb2.LocalityLbEndpoints, one: Endpoint) -> None:
    made = locality.lb_endpoints.add(health_status=HEALTHY if one.weight else DRAINING)
    made.load_balancing_weight.value = max(one.weight, 1)
    made.endpoint.address.socket_address.address = one.ip
    made.endpoint.address.socket_address.port_value = one.port
