"""What is known of every service in, snapshots out. Pure.

There is no snapshot before every service has been listed once: a set that is not known is not an empty one, and an
Envoy that outlived a restart of ours would take it for that. Clients wait meanwhile, with what they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kvstore.readiness.instance import Instance, split_address
from kvstore.routing.xds.endpoints import assignment, endpoints, is_ip
from kvstore.routing.xds.kinds import Kind, Resource, Snapshot, resource
from kvstore.routing.xds.resources import HTTP2, Door, api_listener, cluster, listener, route

ZONES_MAX = 1024  # whose snapshots are kept at the same time


class Catalogue:
    """Invariant: _assignments and _views hold nothing that was made of an older state."""

    def __init__(
        self, services: Iterable[str], doors: Sequence[Door] = (), *, prefers_zone: bool = False
    ) -> None:
        self._instances: dict[str, Sequence[Instance] | None] = dict.fromkeys(services)
        self._prefers_zone = prefers_zone
        self._ip_of: Mapping[str, str] = {}
        self._clusters = {name: cluster(name, is_http2=False) for name in self._instances}
        self._routes = {name: route(name) for name in self._instances}
        self._listeners = {name: api_listener(name) for name in self._instances}
        self._listeners |= {door.name: listener(door) for door in doors}
        self._assignments: dict[str, dict[str, Resource]] = {
            name: {} for name in self._instances
        }  # each by zone
        self._views: dict[str, Snapshot] = {}  # by zone

    @property
    def unlisted(self) -> list[str]:
        """Services of which nothing is known yet."""
        return [name for name, instances in self._instances.items() if instances is None]

    @property
    def host_names(self) -> set[str]:
        """Of instances that have not announced an IP address."""
        hosts = {split_address(one.address)[0] for known in self._instances.values() for one in known or ()}
        return {host for host in hosts if not is_ip(host)}

    def put(self, service: str, instances: Sequence[Instance]) -> None:
        """instances: all that are ready or draining."""
        self._instances[service] = instances
        if instances:  # with nobody there, it stays what it was
            is_http2 = all(one.protocol.lower() in HTTP2 for one in instances)
            self._clusters[service] = cluster(service, is_http2=is_http2)
        self._forget(service)

    def resolve(self, ip_of: Mapping[str, str]) -> None:
        """Addresses of host names: replaces those that were known."""
        changed = {host for host in {*ip_of, *self._ip_of} if ip_of.get(host) != self._ip_of.get(host)}
        self._ip_of = dict(ip_of)
        for service, instances in self._instances.items():
            if any(split_address(one.address)[0] in changed for one in instances or ()):
                self._forget(service)

    def snapshot(self, zone: str = "") -> Snapshot | None:
        """As a client in this zone is to see it; None before everything has been listed."""
        if self.unlisted:
            return None
        near = zone if self._prefers_zone else ""
        if near not in self._views:
            if len(self._views) >= ZONES_MAX:
                self._views.clear()
            self._views[near] = {
                Kind.CLUSTER: dict(self._clusters),
                Kind.ENDPOINTS: {name: self._assignment(name, near) for name in self._instances},
                Kind.LISTENER: self._listeners,
                Kind.ROUTE: self._routes,
            }
        return self._views[near]

    def _forget(self, service: str) -> None:
        self._assignments[service].clear()
        self._views.clear()

    def _assignment(self, service: str, near: str) -> Resource:
        made = self._assignments[service]
        if near not in made:
            if len(made) >= ZONES_MAX:
                made.clear()
            found = endpoints(self._instances[service] or (), self._ip_of)
            made[near] = resource(service, assignment(service, found, near))
        return made[near]
