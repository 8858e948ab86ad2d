"""The kinds of resources, and a snapshot of all of them. Pure.

A resource's version is a hash of its content. So two control planes that see the same instances say the same
versions, and a client that comes back after a restart finds that nothing has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

_TYPE = "type.googleapis.com/envoy.config."
EVERYTHING = "*"


class Kind(StrEnum):
    """By type URL, in the order in which they are sent: who is referred to comes before who refers to it, as far
    as clients can follow (a cluster is asked for its endpoints, a listener for its routes)."""

    CLUSTER = _TYPE + "cluster.v3.Cluster"
    ENDPOINTS = _TYPE + "endpoint.v3.ClusterLoadAssignment"
    LISTENER = _TYPE + "listener.v3.Listener"
    ROUTE = _TYPE + "route.v3.RouteConfiguration"

    @property
    def is_whole(self) -> bool:
        """An answer of this kind says everything the client may have of it: what it lacks is deleted. Of the other
        kinds an answer says only what has changed. (State of the world only.)"""
        return self in (Kind.CLUSTER, Kind.LISTENER)

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Resource:
    """body: the encoded message. is_named_only: not among those that a client gets which asks for everything."""

    name: str
    version: str
    body: bytes
    is_named_only: bool = False


def resource(name: str, body: bytes, *, is_named_only: bool = False) -> Resource:
    return Resource(name, digest(body), body, is_named_only)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


Snapshot = Mapping[Kind, Mapping[str, Resource]]  # every kind is there, perhaps empty


@dataclass(frozen=True, slots=True)
class Ask:
    """A DiscoveryRequest or DeltaDiscoveryRequest, as far as it matters.

    names: state of the world: all that are subscribed to; incremental: those that come to it. gone: incremental
    only, those that are not subscribed to any more. known: incremental only, name to version of what the client
    brings from an earlier stream. error: why the answer with this nonce was refused, "" when it was not.
    """

    kind: Kind
    names: tuple[str, ...] = ()
    nonce: str = ""
    error: str = ""
    gone: tuple[str, ...] = ()
    known: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """removed: incremental only, names that are not there (any more)."""

    kind: Kind
    version: str
    nonce: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A client's NACK. names: what the answer it refused was about, as far as that is still known; pause_s: for how
    long no other version of this kind is pushed to it."""

    kind: Kind
    names: tuple[str, ...]
    error: str
    pause_s: float


class TooManyNames(Exception):
    """A client subscribes to more than is remembered for it."""


NAMES_MAX = 10_000  # of one kind, on one stream
