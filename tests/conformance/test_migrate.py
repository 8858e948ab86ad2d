"""kvctl migrate from a running etcd into a running cluster of ours, while the source goes on changing."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.cluster.harness import wait_for
from tests.conformance.etcd_process import clean_environment, running_cluster
from tests.conformance.snapshots import KVCTL, Calls, contents, populate

LIMIT_S = 30


class Pair:
    """The old store and the new one, and the program between them."""

    def __init__(self, source: str, target: str, folder: Path) -> None:
        self._endpoints = (source, target)
        self.source, self.target = Calls(source), Calls(target)
        self.state = folder / "state.json"

    def start(self, *more: str) -> subprocess.Popen[str]:
        source, target = self._endpoints
        command = [*KVCTL, "migrate", "--from", f"http://{source}", "--endpoints", target]
        return subprocess.Popen(
            [*command, "--state", str(self.state), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )

    def run(self, *more: str) -> tuple[int, str, str]:
        process = self.start(*more)
        out, errors = process.communicate(timeout=LIMIT_S)
        return process.returncode, out, errors

    def pairs(self, calls: Calls) -> list[tuple[bytes, bytes, int]]:
        return [(kv.key, kv.value, kv.lease) for kv in calls.everything().kvs]

    def leases(self, calls: Calls) -> dict[int, int]:
        listed = calls("Lease/LeaseLeases", pb.LeaseLeasesRequest(), pb.LeaseLeasesResponse).leases
        found = {}
        for each in listed:
            request = pb.LeaseTimeToLiveRequest(ID=each.ID)
            status = calls("Lease/LeaseTimeToLive", request, pb.LeaseTimeToLiveResponse)
            found[each.ID] = status.grantedTTL
        return found

    def assert_equal(self) -> None:
        assert self.pairs(self.source) == self.pairs(self.target)
        assert self.leases(self.source) == self.leases(self.target)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_cluster("etcd") as old, running_cluster("kvstore") as new:
        made = Pair(old.endpoints[0], new.endpoints[0], tmp_path_factory.mktemp("migrate"))
        yield made
        made.source.close()
        made.target.close()


def test_copied_then_followed_until_told_to_stop(pair: Pair) -> None:
    """Puts, deletes, transactions, leases granted, revoked and expired at the source all the while."""
    populate(pair.source)
    random_ = random.Random(5)
    process = pair.start("--follow")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Moving from ")
    short = pb.LeaseGrantRequest(ID=77, TTL=2)
    pair.source("Lease/LeaseGrant", short, pb.LeaseGrantResponse)
    pair.source.put(b"short", b"lived", 77)
    for number in range(300):
        key = b"w%d" % random_.randrange(50)
        if number % 5:
            pair.source.put(key, b"%d" % number, random_.choice([0, 7, 0x1234ABCD]))
        else:
            pair.source.delete(key)
        if number == 150:
            pair.source("Lease/LeaseGrant", pb.LeaseGrantRequest(ID=78, TTL=500), pb.LeaseGrantResponse)
            pair.source.put(b"late", b"lease", 78)
    pair.source("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=78), pb.LeaseRevokeResponse)
    puts = [pb.RequestOp(request_put=pb.PutRequest(key=b"many%d" % i)) for i in range(128)]
    pair.source("KV/Txn", pb.TxnRequest(success=puts), pb.TxnResponse)
    wait_for(lambda: b"short" not in [kv.key for kv in pair.source.everything().kvs], "etcd ends the lease")
    wait_for(lambda: json.loads(pair.state.read_text())["copied"], "what was there is copied")
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, errors) == (0, ""), out
    assert out.endswith("Equal: keys, values and leases.\n")
    assert "2 roles, 2 users: reader, root" in out
    users = [
        contents(calls, calls.everything().header.revision).users for calls in (pair.source, pair.target)
    ]
    assert users[0] == users[1]
    assert not pair.state.exists()
    pair.assert_equal()


def test_a_target_that_is_not_empty_is_left_alone_unless_forced(pair: Pair) -> None:
    """Forced, it is made equal: what was changed, what is missing, and what the source never had."""
    pair.source.put(b"k0", b"of the source", 7)
    pair.target.put(b"k0", b"of the target")
    pair.target.put(b"foreign", b"goes")
    status, _, errors = pair.run()
    assert status == 1
    assert "--force" in errors
    assert (b"foreign", b"goes", 0) in pair.pairs(pair.target)
    pair.target.delete(b"k1", b"k3")
    status, out, errors = pair.run("--force")
    assert (status, errors) == (0, ""), out
    pair.assert_equal()


def test_it_goes_on_where_it_was_or_begins_anew_where_that_is_compacted(pair: Pair) -> None:
    """A state file says what was done; one of other clusters is refused."""
    ids = [f"{calls.everything().header.cluster_id:x}" for calls in (pair.source, pair.target)]
    revision = pair.source.everything().header.revision
    entry = {"source": ids[0], "target": ids[1], "revision": revision, "next_key": "", "copied": True}
    pair.state.write_text(json.dumps(entry))
    pair.source.put(b"since", b"then")
    status, out, errors = pair.run()
    assert (status, errors) == (0, ""), out
    assert "Copied 0 keys, followed 1 revisions" in out
    pair.state.write_text(json.dumps(entry))
    pair.source.put(b"since", b"that")
    pair.source.delete(b"k1")
    pair.source.compact(pair.source.everything().header.revision)
    status, out, errors = pair.run()
    assert (status, errors) == (0, ""), out
    pair.assert_equal()
    pair.state.write_text(json.dumps({**entry, "target": "abc"}))
    status, _, errors = pair.run()
    assert status == 1
    assert "is of a migration from cluster" in errors
    pair.state.unlink()
