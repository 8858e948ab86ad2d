"""What one peer can make a connection spend: floods end it, memory has its bounds, work grows with the bytes.

The last part measures processor time. Its limits stand well above what linear work needs and well below what the
quadratic work took that each of these tests was written against.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import pytest

from kvstore.rpc import Status, UnaryCall, UnaryMethod
from kvstore.wire import frames as h2
from kvstore.wire.frames import ConnectionFault
from kvstore.wire.headers import HeadReader, literal
from kvstore.wire.limits import Limits
from kvstore.wire.traffic import Traffic
from tests.unit.wire.peer import CHAT, ECHO, HOLD, Action, Peer, framed

Flood = Callable[[Peer, int], None]


def widest(peer: Peer) -> None:
    """Opens every window as far as it goes."""
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, h2.WINDOW_MAX))
    peer.send(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(h2.WINDOW_MAX - h2.DEFAULT_WINDOW))
    peer.take()


# Floods


def resets(peer: Peer, at: int) -> None:
    peer.open(2 * at + 1, HOLD)
    peer.send(h2.RST_STREAM, 0, 2 * at + 1, h2.U32.pack(h2.CANCEL))


def resets_of_one(peer: Peer, at: int) -> None:
    if not at:
        peer.open(1, HOLD)
    peer.send(h2.RST_STREAM, 0, 1, h2.U32.pack(h2.CANCEL))


def empty_data(peer: Peer, at: int) -> None:
    if not at:
        peer.open(1, CHAT)
    peer.send(h2.DATA, 0, 1)


def empty_continuations(peer: Peer, at: int) -> None:
    if not at:
        peer.send(h2.HEADERS, 0, 1, b"")
    peer.send(h2.CONTINUATION, 0, 1)


def refused_streams(peer: Peer, at: int) -> None:
    peer.open(2 * at + 1, HOLD)


def pings_beside_calls(peer: Peer, at: int) -> None:
    """A call in between forgives a ping its haste, but not its number."""
    peer.send(h2.PING, 0, 0, b"12345678")
    peer.call(2 * at + 1, b"x")


def same(kind: int, payload: bytes = b"") -> Flood:
    return lambda peer, at: peer.send(kind, 0, 0, payload)


RESETS = ("streams reset", 1000)
CONTROLS = ("control frames", 2000)
FLOODS: dict[str, tuple[Flood, tuple[str, int]]] = {
    "rapid reset, CVE-2023-44487": (resets, RESETS),
    "resets of one stream": (resets_of_one, RESETS),
    "empty DATA, CVE-2019-9518": (empty_data, CONTROLS),
    "empty CONTINUATION, CVE-2024-27316": (empty_continuations, CONTROLS),
    "SETTINGS, CVE-2019-9515": (same(h2.SETTINGS), CONTROLS),
    "PRIORITY, CVE-2019-9513": (same(h2.PRIORITY, b"\0" * 5), CONTROLS),
    "PING, CVE-2019-9512": (pings_beside_calls, CONTROLS),
    "unknown frames": (same(0xEE), CONTROLS),
    "streams above the limit": (refused_streams, CONTROLS),
}


@pytest.mark.parametrize(("flood", "bound"), FLOODS.values(), ids=FLOODS)
def test_a_flood_passes_its_burst_and_then_ends_the_connection(flood: Flood, bound: tuple[str, int]) -> None:
    reason, burst = bound
    peer = Peer(Limits(max_concurrent_streams=10))
    at = 0
    with pytest.raises(ConnectionFault, match=reason) as fault:
        for at in range(burst + 100):
            flood(peer, at)
            peer.connection.output.clear()
    assert fault.value.code == h2.ENHANCE_YOUR_CALM
    assert burst - 2 <= at <= burst + 10


@pytest.mark.parametrize(("flood", "bound"), FLOODS.values(), ids=FLOODS)
def test_the_same_at_a_bearable_rate_goes_on(flood: Flood, bound: tuple[str, int]) -> None:
    peer = Peer(Limits(max_concurrent_streams=10))
    for at in range(bound[1] + 1000):
        peer.now += 0.0051  # just below 200 resets a second
        flood(peer, at)
        peer.connection.output.clear()


def test_pings_without_a_call_are_rationed_and_pings_beside_calls_are_not() -> None:
    peer = Peer()
    with pytest.raises(ConnectionFault, match="too_many_pings"):
        for _ in range(4):
            peer.send(h2.PING, 0, 0, b"12345678")
    peer = Peer()
    for number in range(1, 100, 2):
        peer.send(h2.PING, 0, 0, b"12345678")
        peer.call(number, b"x")
    peer = Peer()
    peer.open(1, CHAT)
    for _ in range(20):
        peer.send(h2.PING, 0, 0, b"12345678")
        peer.send(h2.DATA, 0, 1, framed(b"x"))  # and a stream's messages are as good as calls
    peer = Peer()
    peer.open(1, CHAT)
    peer.service.chats[0].call.send(bytes(1 << 20))
    for _ in range(20):
        peer.send(h2.PING, 0, 0, b"12345678")  # as grpc-go measures a link by while it receives
        for stream in (0, 1):
            peer.send(h2.WINDOW_UPDATE, 0, stream, h2.U32.pack(20_000))  # what was queued is as good as well
    peer = Peer()
    for _ in range(20):
        peer.now += Limits().keepalive_min_time_s
        peer.send(h2.PING, 0, 0, b"12345678")


# Memory


def test_a_large_header_block_and_a_large_header_list() -> None:
    peer = Peer()
    with pytest.raises(ConnectionFault, match="header block too large") as fault:
        peer.send(h2.HEADERS, 0, 1, b"\0" * 16_000)
        for _ in range(10):
            peer.send(h2.CONTINUATION, 0, 1, b"\0" * 16_000)
    assert fault.value.code == h2.ENHANCE_YOUR_CALM
    with pytest.raises(ConnectionFault, match="header block too large"):
        Peer(Limits(header_block_bytes=100)).send(h2.HEADERS, 0, 1, b"\0" * 101)
    peer = Peer()
    bomb = peer.encoder.encode([("x", "y" * 4000)]) + peer.encoder.encode([("x", "y" * 4000)]) * 100
    with pytest.raises(ConnectionFault, match="header list too large") as fault:
        peer.send(h2.HEADERS, h2.END_HEADERS, 1, bomb)
    assert fault.value.code == h2.ENHANCE_YOUR_CALM


def test_header_blocks_of_very_many_fields_are_rationed() -> None:
    """One byte of a block may be a field: what is small on the wire takes milliseconds to decode."""
    peer = Peer()
    many = peer.head(HOLD) + b"\x82" * 1_000  # :method GET, again and again
    blocks = 0
    with pytest.raises(ConnectionFault, match="too many control frames") as fault:
        for number in range(1, 1_001, 2):
            peer.send(h2.HEADERS, h2.END_HEADERS, number, many)
            peer.connection.output.clear()
            blocks += 1
    assert fault.value.code == h2.ENHANCE_YOUR_CALM
    assert blocks < 50
    peer = Peer()
    for number in range(1, 20_001, 2):  # and what clients send is not
        peer.call(number, b"x", ECHO, note=str(number))
        peer.connection.output.clear()


def test_remembered_header_blocks_are_small_ones() -> None:
    """1,024 blocks are kept for speed. If they could be of any size, that would be some 128 MiB a connection."""
    peer = Peer()
    plain = literal(":method", "POST") + literal(":path", ECHO) + literal("content-type", "application/grpc")
    blocks = [plain + literal("note", f"{at:04}" + "v" * 12_000) for at in range(400)]
    tracemalloc.start()
    try:
        for at, block in enumerate(blocks):
            peer.send(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 2 * at + 1, block)
            peer.connection.output.clear()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1 << 20


@pytest.mark.parametrize("path", [HOLD, CHAT])
def test_messages_that_never_end_are_bounded_over_all_streams(path: str) -> None:
    peer = Peer(Limits(partial_bytes=50_000))
    with pytest.raises(ConnectionFault, match="too many unfinished messages") as fault:
        for number in range(1, 21, 2):
            peer.open(number, path)
            peer.send(h2.DATA, 0, number, framed(b"x" * 20_000)[:10_000])
    assert fault.value.code == h2.ENHANCE_YOUR_CALM


def test_whole_messages_without_the_end_of_their_stream_count_too() -> None:
    """A unary message waits for END_STREAM. Ten thousand streams could hold 2 MiB each that way."""
    peer = Peer(Limits(partial_bytes=50_000))
    with pytest.raises(ConnectionFault, match="too many unfinished messages"):
        for number in range(1, 21, 2):
            peer.open(number, HOLD)
            peer.send(h2.DATA, 0, number, framed(b"x" * 10_000))


def test_unfinished_messages_are_let_go_with_their_streams() -> None:
    """However a stream ends, what it held is given back to the bound."""
    peer = Peer(Limits(partial_bytes=50_000))

    def finished(number: int) -> None:
        peer.send(h2.DATA, h2.END_STREAM, number, b"x" * 5_000)

    def reset(number: int) -> None:
        peer.send(h2.RST_STREAM, 0, number, h2.U32.pack(h2.CANCEL))

    def cut_short(number: int) -> None:
        peer.send(h2.DATA, h2.END_STREAM, number)

    def out_of_time(number: int) -> None:
        peer.connection.check_deadlines(peer.now + 2)

    def malformed(number: int) -> None:
        peer.send(h2.DATA, 0, number, b"x" * 5_000 + b"\0\xff\xff\xff\xff")

    number = 1
    for _ in range(4):
        for path in (HOLD, CHAT):
            for end in (finished, reset, cut_short, out_of_time, malformed):
                peer.open(number, path, grpc_timeout="1S")
                peer.send(h2.DATA, 0, number, framed(b"x" * 15_000)[:10_005])
                end(number)
                peer.open(number + 2, path, grpc_timeout="1S")  # one that is whole, and waits for its end
                peer.send(h2.DATA, 0, number + 2, framed(b"x" * 10_000))
                peer.send(h2.RST_STREAM, 0, number + 2, h2.U32.pack(h2.CANCEL))
                number += 4
    peer.open(number, HOLD)
    peer.send(h2.DATA, 0, number, framed(b"x" * 60_000)[:10_005])  # alone, well within the bound
    peer.call(number + 2, b"x" * 30_000)
    assert peer.connection.is_overfull is False


def test_replies_that_no_window_takes_are_bounded() -> None:
    peer = Peer(Limits(queued_bytes=100_000))
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 0))
    for number in range(1, 41, 2):
        if not peer.connection.is_overfull:
            peer.call(number, b"x" * 10_000)
    assert peer.connection.is_overfull
    assert peer.connection.is_idle
    assert peer.outputs > 0  # the protocol was told, so that it ends the connection


def test_replies_of_one_turn_are_bounded_though_the_windows_would_take_them() -> None:
    """A peer may open 2 GiB of window and ask for all of it in one segment: that must not be made in one turn."""
    peer = Peer(Limits(queued_bytes=1_000_000))
    widest(peer)
    requests = b""
    for number in range(1, 401, 2):
        requests += h2.frame(h2.HEADERS, h2.END_HEADERS, number, peer.head(HOLD))
        requests += h2.frame(h2.DATA, h2.END_STREAM, number, framed(b"q"))
    peer.feed(requests)
    for call, _ in peer.service.held:
        call.reply(b"x" * 50_000)
        assert sum(map(len, peer.connection.output)) < 1_200_000
    assert peer.connection.is_overfull


def test_replies_of_many_turns_are_not() -> None:
    peer = Peer(Limits(queued_bytes=1_000_000))
    widest(peer)
    for number in range(1, 101, 2):
        peer.call(number, b"x" * 50_000)
        peer.take()
    assert not peer.connection.is_overfull


def test_a_message_of_a_reply_fits_a_frame_and_the_headers_clients_allow() -> None:
    """Percent-encoding makes up to twelve characters of one. grpc-core takes 8 KiB of headers, a frame 16 KiB."""
    peer = Peer()
    for number, text in enumerate(("ü→" * 3000, "😀" * 3000, "plain" * 3000, "%" * 9000)):
        peer.call(2 * number + 1, b"", HOLD)
        peer.service.held[number][0].fail(Status.UNKNOWN, text)
        _, headers = peer.replies()[2 * number + 1]
        message = headers["grpc-message"]
        assert 4000 < len(message) <= 4096
        assert "%" not in message[-2:] or message.endswith("%25")  # no escape is cut in two
    peer.call(9, b"", "/" + "ÿ" * 3000 + "/x")
    assert peer.replies()[9][1]["grpc-status"] == "12"


# Work


def processor_s(action: Action, peer: Peer) -> float:
    begin = time.process_time()
    action(peer)
    return time.process_time() - begin


def test_a_large_reply_costs_what_its_bytes_cost() -> None:
    """It leaves in frames of 16 KiB. Copying the rest for each took 2 s for 32 MiB, and four times that for 64."""
    peer = Peer()
    widest(peer)
    peer.call(1, b"", HOLD)
    reply = b"x" * (32 << 20)
    assert processor_s(lambda p: p.service.held[0][0].reply(reply), peer) < 0.8
    assert len(peer.replies()[1][0]) == len(reply) + 5


def test_a_large_reply_dribbled_out_costs_no_more_a_frame() -> None:
    """CVE-2019-9511: windows a byte at a time."""
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 0))
    peer.call(1, b"", HOLD)
    peer.service.held[0][0].reply(b"x" * (8 << 20))
    update = h2.frame(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(1))
    assert processor_s(lambda p: p.feed(update * 2000), peer) < 0.3
    assert len(peer.replies()[1][0]) == 2000


@pytest.mark.parametrize("stream", [0, 1, 3999])
def test_a_window_update_does_not_visit_streams_it_does_not_concern(stream: int) -> None:
    """2,000 streams wait for windows of their own; 2,000 updates visited each of them: 0.9 s."""
    peer = Peer()
    peer.send(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 0))
    for number in range(1, 4000, 2):
        peer.call(number, b"y" * 3000)
    update = h2.frame(h2.WINDOW_UPDATE, 0, stream, h2.U32.pack(1))
    assert processor_s(lambda p: p.feed(update * 2000), peer) < 0.2


def test_a_connection_window_opened_by_the_byte_visits_one_stream_a_byte() -> None:
    """2,000 streams wait for the connection's window, and each byte of it is one stream's."""
    peer = Peer()
    peer.call(1, b"z" * 70_000)  # what it does not send fills the connection's window
    for number in range(3, 4000, 2):
        peer.call(number, b"y" * 100)
    peer.take()
    update = h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(1))
    peer.send(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(10_000))
    assert processor_s(lambda p: p.feed(update * 2000), peer) < 0.2
    assert sum(len(data) for data, _ in peer.replies().values()) == 2000


def test_one_settings_frame_goes_over_the_streams_once() -> None:
    """Its 2,700 changes of the initial window went over the streams 2,700 times: 0.5 s for one frame of 16 KiB."""
    peer = Peer()
    for number in range(1, 10_000, 2):
        peer.call(number, b"x", HOLD)
    changes = b"".join(h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, at) for at in range(2700))
    assert processor_s(lambda p: p.send(h2.SETTINGS, 0, 0, changes), peer) < 0.1


def test_changes_of_the_initial_window_cost_by_the_streams_they_touch() -> None:
    """With many streams open a change is dear; a peer that makes hundreds of them at once ends."""
    peer = Peer()
    for number in range(1, 20_000, 2):
        peer.call(number, b"x", HOLD)
    change = h2.frame(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 7))
    back = h2.frame(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 8))
    with pytest.raises(ConnectionFault, match="too many control frames"):
        peer.feed((change + back) * 100)
    few = Peer()
    few.call(1, b"x", HOLD)
    few.feed((change + back) * 100)
    unchanged = Peer()
    for number in range(1, 20_000, 2):
        unchanged.call(number, b"x", HOLD)
    unchanged.feed((change) * 200)


def test_calls_leave_nothing_behind() -> None:
    """What ends is forgotten: ten thousand calls later the connection is as small as it was."""
    peer = Peer()
    widest(peer)
    for number in (1, 3, 5):
        peer.call(number, b"x" * 100)  # HPACK's table and the remembered heads have what they will have
    block, request = peer.head(), framed(b"x" * 100)
    script = [
        h2.frame(h2.HEADERS, h2.END_HEADERS, number, block)
        + h2.frame(h2.DATA, h2.END_STREAM, number, request)
        for number in range(7, 20_000, 2)
    ]
    tracemalloc.start()
    try:
        for data in script:
            peer.feed(data)
            peer.connection.output.clear()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peer.connection.is_idle
    assert held < 50_000


# Work in slices, answers as they are taken


def test_much_work_is_done_in_slices() -> None:
    """A read holds 256 KiB, which may be thirty thousand frames: the loop's others must not wait for all of them."""
    peer = Peer(Limits(slice_frames=16))
    requests = b""
    for number in range(1, 51, 2):
        requests += h2.frame(h2.HEADERS, h2.END_HEADERS, number, peer.head(ECHO))
        requests += h2.frame(h2.DATA, h2.END_STREAM, number, framed(b"q"))
    peer.feed(requests[:200])  # the heads are decoded here, and remembered
    answered = len(peer.replies())
    peer.connection.receive(requests[200:], peer.now)
    slices = [len(peer.replies())]
    while peer.connection.has_more:
        peer.connection.receive(b"", peer.now)
        slices.append(len(peer.replies()))
    assert max(slices) <= 3 < len(slices)
    assert sum(slices) == 25 - answered


def test_of_calls_that_are_reset_at_once_few_are_done_in_one_turn() -> None:
    peer = Peer(Limits(slice_frames=100))
    head = peer.head(ECHO)
    attack = b"".join(
        h2.frame(h2.HEADERS, h2.END_HEADERS, number, head)
        + h2.frame(h2.DATA, h2.END_STREAM, number, framed(b"q"))
        + h2.frame(h2.RST_STREAM, 0, number, h2.U32.pack(h2.CANCEL))
        for number in range(1, 101, 2)
    )
    peer.connection.receive(attack, peer.now)
    assert peer.connection.has_more
    assert 0 < len(peer.replies()) <= 4


def test_of_streams_that_are_opened_few_are_in_one_turn() -> None:
    peer = Peer(Limits(slice_frames=100))
    opened = b"".join(
        h2.frame(h2.HEADERS, h2.END_HEADERS, number, peer.head(CHAT)) for number in range(1, 101, 2)
    )
    peer.connection.receive(opened, peer.now)
    assert peer.connection.has_more
    assert 0 < len(peer.connection._streams) <= 7


def test_a_header_block_counts_by_what_it_takes_to_decode() -> None:
    peer = Peer(Limits(slice_frames=100))
    blocks = [literal("n", str(at)) + literal("x", "y" * 3_000) for at in range(4)]
    frames = [h2.frame(h2.HEADERS, h2.END_HEADERS, 2 * at + 1, block) for at, block in enumerate(blocks)]
    peer.connection.receive(b"".join(frames), peer.now)
    assert peer.connection.has_more  # after the first: 150 frames' worth
    assert len(peer.take()) <= 2


class Large:
    """A method whose answers are large, made only when there is room."""

    def __init__(self, size: int) -> None:
        self.made = 0
        self._answer = b"x" * size

    def __call__(self, call: UnaryCall, data: bytes) -> None:
        if call.congested:
            call.when_room(lambda: self(call, data))
            return
        self.made += 1
        call.reply(self._answer)


def with_large(limits: Limits, traffic: Traffic | None = None) -> tuple[Peer, Large]:
    peer, large = Peer(limits, greet=False, traffic=traffic), Large(10_000)
    methods = {**peer.service.methods(), "/test.Test/Large": UnaryMethod(large)}
    peer.connection._heads = HeadReader(methods, limits)
    peer.feed(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 0)))
    peer.take()
    return peer, large


def written(peer: Peer) -> dict[int, tuple[bytes, dict[str, str]]]:
    """What the protocol does once what was written is on its way."""
    found: dict[int, tuple[bytes, dict[str, str]]] = {}
    while peer.connection.output:
        for stream, (data, headers) in peer.replies().items():
            before = found.get(stream, (b"", {}))
            found[stream] = before[0] + data, before[1] | headers
        peer.connection.resume()
    return found


def test_nothing_more_is_made_for_a_client_that_takes_nothing() -> None:
    peer, large = with_large(Limits(congested_bytes=100_000))
    for number in range(1, 101, 2):
        peer.call(number, b"q", "/test.Test/Large")
    written(peer)
    assert large.made == 10  # with the one that goes beyond
    peer.send(h2.RST_STREAM, 0, 99, h2.U32.pack(h2.CANCEL))
    widest(peer)
    peer.connection.resume()
    answers = written(peer)
    assert large.made == 49  # all but the one whose caller has gone
    assert [len(data) for data, _ in answers.values()].count(10_005) == 39  # the first ten went before
    assert not peer.connection._waiting


def test_of_many_large_answers_only_some_are_made_in_one_turn() -> None:
    peer, large = with_large(Limits(turn_bytes=35_000))
    widest(peer)
    for number in range(1, 41, 2):
        peer.call(number, b"q", "/test.Test/Large")
    made = [large.made]
    answers: dict[int, tuple[bytes, dict[str, str]]] = {}
    while peer.connection.output:
        answers |= peer.replies()
        peer.connection.resume()  # as the protocol does when it has written
        made.append(large.made)
    assert made == [4, 8, 12, 16, 20, 20]
    assert [len(data) for data, _ in answers.values()] == [10_005] * 20


def test_an_answer_of_megabytes_arrives_whole() -> None:
    peer, large = with_large(Limits())
    large._answer = b"".join(b"%08d" % at for at in range(3 << 17))
    widest(peer)
    peer.call(1, b"q", "/test.Test/Large")
    ((data, headers),) = written(peer).values()
    assert data == framed(large._answer)
    assert headers["grpc-status"] == "0"


def test_clients_that_take_nothing_share_one_bound() -> None:
    limits, traffic = Limits(congested_bytes=100_000, congested_bytes_of_all=150_000), Traffic()
    peers = [with_large(limits, traffic) for _ in range(20)]
    for peer, _ in peers:
        for number in range(1, 101, 2):
            peer.call(number, b"q", "/test.Test/Large")
        written(peer)
    assert sum(large.made for _, large in peers) <= 16 + 20  # what is shared, and one for each
    for peer, _ in peers:
        peer.connection.lost()
    assert traffic.queued_bytes == 0
