"""What a container's labels ask for. Pure.

    kvstore.service   the service's name: with it the container is announced, without it left alone
    kvstore.port      the container's own port; may be left out where it exposes exactly one
    kvstore.network   reached at its address in this network, and not at a published port
    kvstore.id        the instance's name in the service, its address where it is left out
    kvstore.protocol, kvstore.weight, kvstore.zone, kvstore.tags (with commas between)
    kvstore.check     asked besides the engine's health check: tcp, /PATH, http://…, grpc…; not cmd, file, notify

A label of this prefix that is not one of these is told of and has no effect.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from kvstore.readiness.instance import DEFAULT_WEIGHT, MAX_WEIGHT, InvalidInstance, check_name

PREFIX = "kvstore."
SERVICE = PREFIX + "service"
NAMES = tuple(
    PREFIX + name
    for name in "service port network id protocol weight zone tags check".split()  # as above
)
ON_THE_HOST = ("cmd", "file", "notify")  # they would run where the engine is, as whoever announces


class InvalidLabel(ValueError):
    """The text names the label."""


@dataclass(frozen=True, slots=True)
class Wish:
    """port: 0 where it is to be found out; id, network, check: "" where nothing is said."""

    service: str
    port: int = 0
    network: str = ""
    id: str = ""
    protocol: str = "http"
    weight: int = DEFAULT_WEIGHT
    zone: str = ""
    tags: tuple[str, ...] = ()
    check: str = ""


def wants(labels: Mapping[str, str]) -> bool:
    return SERVICE in labels


def read_labels(labels: Mapping[str, str]) -> Wish:
    """Raises InvalidLabel."""
    said = {name: labels[name].strip() for name in NAMES if name in labels}

    def text(name: str, default: str = "") -> str:
        return said.get(PREFIX + name, default)

    try:
        check_name(SERVICE, text("service"))
    except InvalidInstance as problem:
        raise InvalidLabel(str(problem)) from None
    check = text("check")
    if check.partition(":")[0] in ON_THE_HOST:
        raise InvalidLabel(
            f"{PREFIX}check: {check!r} would run outside of the container; make it the image's HEALTHCHECK"
        )
    return Wish(
        service=text("service"),
        port=_number(said, "port", 1, 65535, 0),
        network=text("network"),
        id=text("id"),
        protocol=text("protocol", "http"),
        weight=_number(said, "weight", 0, MAX_WEIGHT, DEFAULT_WEIGHT),
        zone=text("zone"),
        tags=tuple(tag.strip() for tag in text("tags").split(",") if tag.strip()),
        check="" if check == "none" else check,
    )


def unknown(labels: Mapping[str, str]) -> list[str]:
    """A line for each label that looks like ours and is not."""
    lines = []
    for name in sorted(labels):
        if name.startswith(PREFIX) and name not in NAMES:
            words = [each.removeprefix(PREFIX) for each in NAMES]
            near = difflib.get_close_matches(name.removeprefix(PREFIX), words, 1)
            lines.append(f"label {name} means nothing" + (f"; {PREFIX}{near[0]}?" if near else ""))
    return lines


def _number(said: Mapping[str, str], name: str, least: int, most: int, default: int) -> int:
    text = said.get(PREFIX + name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 11 and least <= int(text) <= most):
        raise InvalidLabel(f"{PREFIX}{name}: {text!r} is not a number from {least} to {most}")
    return int(text)
