"""Traefik's own schema of keys, as its etcd provider reads it. Pure.

    traefik/http/services/SERVICE/loadbalancer/servers/ID/{url,weight}    one instance's
    traefik/http/services/SERVICE/loadbalancer/passhostheader             all instances'
    traefik/http/routers/SERVICE/{rule,service,entrypoints/N}             likewise

What is named N or ID is an element of a list to Traefik, whatever its name.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.readiness.instance import Instance

ROOT = "traefik/http"
SCHEMES = ("http", "https", "h2c")


@dataclass(frozen=True, slots=True)
class Route:
    """rule: in Traefik's words. entrypoints: of Traefik; none: its default ones."""

    rule: str
    entrypoints: tuple[str, ...] = ()


def server_prefix(instance: Instance) -> str:
    return f"{ROOT}/services/{instance.service}/loadbalancer/servers/{instance.id}/"


def server_keys(instance: Instance) -> dict[str, str]:
    """Of a protocol that is one of SCHEMES."""
    prefix = server_prefix(instance)
    url = f"{instance.protocol}://{instance.address}"
    return {f"{prefix}url": url, f"{prefix}weight": str(instance.weight)}


def shared_keys(service: str, route: Route) -> dict[str, str]:
    router = f"{ROOT}/routers/{service}"
    keys = {
        f"{ROOT}/services/{service}/loadbalancer/passhostheader": "true",
        f"{router}/rule": route.rule,
        f"{router}/service": service,
    }
    return keys | {f"{router}/entrypoints/{number}": name for number, name in enumerate(route.entrypoints)}


def gaps(prefix: str, keys: list[str]) -> list[tuple[str, str]]:
    """The half-open ranges of all keys with the prefix, a directory's, that are not among the given ones."""
    edges = [prefix, *(edge for key in sorted(keys) for edge in (key, f"{key}\0")), prefix[:-1] + "0"]
    pairs = zip(edges[::2], edges[1::2])
    return [(first, end) for first, end in pairs if first != end]
