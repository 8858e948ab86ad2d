"""A leader that is stopped where it stands, and goes on when another has taken its place (etcd issue 20418)."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from tests.cluster.harness import MemberHandle, running, wait_for

READS = 50
READ_BYTES = 26  # at least: two frames' headers, the message's prefix, a key of one byte


def test_a_leader_that_was_paused_answers_no_read_from_before(tmp_path: Path) -> None:
    """The reads reach its sockets while it is stopped, after the write was acknowledged elsewhere: they are the first
    it sees when it goes on, and nothing has told it by then that it leads no more."""
    with running(tmp_path, 3) as cluster, ThreadPoolExecutor(READS) as pool:
        for number in range(3):
            paused = cluster.leader()
            others = [member for member in cluster.members if member is not paused]
            cluster.members[number].calls.put(b"k", b"old %d" % number)
            assert paused.calls.range(b"k").kvs[0].value == b"old %d" % number  # its connection is up
            assert paused.process is not None
            paused.process.send_signal(signal.SIGSTOP)
            try:
                wait_for(lambda: written(others, b"new %d" % number), "a write without it")  # noqa: B023
                reads = [pool.submit(paused.calls.range, b"k", 20.0) for _ in range(READS)]
                wait_for(lambda p=paused: unread_bytes(p.client_port) >= READS * READ_BYTES, "the reads")  # type: ignore[misc]
            finally:
                paused.process.send_signal(signal.SIGCONT)
            values = {read.result().kvs[0].value for read in reads if read.exception() is None}
            assert values <= {b"new %d" % number}, values
            refused = [read.exception() for read in reads if read.exception() is not None]
            assert all(isinstance(each, grpc.RpcError) for each in refused), refused
            cluster.wait_ready()
            assert paused.calls.range(b"k").kvs[0].value == b"new %d" % number


def written(others: list[MemberHandle], value: bytes) -> bool:
    try:
        others[0].calls.put(b"k", value, timeout_s=5.0)
    except grpc.RpcError:
        return False
    return True


def unread_bytes(port: int) -> int:
    """What the kernel holds for whoever listens on that port of loopback and has not read it."""
    found = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            found += int(fields[4].rpartition(":")[2], 16)
    return found
