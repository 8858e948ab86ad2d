"""What is counted of calls, however they end."""

from __future__ import annotations

import pytest

from kvstore import log
from kvstore.rpc import Status
from kvstore.wire import frames as h2
from kvstore.wire.traffic import UNKNOWN_VERSION, VERSIONS_MAX, CallCounts, Traffic
from tests.unit.wire.peer import CHAT, ECHO, HOLD, Peer


def only(traffic: Traffic, path: str) -> CallCounts:
    (found,) = [each for each in traffic.all() if each.path == path]
    return found


def test_each_call_is_begun_once_and_ended_once() -> None:
    traffic = Traffic()
    peer = Peer(traffic=traffic)
    peer.call(1, b"answered")
    peer.call(3, b"refused", HOLD)
    peer.service.held[0][0].fail(Status.NOT_FOUND, "no")
    peer.call(5, b"reset", HOLD)
    peer.send(h2.RST_STREAM, 0, 5, h2.U32.pack(h2.CANCEL))
    peer.call(7, b"late", HOLD, grpc_timeout="1S")
    peer.connection.check_deadlines(peer.now + 2)
    peer.call(9, b"cut off", HOLD)
    peer.connection.lost()
    assert (only(traffic, ECHO).started, only(traffic, ECHO).ok) == (1, 1)
    held = only(traffic, HOLD)
    assert (held.started, held.ok) == (4, 0)
    told = {Status(code): count for code, count in enumerate(held.codes) if count}
    assert told == {Status.NOT_FOUND: 1, Status.CANCELLED: 2, Status.DEADLINE_EXCEEDED: 1}


def test_a_stream_counts_its_messages_and_one_end() -> None:
    traffic = Traffic()
    peer = Peer(traffic=traffic)
    peer.open(1, CHAT)
    chat = peer.service.chats[0]
    for _ in range(3):
        chat.call.send(b"said")
    chat.call.finish()
    peer.send(h2.RST_STREAM, 0, 1, h2.U32.pack(h2.CANCEL))
    counts = only(traffic, CHAT)
    assert (counts.started, counts.sent, counts.received, counts.codes[0]) == (1, 3, 0, 1)
    assert sum(counts.codes) == 1


def test_a_reply_that_has_to_wait_is_counted_once() -> None:
    traffic = Traffic()
    peer = Peer(traffic=traffic)
    peer.call(1, bytes(100_000))
    counts = only(traffic, ECHO)
    assert (counts.started, counts.ok, sum(counts.codes)) == (1, 0, 1)
    peer.send(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(1 << 20))
    peer.send(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(1 << 20))
    assert sum(counts.codes) == 1


def test_versions_are_kept_apart_up_to_a_bound() -> None:
    traffic = Traffic()
    peer = Peer(traffic=traffic)
    for number in range(VERSIONS_MAX + 5):
        peer.call(2 * number + 1, b"", client_api_version=f"3.{number}")
    peer.call(999, b"")
    versions = {each.version for each in traffic.all()}
    assert len(versions) <= VERSIONS_MAX + 1 and {"3.0", UNKNOWN_VERSION} <= versions
    assert sum(each.ok for each in traffic.all()) == VERSIONS_MAX + 6


@pytest.mark.parametrize(("exact", "timed"), [(True, 32), (False, 2)])
def test_times_are_taken_of_each_or_of_one_in_sixteen_and_stand_for_all(exact: bool, timed: int) -> None:
    looks: list[float] = []

    def clock() -> float:
        looks.append(0.0)
        return len(looks) * 0.001

    traffic = Traffic(clock=clock, exact=exact)
    peer = Peer(traffic=traffic)
    for number in range(32):
        peer.call(2 * number + 1, b"")
    counts = only(traffic, ECHO)
    assert len(looks) == 2 * timed
    assert counts.requests[True].count == 32
    assert counts.requests[True].sum == pytest.approx(0.032)
    assert counts.handling.count == (32 if exact else 0)


def test_a_slow_call_is_told_and_a_flood_of_them_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(log, "warn", lambda message, **fields: told.append((message, fields)))
    traffic = Traffic(slow_after_s=0.3)
    peer = Peer(traffic=traffic)
    for number in range(30):
        peer.call(2 * number + 1, b"ask", HOLD)
    traffic.at(peer.now + 0.2)
    peer.service.held[0][0].reply(b"in time")
    assert not told
    traffic.at(peer.now + 0.5)
    for call, _ in peer.service.held[1:]:
        call.reply(b"late")
    assert len(told) == 10
    message, fields = told[0]
    assert message == "request stats"
    assert (fields["time spent"], fields["response type"]) == ("500ms", HOLD)
