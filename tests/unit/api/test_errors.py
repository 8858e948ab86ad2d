"""The table of errors beside etcd's own list of texts and codes, on which clients match."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore
from kvstore import errors
from kvstore.api.errors import TABLE, status_of
from kvstore.rpc import Status

ROOT = Path(kvstore.__file__).parent
COMPATIBILITY = ROOT.parent / "docs" / "compatibility.md"
TEXTS = {
    Status.INVALID_ARGUMENT: (
        "key is not provided",
        "key not found",
        "value is provided",
        "lease is provided",
        "too many operations in txn request",
        "duplicate key given in txn request",
        "invalid sort option",
        "given member URLs are invalid",
        "request is too large",
        "user name is empty",
        "role name is empty",
        "authentication failed, invalid user ID or password",
        "permission not given",
        "invalid auth management",
        "revision of auth store is old",
        "wrong downgrade target version format",
        "invalid downgrade target version",
    ),
    Status.OUT_OF_RANGE: (
        "mvcc: required revision has been compacted",
        "mvcc: required revision is a future revision",
        "too large lease TTL",
    ),
    Status.NOT_FOUND: ("requested lease not found", "member not found"),
    Status.RESOURCE_EXHAUSTED: ("mvcc: database space exceeded", "too many requests"),
    Status.PERMISSION_DENIED: ("permission denied",),
    Status.UNAUTHENTICATED: ("invalid auth token",),
    Status.DATA_LOSS: ("corrupt cluster",),
    Status.FAILED_PRECONDITION: (
        "lease already exists",
        "member ID already exist",
        "Peer URLs already exists",
        "can only promote a learner member",
        "can only promote a learner member which is in sync with leader",
        "too many learner members in cluster",
        "re-configuration failed due to not enough started members",
        "root user does not exist",
        "root user does not have root role",
        "user name already exists",
        "user name not found",
        "role name already exists",
        "role name not found",
        "role is not granted to the user",
        "permission is not granted to the role",
        "authentication is not enabled",
        "not leader",
        "bad leader transferee",
        "no inflight downgrade job",
    ),
    Status.UNAVAILABLE: (
        "no leader",
        "server stopped",
        "request timed out",
        "request timed out, possibly due to previous leader failure",
        "request timed out, possibly due to connection lost",
        "request timed out, leader transfer took too long",
        "unhealthy cluster",
    ),
}
"""What is said here, by the code that etcd declares; "invalid client api version" is the wire's (test_headers)."""
NOT_SAID = {
    "leader changed",
    "rpc not supported for learner",
    "not capable",
    "cluster version not found during downgrade",
    "cluster has a downgrade job in progress",
    "request timed out, waiting for the applied index took too long",
    "cluster ID mismatch",
    "watch canceled",
    "request canceled",
    "not a primary lessor",
}


def rows() -> dict[str, Status]:
    return {text: code for code, texts in TEXTS.items() for text in texts}


def test_the_table_says_etcds_texts_with_etcds_codes() -> None:
    prefix = "etcdserver: "
    table = {text.removeprefix(prefix): code for code, text in TABLE.values() if text.startswith(prefix)}
    assert table == rows()


def test_what_is_not_said_is_explained() -> None:
    assert not NOT_SAID & rows().keys()
    told = (
        COMPATIBILITY.read_text().partition("Texts of etcd's that are not said here")[2].partition("\n\n|")[2]
    )
    table = told.partition("\n\n")[0]
    assert {text for text in NOT_SAID if f"`{text}`" in table} == NOT_SAID


def kinds() -> list[type[errors.StoreError]]:
    found = vars(errors).values()
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, errors.StoreError)]


GENERAL = (errors.StoreError, errors.InvalidRequest)
"""Bases, never raised themselves."""


@pytest.mark.parametrize(
    "kind", [kind for kind in kinds() if kind not in GENERAL], ids=lambda kind: kind.__name__
)
def test_every_error_has_a_code_and_a_text_of_its_own(kind: type[errors.StoreError]) -> None:
    words = {
        "InvalidAnnouncement": "why",
        "InvalidQuota": "why",
        "PrefixQuotaExceeded": "why",
        "OlderMembers": [1],
    }
    code, text = status_of(kind(*[words[kind.__name__]] if kind.__name__ in words else []))
    assert code not in (Status.OK, Status.UNKNOWN)
    assert text.startswith(("etcdserver: ", "kvstore: "))


def named() -> Iterator[str]:
    """Every name that the program reads off kvstore.errors, but where the table does."""
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        if path == ROOT / "api" / "errors.py" or "from kvstore import errors" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "errors"
            ):
                yield node.attr


def test_every_error_is_said_by_somebody() -> None:
    assert {kind.__name__ for kind in kinds()} - set(named()) == {"InvalidRequest"}
