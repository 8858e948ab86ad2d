"""The protocol's messages, from and to what the streams speak. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from kvstore.routing.xds.kinds import Ask, Kind, Reply

ERROR_CHARACTERS_MAX = 2000
KINDS = {str(kind): kind for kind in Kind}


class Malformed(Exception):
    """Not a request at all; why."""


@dataclass(frozen=True, slots=True)
class Request:
    """ask: None when it is for a kind of resource that there is none of here. id, program, zone: of the node, which
    says so in its first request only; program with its version, where it tells."""

    type_url: str
    ask: Ask | None
    id: str = ""
    program: str = ""
    zone: str = ""


def read(data: bytes) -> Request:
    """A DiscoveryRequest. Raises Malformed."""
    message = _parsed(discovery_pb2.DiscoveryRequest(), data)
    return _request(message, names=tuple(message.resource_names))


def read_delta(data: bytes) -> Request:
    """A DeltaDiscoveryRequest. Raises Malformed."""
    message = _parsed(discovery_pb2.DeltaDiscoveryRequest(), data)
    return _request(
        message,
        names=tuple(message.resource_names_subscribe),
        gone=tuple(message.resource_names_unsubscribe),
        known=dict(message.initial_resource_versions),
    )


def write(reply: Reply) -> bytes:
    """A DiscoveryResponse."""
    message = discovery_pb2.DiscoveryResponse(
        version_info=reply.version,
        type_url=reply.kind,
        nonce=reply.nonce,
        resources=[any_pb2.Any(type_url=reply.kind, value=one.body) for one in reply.resources],
    )
    return message.SerializeToString()  # type: ignore[no-any-return]


def write_delta(reply: Reply) -> bytes:
    """A DeltaDiscoveryResponse."""
    message = discovery_pb2.DeltaDiscoveryResponse(
        system_version_info=reply.version,
        type_url=reply.kind,
        nonce=reply.nonce,
        removed_resources=reply.removed,
    )
    for one in reply.resources:
        added = message.resources.add(name=one.name, version=one.version)
        added.resource.type_url, added.resource.value = reply.kind, one.body
    return message.SerializeToString()  # type: ignore[no-any-return]


def _parsed(message: Any, data: bytes) -> Any:
    try:
        message.ParseFromString(data)
    except DecodeError as problem:
        raise Malformed(f"the request cannot be read: {problem}") from None
    if not message.type_url:
        raise Malformed("the request has no type_url")
    return message


def _request(message: Any, **fields: Any) -> Request:
    kind = KINDS.get(message.type_url)
    ask = None
    if kind is not None:
        error = ""
        if message.HasField("error_detail"):
            error = " ".join(message.error_detail.message.split())[:ERROR_CHARACTERS_MAX] or "no reason given"
        ask = Ask(kind, nonce=message.response_nonce, error=error, **fields)
    node = message.node
    return Request(message.type_url, ask, node.id, _program(node), node.locality.zone)


def _program(node: Any) -> str:
    name = node.user_agent_name
    if node.HasField("user_agent_build_version"):
        version = node.user_agent_build_version.version
        return f"{name} {version.major_number}.{version.minor_number}.{version.patch}"
    return f"{name} {node.user_agent_version}".strip()
