"""The peers' protocols as the load speaks them, the table of peers, and what is said where one is not installed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from struct import pack

import pytest

from benchmarks import report
from benchmarks.figures import Figure
from benchmarks.load import LoadFailed
from benchmarks.peers.nats import Nats, Talk, version_of
from benchmarks.peers.peer import VALUE, OnDone, Unavailable, pipelined
from benchmarks.peers.zookeeper import Session, ZooKeeper
from kvstore.demo.processes import Programs

ROW = Figure(
    "peers, put",
    "8 x 4 in flight",
    "/s",
    {"kvstore": [30.0, 20.0], "etcd": [10.0, 10.0], "zookeeper": [5.0, 10.0]},
    32.0,
    stated={"kvstore": "fsync on a majority", "etcd": "fsync on a majority", "zookeeper": "forceSync=yes"},
)


@pytest.mark.parametrize(("in_flight", "calls"), [(1, 1), (3, 10), (8, 3)])
async def test_so_many_calls_are_made_and_so_many_at_a_time(in_flight: int, calls: int) -> None:
    loop, flying, most, made = asyncio.get_running_loop(), 0, 0, 0

    def ask(done: OnDone) -> None:
        nonlocal flying, most, made
        flying, made = flying + 1, made + 1
        most = max(most, flying)
        loop.call_soon(end, done)

    def end(done: OnDone) -> None:
        nonlocal flying
        flying -= 1
        done("")

    await pipelined([ask], in_flight, calls)
    assert (made, most, flying) == (calls, min(in_flight, calls), 0)


async def test_a_call_that_fails_ends_the_load() -> None:
    with pytest.raises(LoadFailed, match="no such node"):
        await pipelined([lambda done: done("no such node")], 2, 10)


async def test_zookeepers_answers_come_in_order_and_in_pieces() -> None:
    session, said = Session(), list[str]()
    assert session.taken(pack(">i36x", 36)) == 40  # the session is there
    assert session.ready.done()
    session.put(said.append)
    session.get(said.append)
    session.get(said.append)
    fine = pack(">iiqi68x", 84, 1, 7, 0)
    held = pack(">iiqi", 16 + 4 + len(VALUE), 2, 7, 0) + pack(">i", len(VALUE)) + VALUE
    missing = pack(">iiqi", 16, 3, 7, -101)
    whole = fine + held + missing
    session.data_received(whole[:100])
    assert said == [""]
    session.data_received(whole[100:])
    assert said == ["", "", "ZooKeeper's error -101"]


async def test_nats_answers_are_told_apart_by_their_inbox() -> None:
    talk, said = Talk(), list[str]()
    talk.data_received(b'INFO {"server_name":"n0"}\r\nPONG\r\n')
    assert talk.ready.done()
    for ask in (talk.put, talk.get, talk.put):
        ask(lambda problem: said.append(problem[:13]))
    inbox = f"_INBOX.bench.{id(talk)}.".encode()
    headers = b"NATS/1.0\r\n\r\n"
    held = b"HMSG %b1 1 %d %d\r\n%b%b\r\n" % (inbox, len(headers), len(headers + VALUE), headers, VALUE)
    acked = b'MSG %b0 1 16\r\n{"stream":"s"%%}\r\n' % inbox
    whole = held + acked.replace(b'{"stream":"s"%}', b'{"seq":1,"x":""}')
    talk.data_received(whole[:50])
    talk.data_received(whole[50:])
    assert said == ["", ""]
    talk.data_received(b"HMSG %b2 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n" % inbox)
    assert said == ["", "", "NATS answered"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [("nats-server: v2.9.10", (2, 9)), ("nats-server: v2.11.0-RC.1", (2, 11)), ("", (0, 0))],
)
def test_the_version_of_nats(said: str, expected: tuple[int, int]) -> None:
    assert version_of(said) == expected


@pytest.mark.parametrize("peer", [Nats(), ZooKeeper()], ids=lambda peer: peer.name)
async def test_a_peer_that_is_missing_says_how_to_get_it(
    peer: Nats | ZooKeeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with Programs() as programs:
        with pytest.raises(Unavailable, match="apt-get install"):
            await peer.start(tmp_path, programs)


def test_each_server_has_a_line_with_what_its_answer_stands_for() -> None:
    assert report.among_rows(ROW) == [
        ("peers, put: 8 x 4 in flight", "kvstore", "25.00/s", "", "fsync on a majority"),
        ("", "etcd", "10.00/s", "2.50 x (2.00–3.00)", "fsync on a majority"),
        ("", "zookeeper", "7.50/s", "3.33 x (2.00–6.00)", "forceSync=yes"),
    ]


def test_peers_are_a_table_of_their_own_and_the_floor_a_column_where_it_was_measured() -> None:
    put = Figure("put", "1 x 1", "/s", {"kvstore": [1.0], "etcd": [2.0], "floor": [3.0]})
    get = Figure("get", "1 x 1", "/s", {"kvstore": [1.0], "etcd": [2.0]})
    page = report.markdown([put, get, ROW], [], "today", 3)
    assert "| | kvstore | etcd | floor | ratio | wanted |\n|---|---|---|---|---|---|\n" in page
    assert "| put: 1 x 1 | 1.00/s | 2.00/s | 3.00/s | 0.50 x |  |" in page
    assert "| get: 1 x 1 | 1.00/s | 2.00/s |  | 0.50 x |  |" in page
    assert "|  | zookeeper | 7.50/s | 3.33 x (2.00–6.00) | forceSync=yes |" in page
    assert "floor" not in report.markdown([get], [], "today", 3)
