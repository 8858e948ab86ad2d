"""kvctl lock, elect, make-mirror, watch -i, check, defrag and downgrade, against both servers: they take turns
with etcdctl's, print what it prints, and do what they say."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvstore.cli import check, mirror
from kvstore.cli.load import Load
from tests.conformance.etcd_process import SERVERS, Server, clean_environment, etcdctl_path, running_cluster
from tests.conformance.kvctl_steps import step
from tests.conformance.test_kvctl_same_output import Side, run_etcdctl, run_kvctl

KVCTL = [sys.executable, "-m", "kvstore.cli.main"]


@pytest.fixture(scope="module", params=SERVERS)
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    server: Server = request.param
    with running_cluster(server) as cluster:
        yield cluster.endpoints[0]


@pytest.fixture
def start(endpoint: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts programs with the endpoint; they are gone afterwards."""
    running: list[subprocess.Popen[str]] = []

    def run(program: str, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        command = [*(KVCTL if program == "kvctl" else [etcdctl_path()]), "--endpoints", endpoint, *words]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, stdin=stdin, stdout=pipe, stderr=pipe, text=True, env=clean_environment()
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def kvctl(endpoint: str, *words: str) -> str:
    """In this process. Returns what it printed; it must succeed."""
    shown = run_kvctl(Side(endpoint, (), b"\0none"), step(*words))
    assert shown.status == 0, shown
    return shown.stdout.decode()


def wait_for_keys(endpoint: str, prefix: str, count: int, limit_s: float = 20.0) -> list[str]:
    """Waits until there are so many keys with the prefix; returns them, oldest first."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        shown = kvctl(endpoint, "get", prefix, "--prefix", "--keys-only", "--sort-by=create")
        keys = [line for line in shown.splitlines() if line]
        if len(keys) == count:
            return keys
        time.sleep(0.02)
    raise AssertionError(f"{count} keys under {prefix} expected, found {keys}")


@pytest.mark.parametrize(("first", "second"), [("etcdctl", "kvctl"), ("kvctl", "etcdctl")])
def test_locks_exclude_each_other(
    endpoint: str, start: Callable[..., subprocess.Popen[str]], first: str, second: str
) -> None:
    """The second waits for the first, and gets its turn when the first is stopped."""
    name = f"lock-{first}"
    holder = start(first, "lock", name)
    (key,) = wait_for_keys(endpoint, f"{name}/", 1)
    assert holder.stdout is not None
    assert holder.stdout.readline() == f"{key}\n"
    waiter = start(second, "lock", name, "--", "sh", "-c", "echo $ETCD_LOCK_KEY; exit 7")
    _, behind = wait_for_keys(endpoint, f"{name}/", 2)
    assert waiter.poll() is None
    holder.send_signal(signal.SIGINT)
    out, _ = waiter.communicate(timeout=20)
    assert out == f"{behind}\n"
    assert waiter.returncode == 7
    assert holder.wait(20) == 0
    wait_for_keys(endpoint, f"{name}/", 0)


def test_a_waiting_lock_that_is_stopped_leaves_the_queue(
    endpoint: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    start("etcdctl", "lock", "busy")
    wait_for_keys(endpoint, "busy/", 1)
    waiter = start("kvctl", "lock", "busy")
    _, behind = wait_for_keys(endpoint, "busy/", 2)
    waiter.send_signal(signal.SIGTERM)
    _, error = waiter.communicate(timeout=20)
    assert (waiter.returncode, error) == (1, "Error: stopped while waiting\n")
    wait_for_keys(endpoint, "busy/", 1)
    assert "already expired" in kvctl(endpoint, "lease", "timetolive", behind.removeprefix("busy/"))


def test_a_lock_whose_lease_ends_is_lost(endpoint: str, start: Callable[..., subprocess.Popen[str]]) -> None:
    holder = start("kvctl", "lock", "lost", "--ttl=2")
    runner = start(
        "kvctl", "lock", "lost-too", "--ttl=2", "--", "sh", "-c", "read go; exit 3", stdin=subprocess.PIPE
    )
    for prefix in ("lost/", "lost-too/"):
        (key,) = wait_for_keys(endpoint, prefix, 1)
        kvctl(endpoint, "lease", "revoke", key.removeprefix(prefix))
    _, error = holder.communicate(timeout=20)
    assert (holder.returncode, error) == (1, "Error: session expired\n")
    assert runner.stderr is not None
    assert runner.stderr.readline() == "the lock is lost: its session expired; the command still runs\n"
    _, error = runner.communicate("go\n", timeout=20)
    assert (runner.returncode, error) == (3, "Error: exit status 3\n")


def test_sigterm_is_passed_on_to_the_command(
    endpoint: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    script = "trap 'exit 9' TERM; echo on; read go"
    runner = start("kvctl", "lock", "brief", "--", "sh", "-c", script, stdin=subprocess.PIPE)
    assert runner.stdout is not None
    assert runner.stdout.readline() == "on\n"
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(20) == 9
    wait_for_keys(endpoint, "brief/", 0)


def test_elections_are_followed_alike(endpoint: str, start: Callable[..., subprocess.Popen[str]]) -> None:
    """One leader after another, the second by kvctl; both observers tell the same."""
    observers = [start(program, "elect", "-l", "boss") for program in ("etcdctl", "kvctl")]
    shown: list[list[str]] = []
    for program in ("etcdctl", "kvctl"):
        leader = start(program, "elect", "boss", f"by-{program}")
        (key,) = wait_for_keys(endpoint, "boss/", 1)
        expected = [f"{key}\n", f"by-{program}\n"]
        assert leader.stdout is not None
        assert [leader.stdout.readline(), leader.stdout.readline()] == expected
        for observer in observers:
            assert observer.stdout is not None
            shown.append([observer.stdout.readline(), observer.stdout.readline()])
        assert shown[-2:] == [expected, expected]
        leader.send_signal(signal.SIGINT)
        assert leader.wait(20) == 0
        wait_for_keys(endpoint, "boss/", 0)
    observers[1].send_signal(signal.SIGINT)
    assert observers[1].wait(20) == 0


def test_interactive_watches_print_alike(endpoint: str, start: Callable[..., subprocess.Popen[str]]) -> None:
    key = "interactive"
    begin = int(kvctl(endpoint, "put", key, "0", "-w", "fields").split('"Revision" : ')[1].split()[0])
    lines = (
        f"watch {key} --prev-kv --rev={begin}\n\nnonsense\nwatch\nwatch a b --prefix\n"
        f"watch {key} --rev={begin} -- echo ran\n"
    )
    said = []
    for program in ("etcdctl", "kvctl"):
        process = start(program, "watch", "-i", stdin=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines)
        process.stdin.flush()
        read = [process.stdout.readline() for _ in range(7)]  # both watches have told of the past
        process.stdin.close()
        process.stdin = None
        out, error = process.communicate(timeout=20)
        said.append((process.returncode, sorted(read), out, error))
    assert said[1] == said[0]
    assert said[1][0] == 3
    assert said[1][1].count("ran\n") == 1


FORMATS = ("simple", "json", "fields", "protobuf")


def test_watches_print_alike_in_every_format(
    endpoint: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """All programs see the same past, and then one event more, at which the comparison ends."""
    begin = int(kvctl(endpoint, "put", "wf/1", "0", "-w", "fields").split('"Revision" : ')[1].split()[0])
    for words in (["put", "wf/1", "1"], ["put", "wf/2", "t\tab"], ["del", "wf/1"], ["put", "wf/3", "PAST"]):
        kvctl(endpoint, *words)
    flags = ("watch", "wf/", "--prefix", "--prev-kv", f"--rev={begin}", "-w")
    running = {(program, f): start(program, *flags, f) for f in FORMATS for program in ("etcdctl", "kvctl")}
    seen = {which: until_said(process, "PAST") for which, process in running.items()}
    kvctl(endpoint, "put", "wf/4", "LIVE")
    for which, process in running.items():
        seen[which] = cut(seen[which] + until_said(process, "LIVE"), "LIVE")
    for f in FORMATS:
        assert seen["kvctl", f] == seen["etcdctl", f]


def until_said(process: subprocess.Popen[str], word: str) -> bytes:
    """What it prints, up to and with the read that holds the word, as it is or in base64."""
    assert process.stdout is not None
    said = b""
    while len(cut(said, word)) == len(said):
        more = os.read(process.stdout.fileno(), 65536)
        assert more, f"ended without {word}: {said!r}"
        said += more
    return said


def cut(said: bytes, word: str) -> bytes:
    return said.partition(word.encode())[0].partition(base64.b64encode(word.encode()))[0]


def test_a_mirror_copies_follows_and_goes_on(
    endpoint: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """The destination is another prefix of the same server, so etcdctl's mirror of the same source beside it
    must come to the same keys."""
    for number in range(5):
        kvctl(endpoint, "put", f"src/{number}", f"v{number}")
    mirrors = {
        program: start(program, "make-mirror", endpoint, "--prefix=src/", f"--dest-prefix={program}/")
        for program in ("etcdctl", "kvctl")
    }
    for program in mirrors:
        wait_for_keys(endpoint, f"{program}/", 5)
    kvctl(endpoint, "del", "src/1", "src/4")
    for program, process in mirrors.items():
        assert [key.rpartition("/")[2] for key in wait_for_keys(endpoint, f"{program}/", 2)] == ["0", "4"]
        process.send_signal(signal.SIGINT)
    _, told = mirrors["kvctl"].communicate(timeout=20)
    assert mirrors["kvctl"].returncode == 0
    kvctl(endpoint, "put", "src/5", "later")
    revision = told.rpartition("--rev ")[2].strip()
    process = start(
        "kvctl", "make-mirror", endpoint, "--prefix=src/", "--dest-prefix=kvctl/", f"--rev={revision}"
    )
    assert wait_for_keys(endpoint, "kvctl/", 3) == ["kvctl/0", "kvctl/4", "kvctl/5"]
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert told.startswith("1 keys; go on with --rev ")


def test_a_mirror_of_a_wrong_destination_fails_at_once(endpoint: str) -> None:
    shown = run_kvctl(Side(endpoint, (), b"\0none"), step("make-mirror", "127.0.0.1:1"))
    assert shown.status == 1
    assert shown.stderr.startswith(b"Error: cannot reach 127.0.0.1:1")


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads of a moment, as the verbs' own take a minute."""
    monkeypatch.setitem(check.PERF, "s", Load(clients=4, puts_per_second=40, duration_s=0.4))
    monkeypatch.setitem(check.DATASCALE, "s", Load(clients=4, puts=50, key_bytes=512, value=bytes(512)))


def test_check_perf(endpoint: str, brief: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """From two processes, as a large load is written."""
    monkeypatch.setattr(check, "PUTS_A_PROCESS", 20)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    side = Side(endpoint, (), b"\0none")
    shown = run_kvctl(side, step("check", "perf", "--auto-compact", "--auto-defrag"))
    lines = shown.stdout.decode().splitlines()
    assert [line.partition(" ")[0] for line in lines[:4]] == [
        "Compacting",
        "Compacted",
        "Defragmenting",
        "Defragmented",
    ]
    verdicts = [line for line in lines[4:] if line.startswith(("PASS", "FAIL", "Slow"))]
    for word in ("writes/s", "request", "tddev"):
        assert any(word in line for line in verdicts), (
            shown
        )  # what it says of this machine is not the test's matter
    assert verdicts[-1] in ("PASS", "FAIL"), shown
    assert kvctl(endpoint, "get", "/etcdctl-check-perf/", "--prefix", "--keys-only") == ""


def test_checks_refuse_what_etcdctl_refuses(endpoint: str, brief: None) -> None:
    kvctl(endpoint, "put", "taken/1", "x")
    for words in (["--prefix=taken/"], ["--load=nonsense"]):
        for verb in ("perf", "datascale"):
            given = step("check", verb, *words)
            etcdctl, ours = (run(Side(endpoint, (), b"\0none"), given) for run in (run_etcdctl, run_kvctl))
            assert (ours.status, ours.stdout) == (etcdctl.status, etcdctl.stdout)
            # etcdctl quotes the command it advises in one of the two.
            assert ours.stderr.replace(b"kvctl", b"etcdctl").replace(b"'", b"") == etcdctl.stderr.replace(
                b"'", b""
            )
    kvctl(endpoint, "del", "taken/1")


def test_check_datascale_needs_the_servers_metrics(endpoint: str, brief: None) -> None:
    shown = run_kvctl(Side(endpoint, (), b"\0none"), step("check", "datascale"))
    if shown.status == 0:
        assert shown.stdout.startswith(
            b"Start data scale check for work load [50 key-value pairs, 1024 bytes"
        )
        assert b"PASS: Approximate system memory used : " in shown.stdout
    else:
        assert shown.stdout == (
            b"FAIL: Could not read process_resident_memory_bytes before the put operations.\n"
        )
    assert kvctl(endpoint, "get", "/etcdctl-check-datascale/", "--prefix", "--keys-only") == ""


def test_defrag(endpoint: str) -> None:
    side = Side(endpoint, (), b"\0none")
    for words in (["defrag"], ["defrag", "--cluster"], ["defrag", "-w", "json"]):
        assert run_kvctl(side, step(*words)) == run_etcdctl(side, step(*words))
    some = Side(f"{endpoint},127.0.0.1:1", (), b"\0none")
    shown = run_kvctl(some, step("defrag", "--command-timeout=1s"))
    assert shown.stdout == f"Finished defragmenting etcd member[{endpoint}]\n".encode()
    assert shown.stderr.startswith(b"Failed to defragment etcd member[127.0.0.1:1] (")
    assert shown.status == 1
    assert run_kvctl(side, step("defrag", "--data-dir=x")).status == 128


def test_mirrored_transactions_reach_the_count(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The line of progress is the number of keys copied; --max-txn-ops cuts transactions, not their number."""
    monkeypatch.setattr(mirror, "COUNT_INTERVAL_S", 0.05)
    for number in range(7):
        kvctl(endpoint, "put", f"many/{number}", "x")
    printed: list[str] = []

    def echo(message: object, err: bool = False) -> None:
        printed.append(str(message))
        if message == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("kvstore.cli.mirror.click.echo", echo)
    kvctl(endpoint, "make-mirror", endpoint, "--prefix=many/", "--dest-prefix=copy/", "--max-txn-ops=2")
    assert printed[-2] == "7"
    assert len(wait_for_keys(endpoint, "copy/", 7)) == 7
