"""Who may call: hosts and origins."""

from __future__ import annotations

import pytest

from kvstore.http.access import AccessControl, host_refusal, hostname


def test_everybody_by_default() -> None:
    access = AccessControl(origins=("*",), hosts=("*",))
    assert access.host_allowed("") and access.host_allowed("anything:1") and access.origin_allowed("http://a")
    assert access.cors_headers("")["Access-Control-Allow-Origin"] == "*"
    assert AccessControl(origins=(), hosts=()).host_allowed("x")  # a list left empty allows, as etcd's does


def test_hosts_are_compared_without_their_port() -> None:
    access = AccessControl(origins=("*",), hosts=("db.example", "::1"))
    assert (
        access.host_allowed("db.example:2379")
        and access.host_allowed("[::1]:2379")
        and access.host_allowed("[::1]")
    )
    assert not access.host_allowed("evil.example:2379") and not access.host_allowed("")
    assert "--host-whitelist=evil.example" in host_refusal("evil.example:2379")


@pytest.mark.parametrize(
    ("host", "name"),
    [("a:1", "a"), ("a", "a"), ("[::1]:2379", "::1"), ("[::1]", "::1"), ("a:b", "a:b"), ("", "")],
)
def test_hostname(host: str, name: str) -> None:
    assert hostname(host) == name


def test_named_origins_are_answered_by_name_and_others_get_no_headers() -> None:
    access = AccessControl(origins=("http://a",), hosts=("*",))
    headers = access.cors_headers("http://a")
    assert headers["Access-Control-Allow-Origin"] == "http://a" and headers["Vary"] == "Origin"
    assert access.cors_headers("http://b") == access.cors_headers("") == {}
    assert not access.origin_allowed("http://b")
