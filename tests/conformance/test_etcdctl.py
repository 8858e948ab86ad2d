"""etcdctl, unchanged, against real etcd and against ours: the same commands must print the same.

Both releases that can be had are used: 3.4 (Debian's) and 3.5. What may differ is who answered (ids, terms,
sizes, times), and only that is masked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.conformance.etcd_process import Cluster, etcdctl_path, require_program, running_cluster

LEASE = "1234abcd"


@dataclass(frozen=True)
class Etcdctl:
    """One release of the program."""

    path: str

    def run(self, endpoint: str, words: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        environment = {**os.environ, "ETCDCTL_API": "3"}
        done = subprocess.run(
            [self.path, f"--endpoints={endpoint}", *words],
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=30,
            env=environment,
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(params=["3.4", "3.5"])
def etcdctl(request: pytest.FixtureRequest) -> Etcdctl:
    if request.param == "3.5":
        return Etcdctl(etcdctl_path())
    return Etcdctl(require_program(shutil.which("etcdctl"), "etcdctl (Debian's etcd-client)"))


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Cluster, Cluster]]:
    """Shared by the module's tests: both are given the same, so both stay alike."""
    with running_cluster("etcd") as reference, running_cluster("kvstore") as ours:
        yield reference, ours


def masked(text: str) -> str:
    """Without what depends on who answered and when."""
    text = re.sub(r'"(cluster_id|member_id|raft_term)":\d+', r'"\1":0', text)
    text = re.sub(r'"(ClusterID|MemberID|RaftTerm)" : \d+', r'"\1" : 0', text)
    text = re.sub(r"\d{4}[-/]\d\d[-/]\d\d[T ][\d:.]+Z?", "TIME", text)
    text = re.sub(r'"ts":"[^"]*"', '"ts":""', text)
    text = re.sub(r'"(target|endpoint)":"[^"]*"', r'"\1":""', text)
    text = re.sub(r"127\.0\.0\.1:\d+", "ENDPOINT", text)
    text = re.sub(r"0xc[0-9a-f]+", "POINTER", text)
    return re.sub(r"remaining\(\d+s\)", "remaining(Ns)", text)


def revision(etcdctl: Etcdctl, servers: tuple[Cluster, Cluster]) -> int:
    """Of both servers: given the same, they are at the same."""
    shown = [etcdctl.run(cluster.endpoints[0], ["get", "x", "-w", "json"])[1] for cluster in servers]
    reference, ours = (json.loads(text)["header"]["revision"] for text in shown)
    assert reference == ours
    return int(ours)


def absolute(words: str, start: int) -> str:
    return re.sub(r"@(\d+)", lambda found: str(start + int(found[1])), words)


def same(etcdctl: Etcdctl, servers: tuple[Cluster, Cluster], script: Sequence[str | tuple[str, str]]) -> None:
    """Each line a command, or a command and its standard input; words are split at blanks, _ is a blank, and
    @n is the revision n after the one the script began at."""
    start = revision(etcdctl, servers)
    for line in script:
        command, stdin = (line, None) if isinstance(line, str) else line
        words = [word.replace("_", " ") for word in absolute(command, start).split()]
        expected, found = (etcdctl.run(c.endpoints[0], words, stdin) for c in servers)
        assert (found[0], masked(found[1]), masked(found[2])) == (
            expected[0],
            masked(expected[1]),
            masked(expected[2]),
        ), f"{command}: expected from etcd {expected}, found {found}"


def test_put_and_get_with_every_flag(etcdctl: Etcdctl, servers: tuple[Cluster, Cluster]) -> None:
    same(
        etcdctl,
        servers,
        [
            "put a 1",
            "put b 2",
            "put c 3",
            "put a 4 --prev-kv",
            "put a --ignore-lease 5",
            "put b --ignore-value",
            "put missing --ignore-value",
            "put a value --ignore-value",
            "put x y --lease=99",
            "get a",
            "get a -w json",
            "get a -w fields",
            "get a --rev=@1 -w json",
            "get a --rev=@99",
            "get a c",
            "get a --from-key --limit=2 -w json",
            "get --prefix --keys-only a",
            "get --prefix --count-only -w json a",
            "get a --from-key --order=DESCEND",
            "get a --from-key --sort-by=MODIFY --order=ASCEND",
            "get a --from-key --sort-by=VALUE --order=DESCEND --limit=2",
            "get a --from-key --sort-by=VERSION",
            "get a --from-key --sort-by=CREATE --order=DESCEND",
            "get a --print-value-only",
            "get a --hex",
            "get nothing -w json",
            "get a --consistency=s -w json",
            ("put piped", "from standard input"),
            "get piped",
        ],
    )


def test_delete_and_compaction(etcdctl: Etcdctl, servers: tuple[Cluster, Cluster]) -> None:
    same(
        etcdctl,
        servers,
        [
            *(f"put k{number} v{number}" for number in range(6)),
            "del k0 --prev-kv",
            "del k0",
            "del k1 k3 --prev-kv -w json",
            "put k1 again",
            "get k1 -w json",
            "del k --prefix -w json",
            "del k --prefix",
            "put k5 new",
            "compaction @8",
            "compaction @8",
            "compaction @99",
            "get k5 --rev=@7",
            "get k5 --rev=@8 -w json",
            "get k --prefix --rev=@9 -w json",
            "del z --from-key",
            "compaction @11 --physical",
            "get k5 -w json",
        ],
    )


def test_transactions(etcdctl: Etcdctl, servers: tuple[Cluster, Cluster]) -> None:
    same(
        etcdctl,
        servers,
        [
            "put a 1",
            ("txn", 'value("a") = "1"\n\nput b 2\nget a\n\nput b 3\n\n'),
            ("txn -w json", 'mod("a") > "5"\n\nput c 2\n\nget b\nget a --prefix\ndel a\n\n'),
            ("txn -w json", 'create("nothing") = "0"\nversion("b") = "1"\n\nput d 4 --prev-kv\nget d\n\n\n'),
            ("txn -w json", 'value("nothing") != "x"\n\nput d 4\n\nget b\n\n'),
            ("txn", "\nput a 1\nput a 2\n\n\n"),
            ("txn", "\nput a 1\ndel a --prefix\n\n\n"),
            ("txn -w json", "\nget a\nget b\n\n\n"),
            ("txn -w json", "\nget a --rev=1\nput q 1\n\n\n"),
            ("txn", "\nget a --rev=999\nput q 1\n\n\n"),
            ("txn", "\nput a 1 --lease=77\n\n\n"),
            ("txn -w json", "\n\n\n"),
            "get --prefix -w json a",
        ],
    )


def test_leases(etcdctl: Etcdctl, servers: tuple[Cluster, Cluster]) -> None:
    """Ids that servers choose differ, so these are checked by shape; the rest is compared."""
    for cluster in servers:
        endpoint = cluster.endpoints[0]
        status, out, _ = etcdctl.run(endpoint, ["lease", "grant", "30"])
        assert status == 0
        match = re.fullmatch(r"lease ([0-9a-f]{15,16}) granted with TTL\(30s\)\n", out)
        assert match, out
        lease = match[1]
        assert etcdctl.run(endpoint, ["put", "leased", "x", f"--lease={lease}"])[1] == "OK\n"
        assert lease in etcdctl.run(endpoint, ["lease", "list"])[1]
        shown = etcdctl.run(endpoint, ["lease", "timetolive", lease, "--keys"])[1]
        assert re.fullmatch(
            rf"lease {lease} granted with TTL\(30s\), remaining\((29|30)s\), attached keys\(\[leased\]\)\n",
            shown,
        ), shown
        kept = etcdctl.run(endpoint, ["lease", "keep-alive", "--once", lease])[1]
        assert kept == f"lease {lease} keepalived with TTL(30)\n"
        assert etcdctl.run(endpoint, ["lease", "revoke", lease])[1] == f"lease {lease} revoked\n"
        assert etcdctl.run(endpoint, ["get", "leased"])[1] == ""
        gone = etcdctl.run(endpoint, ["lease", "timetolive", lease])[1]
        assert gone == f"lease {lease} already expired\n"
    same(
        etcdctl,
        servers,
        [
            "lease revoke 1",
            "lease timetolive 1",
            "lease keep-alive --once 1",
            "lease grant 9000000001",
            "lease list",
        ],
    )


def test_a_lease_that_runs_out_takes_its_keys(etcdctl: Etcdctl, servers: tuple[Cluster, Cluster]) -> None:
    endpoints = [cluster.endpoints[0] for cluster in servers]
    for endpoint in endpoints:
        lease = etcdctl.run(endpoint, ["lease", "grant", "1"])[1].split()[1]
        assert etcdctl.run(endpoint, ["put", "brief", "x", f"--lease={lease}"])[0] == 0
    deadline = time.monotonic() + 10
    for endpoint in endpoints:
        while etcdctl.run(endpoint, ["get", "brief"])[1] and time.monotonic() < deadline:
            time.sleep(0.1)
    same(etcdctl, servers, ["get brief -w json", "lease list"])
    assert etcdctl.run(endpoints[1], ["get", "brief"])[1] == ""


@pytest.mark.parametrize(
    "flags",
    [
        "w --rev=@1",
        "w --prefix --rev=@1",
        "w --prefix --rev=@3 --prev-kv",
        "w1 --rev=@2 -w json",
        "w x --rev=@1",
        "w2 --from-key --rev=@1 --prev-kv",
    ],
)
def test_watches_of_the_past_and_the_present(
    etcdctl: Etcdctl, servers: tuple[Cluster, Cluster], flags: str
) -> None:
    """Some events lie before the watch, some after it; both servers' watches print the same."""
    start = revision(etcdctl, servers)
    before = ["put w1 a", "put w2 b", "put w1 c", "del w2", "put other d"]
    after = ["put w1 e", "put w3 f", "del w1", "put w_last g"]
    printed = []
    for cluster in servers:
        endpoint = cluster.endpoints[0]
        for command in before:
            assert etcdctl.run(endpoint, command.split())[0] == 0
        with subprocess.Popen(
            [etcdctl.path, f"--endpoints={endpoint}", "watch", *absolute(flags, start).split()],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "ETCDCTL_API": "3"},
        ) as watching:
            for command in after:
                assert etcdctl.run(endpoint, command.split())[0] == 0
            time.sleep(0.15)
            watching.send_signal(signal.SIGINT)
            assert watching.stdout is not None
            printed.append(sorted(map(masked, events(watching.stdout.read()))))
    assert printed[0] == printed[1]
    assert bool(printed[0][0]) is not flags.startswith("w --rev")  # nothing is stored under w itself


def events(text: str) -> list[str]:
    """JSON watches group events into lines as they arrived together; single events compare."""
    if not text.startswith("{"):
        return [text]
    return [json.dumps(event) for line in text.splitlines() for event in json.loads(line)["Events"]]


def test_a_watch_of_compacted_history(etcdctl: Etcdctl, servers: tuple[Cluster, Cluster]) -> None:
    same(
        etcdctl,
        servers,
        [*(f"put c {number}" for number in range(5)), "compaction @4", "watch c --rev=@2"],
    )


def test_members_status_and_health(etcdctl: Etcdctl) -> None:
    with running_cluster("kvstore", size=3) as cluster:
        endpoints = ",".join(cluster.endpoints)
        status, out, _ = etcdctl.run(endpoints, ["member", "list"])
        assert status == 0
        lines = sorted(line.split(", ")[1:] for line in out.splitlines())
        assert [line[:2] for line in lines] == [["started", "m1"], ["started", "m2"], ["started", "m3"]]
        assert [line[3] for line in lines] == [f"http://{endpoint}" for endpoint in cluster.endpoints]
        status, out, _ = etcdctl.run(endpoints, ["endpoint", "status", "-w", "json"])
        assert status == 0
        rows = [row["Status"] for row in json.loads(out)]
        assert len({row["leader"] for row in rows}) == 1
        assert sorted(row["header"]["member_id"] == row["leader"] for row in rows) == [False, False, True]
        assert all(row["version"].startswith("3.5.") for row in rows)
        status, out, err = etcdctl.run(endpoints, ["endpoint", "health"])
        assert status == 0
        assert (out + err).count("is healthy: successfully committed proposal") == 3


def test_keys_and_values_at_their_limits(etcdctl: Etcdctl, servers: tuple[Cluster, Cluster]) -> None:
    big = "v" * 100_000
    key = "k" * 3_000
    same(
        etcdctl,
        servers,
        [
            f"put {key} {big}",
            f"get {key} -w json",
            f"put {key}2 x",
            f"get --prefix --keys-only {'k' * 600}",
            f"del --prefix {'k' * 2_999}",
        ],
    )


def test_a_request_that_is_too_large(etcdctl: Etcdctl, servers: tuple[Cluster, Cluster]) -> None:
    """Between the limit and the transport's limit it is etcd's error, above it the transport's."""
    same(etcdctl, servers, [("put big", "x" * 1_600_000), ("put big", "x" * 2_000_000)])
