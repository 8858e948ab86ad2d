"""The stored form of an instance: what is written, what is accepted, what is refused and why."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.readiness.instance import (
    Instance,
    InvalidInstance,
    State,
    check_name,
    decode,
    default_id,
    encode,
    prefix,
    split_address,
)

WEB = Instance(
    service="web", id="a-1", address="10.0.0.5:8080", zone="z1", tags=("blue",), since_ms=1_769_860_800_123
)


def document(**changes: Any) -> bytes:
    fields = {**json.loads(encode(WEB)), **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def test_the_stored_form_is_this_and_stays_this() -> None:
    assert encode(WEB) == (
        b'{"version":1,"service":"web","id":"a-1","address":"10.0.0.5:8080","protocol":"http","weight":100,'
        b'"zone":"z1","tags":["blue"],"state":"ready","since":"2026-01-31T12:00:00.123Z"}'
    )
    assert WEB.key == b"/kvstore/services/web/a-1"
    assert decode(WEB.key, encode(WEB)) == WEB


def test_what_a_later_version_adds_is_skipped() -> None:
    read = decode(WEB.key, document(version=7, colour="green", zone=..., weight=...))
    assert (read.address, read.zone, read.weight) == ("10.0.0.5:8080", "", 100)


def test_a_state_of_a_later_version_is_not_routed_to() -> None:
    read = decode(WEB.key, document(state="warming"))
    assert read.state is State.UNKNOWN
    assert not read.is_ready


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"version": ...}, "version"),
        ({"version": 0}, "version"),
        ({"version": True}, "version"),
        ({"version": "1"}, "version"),
        ({"service": "other"}, "id"),
        ({"id": "a-2"}, "id"),
        ({"address": ...}, "address"),
        ({"address": 8080}, "address"),
        ({"weight": "1"}, "weight"),
        ({"weight": 257}, "weight"),
        ({"weight": -1}, "weight"),
        ({"tags": "blue"}, "tags"),
        ({"tags": [1]}, "tags"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-01-31T12:00:00"}, "since"),
        ({"protocol": "a b"}, "protocol"),
    ],
)
def test_what_is_wrong_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInstance) as caught:
        decode(WEB.key, document(**changes))
    assert caught.value.field == field


@given(st.binary(max_size=60))
def test_any_other_bytes_are_refused_and_nothing_else_happens(value: bytes) -> None:
    with pytest.raises(InvalidInstance):
        decode(WEB.key, value)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8080", ("::1", 8080)),
        ("web-1.internal:65535", ("web-1.internal", 65535)),
    ],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address",
    ",host,:80,host:,host:0,host:65536,host:٣,::1:80,[::1],0.0.0.0:80,[::]:80,1.2.3:80,1.2.3.4.5:80,224.0.0.1:80,"
    "-a:80,a..b:80,host:80/path,[x]:80,a b:80".split(","),
)
def test_impossible_addresses(address: str) -> None:
    with pytest.raises(InvalidInstance) as caught:
        split_address(address)
    assert caught.value.field == "address"


@pytest.mark.parametrize("name", ["", "a/b", "a b", ".hidden", "ä", "x" * 129, "a\n"])
def test_names_cannot_leave_their_place_in_the_key(name: str) -> None:
    with pytest.raises(InvalidInstance):
        check_name("service", name)


def test_one_service_is_not_the_prefix_of_another() -> None:
    assert not prefix("web2").startswith(prefix("web"))


@pytest.mark.parametrize(
    ("address", "name"), [("10.0.0.5:80", "10.0.0.5:80"), ("[::1]:80", "v6:::1:80"), ("web-1:80", "web-1:80")]
)
def test_the_default_id_is_a_name(address: str, name: str) -> None:
    assert check_name("id", default_id(address)) == name == default_id(address)
