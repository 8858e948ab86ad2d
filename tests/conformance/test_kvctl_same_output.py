"""kvctl prints what etcdctl prints: the same commands, each program on a server of its own, both servers
started alike, and the same bytes on stdout and the same exit status after every step.

What differs by nature is named alike first: the ids of cluster and member, and the endpoints.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

import pytest

from kvstore.cli.main import main
from kvstore.client import Client
from kvstore.client.methods import ALARM
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.conformance.etcd_process import clean_environment, etcdctl_path, running_cluster
from tests.conformance.kvctl_steps import (
    ALARM_STEPS,
    BAD_AUTH_STEPS,
    ENDPOINT_STEPS,
    LAST_STEPS,
    PROTOBUF_READS,
    PROTOBUF_STEPS,
    STEPS,
    Step,
    auth_steps,
    one_of_each,
)

LEASES = {"7b": 0x7B, "2ee6": 0x2EE6}


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
    ids: bytes  # as they begin a header in protobuf

    def alike(self, text: bytes) -> bytes:
        for own, common in self.names:
            text = text.replace(own, common)
        return re.sub(b"(?s)(\n.)?" + re.escape(self.ids), b"IDS", text)  # with the length of their message


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
    ids = pb.ResponseHeader(cluster_id=header.cluster_id, member_id=header.member_id)
    return Side(endpoint, names, ids.SerializeToString())


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    with running_cluster("etcd") as first, running_cluster("etcd") as second:
        yield [first.endpoints[0], second.endpoints[0]]


@pytest.fixture(scope="module")
def sides(servers: list[str]) -> tuple[Side, Side]:
    return two_sides(servers)


def two_sides(servers: list[str]) -> tuple[Side, Side]:
    async def both() -> tuple[Side, Side]:
        return await side(servers[0]), await side(servers[1])

    return asyncio.run(both())


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


@pytest.mark.parametrize("write_out", ["simple", "json", "fields", "protobuf"])
def test_same_auth_output(sides: tuple[Side, Side], write_out: str) -> None:
    steps = auth_steps(write_out)
    steps = [*steps, *BAD_AUTH_STEPS] if write_out == "simple" else one_of_each(steps)
    found = differences(sides, steps, common=("-w", write_out), errors=True)
    assert not found, "\n".join(found)


def test_same_auth_output_with_ours() -> None:
    """The server is ours on both sides."""
    with running_cluster("kvstore") as first, running_cluster("kvstore") as second:
        ours = two_sides([first.endpoints[0], second.endpoints[0]])
        found = differences(ours, one_of_each(auth_steps("ours")), errors=True)
        assert not found, "\n".join(found)


def test_same_protobuf_output(sides: tuple[Side, Side]) -> None:
    found = differences(sides, PROTOBUF_STEPS, common=("-w", "protobuf"), errors=True)
    found += differences((sides[0], sides[0]), PROTOBUF_READS, common=("-w", "protobuf"), errors=True)
    assert not found, "\n".join(found)


async def raise_alarm(sides: Sequence[Side]) -> None:
    for each in sides:
        async with Client(each.endpoint) as client:
            (member,) = await client.members()
            full = pb.AlarmRequest(
                action=pb.AlarmRequest.ACTIVATE, memberID=member.id, alarm=pb.AlarmType.NOSPACE
            )
            await client.caller.write(ALARM, full)


async def test_same_output_with_an_alarm(sides: tuple[Side, Side]) -> None:
    await raise_alarm(sides)
    found = await asyncio.to_thread(differences, sides, ALARM_STEPS, errors=True)
    assert not found, "\n".join(found)
