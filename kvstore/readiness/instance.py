"""What the store holds about one instance of a service: key, value, and the rules for both.

Key:    /kvstore/services/SERVICE/INSTANCE
Value:  one JSON object, version 1:

    {"version":1,"service":"web","id":"10.0.0.5:8080","address":"10.0.0.5:8080","protocol":"http","weight":100,
     "zone":"","tags":[],"state":"ready","since":"2026-01-31T12:00:00.000Z","host":"machine-7"}

host is where its announcer runs, for people: left out where that is not known.

Reading is strict about what it knows and indifferent to what it does not: a field of the wrong type or range
is refused with its reason, a field it has never heard of is skipped, a state it has never heard of is read as
UNKNOWN, which nobody routes to. A later version may add fields and states; it may not change what these mean.
The key is part of the statement: service and id in the value must agree with it.

Key:    /kvstore/services/SERVICE/INSTANCE/drain
Value:  {"version":1,"since":"2026-01-31T12:00:00.000Z"}; that it is there is what counts

An order: the instance gets nothing new for as long as this key is there, whatever it says of itself.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

VERSION = 1
ROOT = "/kvstore/services/"
DEFAULT_WEIGHT = 100
MAX_WEIGHT = 256  # HAProxy's; a weight of 0 means: ready, and not to be sent anything
MAX_TAGS = 64
_DRAIN = b"/drain"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


class InvalidInstance(ValueError):
    """field: which part is wrong; reason: what is wrong with it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"
    UNKNOWN = "unknown"  # only ever read, never written


@dataclass(frozen=True, slots=True)
class Instance:
    """since_ms: when this state began, in milliseconds of Unix time. weight: 0 to MAX_WEIGHT."""

    service: str
    id: str
    address: str
    protocol: str = "http"
    weight: int = DEFAULT_WEIGHT
    zone: str = ""
    tags: tuple[str, ...] = ()
    state: State = State.READY
    since_ms: int = 0
    host: str = ""

    @property
    def key(self) -> bytes:
        return prefix(self.service) + self.id.encode()

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY


def prefix(service: str) -> bytes:
    """Every instance of the service has a key that begins with this, and nothing else has."""
    return f"{ROOT}{check_name('service', service)}/".encode()


def id_from_key(key: bytes) -> str:
    return key.rpartition(b"/")[2].decode(errors="replace")


def drain_key(key: bytes) -> bytes:
    """Where the order to drain the instance of this key stands."""
    return key + _DRAIN


def drained_key(key: bytes) -> bytes | None:
    """The instance's key, of an order's; None for any other key. An instance's name has no slash."""
    return (
        key.removesuffix(_DRAIN) if key.endswith(_DRAIN) and key.count(b"/") > ROOT.count("/") + 1 else None
    )


def drain_order(now_ms: int) -> bytes:
    return json.dumps({"version": VERSION, "since": _format_time(now_ms)}, separators=(",", ":")).encode()


def default_id(address: str) -> str:
    """The address, as a name. Announcing the same address again is therefore the same instance."""
    name = re.sub(r"[^A-Za-z0-9._:-]", "", address)
    return f"v6:{name}" if address.startswith("[") else name


def check_name(field: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInstance(
            field,
            f"{name!r} is not a name: a letter or digit, then up to 127 letters, digits, '.', '_', ':' or '-'",
        )
    return name


def split_address(address: str) -> tuple[str, int]:
    """("10.0.0.5", 8080) of "10.0.0.5:8080"; the brackets of an IPv6 address are taken off."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or address.endswith("]"):
        raise InvalidInstance("address", f"{address!r} is not HOST:PORT")
    if not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= 65535:
        raise InvalidInstance("address", f"{address!r}: {port!r} is not a port from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return _check_ip(address, host[1:-1]), int(port)
    if ":" in host:
        raise InvalidInstance("address", f"{address!r}: write an IPv6 address in brackets, [::1]:8080")
    if re.fullmatch(r"[0-9.]+", host):
        return _check_ip(address, host), int(port)
    if len(host) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in host.rstrip(".").split(".")):
        raise InvalidInstance("address", f"{address!r}: {host!r} is not a host name")
    return host, int(port)


def _check_ip(address: str, text: str) -> str:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidInstance("address", f"{address!r}: {text!r} is not an IP address") from None
    if ip.is_unspecified or ip.is_multicast or str(ip) == "255.255.255.255":
        raise InvalidInstance("address", f"{address!r}: nobody can connect to {text}")
    return text


def check(instance: Instance) -> Instance:
    """The instance itself, when every field of it is allowed."""
    check_name("service", instance.service)
    check_name("id", instance.id)
    split_address(instance.address)
    check_name("protocol", instance.protocol)
    if not 0 <= instance.weight <= MAX_WEIGHT:
        raise InvalidInstance("weight", f"{instance.weight} is not from 0 to {MAX_WEIGHT}")
    if len(instance.tags) > MAX_TAGS:
        raise InvalidInstance("tags", f"{len(instance.tags)} tags, at most {MAX_TAGS} are kept")
    return instance


def encode(instance: Instance) -> bytes:
    check(instance)
    fields = {
        "version": VERSION,
        "service": instance.service,
        "id": instance.id,
        "address": instance.address,
        "protocol": instance.protocol,
        "weight": instance.weight,
        "zone": instance.zone,
        "tags": list(instance.tags),
        "state": instance.state.value,
        "since": _format_time(instance.since_ms),
    }
    if instance.host:
        fields["host"] = instance.host
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def decode(key: bytes, value: bytes) -> Instance:
    """Raises InvalidInstance; never anything else, whatever the bytes are."""
    try:
        fields = json.loads(value)
    except (ValueError, RecursionError):
        raise InvalidInstance("value", "not JSON") from None
    if not isinstance(fields, dict):
        raise InvalidInstance("value", "not a JSON object")
    if _take(fields, "version", int, None) < 1:
        raise InvalidInstance("version", "not a positive number")
    instance = check(
        Instance(
            service=_take(fields, "service", str, None),
            id=_take(fields, "id", str, None),
            address=_take(fields, "address", str, None),
            protocol=_take(fields, "protocol", str, "http"),
            weight=_take(fields, "weight", int, DEFAULT_WEIGHT),
            zone=_take(fields, "zone", str, ""),
            tags=_tags(fields),
            state=_state(_take(fields, "state", str, State.READY.value)),
            since_ms=_parse_time(_take(fields, "since", str, "")),
            host=_take(fields, "host", str, ""),
        )
    )
    if instance.key != key:
        raise InvalidInstance("id", f"the value says {instance.key!r}, the key is {key!r}")
    return instance


def _take(fields: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = fields.get(name, default)
    if value is None:
        raise InvalidInstance(name, "missing")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidInstance(name, f"{value!r} is not {'a number' if kind is int else 'text'}")
    return value


def _tags(fields: dict[str, Any]) -> tuple[str, ...]:
    tags = fields.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidInstance("tags", "not a list of texts")
    return tuple(tags)


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError:
        return State.UNKNOWN


def _format_time(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


def _parse_time(text: str) -> int:
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInstance("since", f"{text!r} is not a time in RFC 3339") from None
    if moment.tzinfo is None:
        raise InvalidInstance("since", f"{text!r} has no time zone")
    return round(moment.timestamp() * 1000)
