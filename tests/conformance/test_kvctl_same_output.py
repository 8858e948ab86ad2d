"""kvctl prints what etcdctl prints: the same commands, each program on a server of its own, both servers
started alike, and the same bytes on stdout and the same exit status after every step.

What differs by nature is named alike first: the ids of cluster and member, and the endpoints.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

import pytest

from kvstore.cli.main import main
from kvstore.client import Client
from tests.conformance.etcd_process import clean_environment, etcdctl_path, running_cluster

LEASES = {"7b": 0x7B, "2ee6": 0x2EE6}


@dataclass(frozen=True)
class Step:
    arguments: Sequence[str]
    stdin: bytes = b""

    def __str__(self) -> str:
        return " ".join(word or "''" for word in self.arguments)


@dataclass(frozen=True)
class Shown:
    stdout: bytes
    status: int
    stderr: bytes = b""


@dataclass(frozen=True)
class Side:
    """One program with its server."""

    endpoint: str
    names: Sequence[tuple[bytes, bytes]]

    def alike(self, text: bytes) -> bytes:
        for own, common in self.names:
            text = text.replace(own, common)
        return text


def run_etcdctl(side: Side, step: Step) -> Shown:
    words = [etcdctl_path(), "--endpoints", side.endpoint, *step.arguments]
    done = subprocess.run(words, input=step.stdin, capture_output=True, env=clean_environment(), timeout=20)
    return Shown(side.alike(done.stdout), done.returncode, side.alike(done.stderr))


def run_kvctl(side: Side, step: Step) -> Shown:
    """In this process: the start of a Python a step would be most of the test's time."""
    stdin, stdout, stderr = (io.TextIOWrapper(io.BytesIO(data)) for data in (step.stdin, b"", b""))
    with (
        mock.patch.object(sys, "stdin", stdin),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        mock.patch.dict(os.environ, clean_environment(), clear=True),
    ):
        status = main(["--endpoints", side.endpoint, *step.arguments])
        stdout.flush()
        stderr.flush()
    out, err = (stream.buffer.getvalue() for stream in (stdout, stderr))
    return Shown(side.alike(out), status, side.alike(err))


async def side(endpoint: str) -> Side:
    """Learns the ids of the server, and gives it the leases the steps use."""
    async with Client(endpoint) as client:
        for lease_id in LEASES.values():
            await client.lease_grant(600, lease_id)
        header = (await client.get("a")).header
        (member,) = await client.members()
    names = [
        (str(header.cluster_id).encode(), b"CLUSTER"),
        (str(header.member_id).encode(), b"MEMBER"),
        (f"{header.member_id:x}".encode(), b"MEMBER_HEX"),
        (endpoint.encode(), b"ENDPOINT"),
        (member.peer_urls[0].encode(), b"PEER"),
    ]
    return Side(endpoint, names)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    with running_cluster("etcd") as first, running_cluster("etcd") as second:
        yield [first.endpoints[0], second.endpoints[0]]


@pytest.fixture(scope="module")
def sides(servers: list[str]) -> tuple[Side, Side]:
    import asyncio

    async def both() -> tuple[Side, Side]:
        return await side(servers[0]), await side(servers[1])

    return asyncio.run(both())


def step(*arguments: str, stdin: bytes = b"") -> Step:
    return Step(arguments, stdin)


TXNS = [
    b'value("a") = "1"\nversion("b") > "0"\n\nput a 1\nget b\ndel c\n\nput a 2\nget b\ndel b --prev-kv\n\n',
    b'version("t") = "0"\n\nput t "two words"\nput u ""x\n\nget t\n\n',
    b'version("t") > "0"\nmod("t") > "1"\ncreate("t") != "1"\nvalue("t") < "z"\n\n'
    b'get t --keys-only\nget "" --prefix --limit=2 --order=DESCEND\nput t "a\\tb\\x41" --prev-kv\ndel u\n\n\n',
    b'ver("t") = "2"\nc("t") > "0"\nm("t") > "0"\nval("t") = "a\\tbA"\n\nget t\n\n\n',
    b"\n\n\n",
    b'version("l") = "1"\n\nget l\n\nget l --rev=1 --consistency=s\n\n',
    b'version("l") = "2"\n\nget l\n\nget l t\n\n',
    b"\nput `x` 1\n\n\n",
]

BAD_TXNS = [
    b"",
    b"\n",
    b"\nget a",
    b"bad\n\n\n\n",
    b'nosuch("a") = "1"\n\n\n\n',
    b"create(a) > 0\n\n\n\n",
    b'version("a") >1\n\n\n\n',
    b'mod("a") = "x"\n\n\n\n',
    b"\nbad a\n\n\n",
    b"\nput a\n\n\n",
    b"\nput\n\n\n",
    b"\nput a b --nosuch\n\n\n",
    b"\nput a b --lease=1f\n\n\n",
    b"\nput a 1\nput a 2\n\n\n",
    b"\nget a b --prefix\n\n\n",
    b"\nput a 1 --ignore-value\n\n\n",
]

STEPS = [
    step("put", "a", "1"),
    step("put", "a", "2", "--prev-kv"),
    step("put", "a", stdin=b"from\nstdin\n"),
    step("put", "a", "--ignore-value"),
    step("put", "a", "--ignore-lease", "3"),
    step("put", "nobody", "--ignore-value"),
    step("put", "b", "x\ty\x01é\u00ad\u2028<&>", "--prev-kv"),
    step("put", "l", "leased", "--lease=7b"),
    step("put", "l", "--lease", "7b", "--ignore-value", "--prev-kv"),
    step("put", "--", "-k", "-v"),
    step("put", "k", "--", "-5"),
    step("put", "a", "b", "c"),
    step("put", "a", "1", "--lease", "zz"),
    step("put", "a", "1", "--lease", "ffff"),
    step("put", "a", "1", "--ignore-value"),
    step("put"),
    step("put", "", "1"),
    step("put", "a"),
    step("get", "", "--prefix"),
    step("get", "a"),
    step("get", "a", "c", "--limit", "1"),
    step("get", "a", "b", "c"),
    step("get", "nobody"),
    step("get", "a", "--count-only"),
    step("get", "", "--prefix", "--keys-only"),
    step("get", "", "--from-key", "--keys-only"),
    step("get", "b", "--from-key"),
    step("get", "a", "--print-value-only"),
    step("get", "a", "--keys-only", "--print-value-only"),
    step("get", "b", "--hex"),
    step("--hex", "get", "b", "--hex=false"),
    step("get", "l", "--consistency", "s"),
    step("get", "a", "--rev", "3"),
    step("get", "", "--prefix=true", "--sort-by", "modify", "--order", "descend"),
    step("get", "", "--prefix", "--sort-by", "VALUE"),
    step("get", "", "--prefix", "--sort-by=version", "--order=ASCEND"),
    step("get", "", "--prefix", "--sort-by=create", "--limit=2"),
    step("get", "", "--prefix", "--order", "DESCEND"),
    step("get"),
    step("get", ""),
    step("get", "a", "b", "--prefix"),
    step("get", "a", "b", "--from-key"),
    step("get", "a", "--prefix", "--from-key"),
    step("get", "a", "--consistency", "x"),
    step("get", "a", "--order", "x"),
    step("get", "a", "--sort-by", "x"),
    step("get", "a", "--keys-only", "--count-only"),
    step("get", "a", "--rev", "999"),
    step("get", "a", "--command-timeout", "1m0.5s"),
    *(step("txn", stdin=text) for text in TXNS),
    *(step("txn", "-i", stdin=text) for text in TXNS[:2]),
    *(step("txn", stdin=text) for text in BAD_TXNS),
    step("txn", "x", stdin=b"\n\n\n"),
    step("lease", "list"),
    step("lease", "timetolive", "ffff"),
    step("lease", "keep-alive", "7b", "--once"),
    step("lease", "keep-alive", "--once", "ffff"),
    step("lease", "keep-alive", "ffff"),
    step("lease", "revoke", "ffff"),
    step("lease", "revoke", "zz"),
    step("lease", "revoke"),
    step("lease", "grant"),
    step("lease", "grant", "x"),
    step("lease", "grant", "99999999999"),
    step("lease", "timetolive"),
    step("member", "list"),
    step("alarm", "list"),
    step("alarm", "list", "x"),
    step("watch"),
    step("watch", "--prefix", "a", "b"),
    step("watch", "b", "a"),
    step("del", "k"),
    step("del", "k"),
    step("del", "a", "b", "--prev-kv"),
    step("del"),
    step("del", "a", "b", "c"),
    step("del", "a", "--prefix", "--from-key"),
    step("del", "", "--prefix", "--prev-kv"),
    step("compaction"),
    step("compaction", "x"),
    step("compaction", "999"),
]

LAST_STEPS = [
    step("put", "a", "1"),
    step("compaction", "5"),
    step("compaction", "5"),
    step("compaction", "6", "--physical"),
    step("get", "a", "--rev", "2"),
    step("watch", "a", "--rev", "2"),
]

# Sizes on disk differ between two servers that hold the same, so these run against one.
ENDPOINT_STEPS = [
    step("endpoint", "status"),
    step("endpoint", "status", "--cluster"),
    step("endpoint", "hashkv"),
    step("endpoint", "hashkv", "--rev", "4"),
    step("member", "list"),
]


def differences(
    sides: tuple[Side, Side], steps: Sequence[Step], *, common: Sequence[str] = (), errors: bool = False
) -> list[str]:
    """Runs the steps on both sides. errors: compare stderr too, as far as it is etcdctl's own last line."""
    found = []
    for each in steps:
        made = Step([*common, *each.arguments], each.stdin)
        expected, actual = run_etcdctl(sides[0], made), run_kvctl(sides[1], made)
        if (expected.stdout, expected.status) != (actual.stdout, actual.status):
            found.append(f"{made} {each.stdin!r}\n  etcdctl {expected}\n  kvctl   {actual}")
        elif errors and expected.status and last_line(expected) != last_line(actual):
            found.append(
                f"{made} {each.stdin!r}\n  etcdctl {last_line(expected)!r}\n  kvctl   {last_line(actual)!r}"
            )
    return found


def last_line(shown: Shown) -> bytes:
    """What follows a semicolon is detail, and kvctl's is the more helpful."""
    return shown.stderr.rstrip(b"\n").rpartition(b"\n")[2].partition(b"; ")[0]


@pytest.mark.parametrize("write_out", ["simple", "json", "fields"])
def test_same_output(sides: tuple[Side, Side], write_out: str) -> None:
    steps = STEPS if write_out != "json" else [s for s in STEPS if "hex" not in str(s)]
    found = differences(sides, steps, common=("-w", write_out), errors=write_out == "simple")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("write_out", ["simple", "json", "fields", "table"])
def test_same_endpoint_output(sides: tuple[Side, Side], write_out: str) -> None:
    found = differences((sides[0], sides[0]), ENDPOINT_STEPS, common=("-w", write_out))
    assert not found, "\n".join(found)


def test_same_output_after_compaction(sides: tuple[Side, Side]) -> None:
    for write_out in ("simple", "json", "fields"):
        steps = LAST_STEPS if write_out == "simple" else LAST_STEPS[3:]
        found = differences(sides, steps, common=("-w", write_out))
        assert not found, "\n".join(found)
