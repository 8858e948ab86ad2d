"""The gateway with services made for the purpose: what they see of a call over HTTP, and what its client sees."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kvstore.http.access import AccessControl
from kvstore.http.app import App
from kvstore.http.gateway import Gateway
from kvstore.http.pages import Page, Query
from kvstore.pb.etcdserverpb_pb2 import PutRequest, PutResponse, RangeResponse, WatchRequest, WatchResponse
from kvstore.rpc import Methods, Status, StreamCall, StreamMethod, UnaryCall, UnaryMethod

MESSAGE_BYTES_MAX = 100_000
RANGE, PUT, TXN, WATCH = (f"/etcdserverpb.{name}" for name in ("KV/Range", "KV/Put", "KV/Txn", "Watch/Watch"))
BUG = 666  # what a stream fails at
SNAPSHOT, COMPACT = "/etcdserverpb.Maintenance/Snapshot", "/etcdserverpb.KV/Compact"


class Stream:
    """A stream of watch responses, as a service holds it; each test says what it does."""

    def __init__(self, service: Service, call: StreamCall) -> None:
        self.call = call
        self.heard: list[int] = []
        self.said: asyncio.Queue[str] = asyncio.Queue()
        service.streams.put_nowait(self)

    def message(self, data: bytes) -> None:
        watch_id = WatchRequest.FromString(data).cancel_request.watch_id
        assert watch_id != BUG
        self.heard.append(watch_id)
        self.said.put_nowait("message")

    def half_closed(self) -> None:
        self.said.put_nowait("half_closed")

    def cancelled(self) -> None:
        self.said.put_nowait("cancelled")

    def drained(self) -> None:
        self.said.put_nowait("drained")

    def send(self, watch_id: int, reason: str = "") -> None:
        self.call.send(WatchResponse(watch_id=watch_id, cancel_reason=reason).SerializeToString())

    async def until(self, word: str) -> None:
        async with asyncio.timeout(10):
            while await self.said.get() != word:
                pass


class Service:
    def __init__(self) -> None:
        self.calls: asyncio.Queue[UnaryCall] = asyncio.Queue()
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()

    def methods(self) -> Methods:
        return {
            PUT: UnaryMethod(lambda call, data: call.reply(self.echo(data))),
            RANGE: UnaryMethod(lambda call, data: self.calls.put_nowait(call)),
            TXN: UnaryMethod(lambda call, data: call.fail(Status.NOT_FOUND, "no such thing")),
            COMPACT: UnaryMethod(lambda call, data: call.reply(bytes(1 // 0))),
            WATCH: StreamMethod(lambda call: Stream(self, call)),
            SNAPSHOT: StreamMethod(lambda call: Stream(self, call)),
        }

    @staticmethod
    def echo(data: bytes) -> bytes:
        request = PutRequest.FromString(data)
        reply = PutResponse()
        reply.prev_kv.value = request.value
        return reply.SerializeToString()


class Running:
    def __init__(self, service: Service, url: str, session: aiohttp.ClientSession) -> None:
        self.service = service
        self.url = url
        self.session = session

    async def post(self, path: str, body: Any = b"", **options: Any) -> tuple[int, Any]:
        async with self.session.post(self.url + path, data=body, **options) as answer:
            text = await answer.text()
            is_json = text and answer.content_type == "application/json"
            return answer.status, json.loads(text) if is_json else text

    async def stream(self) -> Stream:
        async with asyncio.timeout(10):
            return await self.service.streams.get()


Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """start(origins=, hosts=) serves; everything is gone afterwards."""
    ends: list[Any] = []

    async def begin(*, origins: str = "*", hosts: str = "*", gateway: bool = True) -> Running:
        async def hello(query: Query) -> Page:
            return Page(f"hello {','.join(query.get('name', ['you']))}\n")

        service = Service()
        made = Gateway(service.methods(), message_bytes_max=MESSAGE_BYTES_MAX) if gateway else None
        app = App({"/hello": hello}, AccessControl(origins=[origins], hosts=[hosts]), made)
        runner = web.AppRunner(
            app.application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.2
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        session = aiohttp.ClientSession()
        ends.extend((session.close, runner.cleanup))
        port = runner.addresses[0][1]
        return Running(service, f"http://127.0.0.1:{port}", session)

    yield begin
    for end in ends:
        await end()


@pytest.fixture
async def running(start: Start) -> Running:
    made: Running = await start()
    return made


async def settled(value: Callable[[], int]) -> None:
    """Waits until a number has stayed what it is for a while."""
    unchanged, last = 0, value()
    async with asyncio.timeout(10):
        while unchanged < 20:
            await asyncio.sleep(0.002)
            unchanged, last = unchanged + 1 if value() == last else 0, value()


# Unary calls


async def test_a_call_and_its_reply(running: Running) -> None:
    assert await running.post("/v3/kv/put", b'{"value":"YQ=="}') == (200, {"prev_kv": {"value": "YQ=="}})
    assert await running.post("/v3beta/kv/put", b"") == (200, {"prev_kv": {}})


async def test_what_fails_is_told_in_both_shapes(running: Running) -> None:
    text = "no such thing"
    body = {"error": text, "message": text, "code": 5, "details": []}
    assert await running.post("/v3/kv/txn") == (404, body)
    status, body = await running.post("/v3/kv/put", b'{"key":')
    assert status == 400 and body["code"] == 3 and "invalid JSON" in body["message"]
    status, body = await running.post("/v3/lock/lock")
    assert status == 501 and body["code"] == 12 and body["message"] == "unknown service v3lockpb.Lock"
    status, body = await running.post("/v3/kv/deleterange")
    assert body["message"] == "unknown method DeleteRange for service etcdserverpb.KV"


async def test_a_bug_in_a_service_is_an_error_of_its_call_alone(running: Running) -> None:
    status, body = await running.post("/v3/kv/compaction")
    assert (status, body["code"], body["message"]) == (500, 13, "internal error")
    assert (await running.post("/v3/kv/put"))[0] == 200


async def test_paths_and_verbs(running: Running) -> None:
    assert await running.post("/v3/kv/nothing") == (404, "Not Found\n")
    assert await running.post("/nothing") == (404, "404 page not found\n")
    for path, allow in (("/v3/kv/put", "POST"), ("/v3/watch", "POST")):
        async with running.session.get(running.url + path) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, allow)
    async with running.session.post(running.url + "/hello") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    async with running.session.get(running.url + "/hello?name=a&name=b") as answer:
        assert (answer.status, await answer.text()) == (200, "hello a,b\n")
    async with running.session.head(running.url + "/hello") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_a_large_value_passes_and_a_larger_one_is_refused(running: Running) -> None:
    def body(size: int) -> bytes:
        return json.dumps({"value": base64.b64encode(b"x" * size).decode()}).encode()

    status, reply = await running.post("/v3/kv/put", body(99_000))
    assert status == 200 and len(base64.b64decode(reply["prev_kv"]["value"])) == 99_000
    status, reply = await running.post("/v3/kv/put", body(100_001))
    assert (status, reply["code"]) == (429, 8) and "larger than max (100005 vs. 100000)" in reply["message"]
    status, reply = await running.post("/v3/kv/put", body(200_000))
    assert (status, reply["code"]) == (413, 8)
    status, reply = await running.post("/v3/watch", body(200_000))
    assert (status, reply["code"]) == (429, 8)


async def test_metadata(running: Running) -> None:
    async def seen(headers: dict[str, str]) -> dict[str, str]:
        task = asyncio.create_task(running.post("/v3/kv/range", headers=headers))
        call = await running.service.calls.get()
        call.reply(b"")
        assert await task == (200, {}) and call.common_name == ""
        return dict(call.metadata)

    assert await seen({}) == {}
    assert await seen({"Grpc-Metadata-hasleader": "true"}) == {"hasleader": "true"}
    assert (await seen({"Authorization": "abc.1"}))["token"] == "abc.1"
    assert (await seen({"Authorization": "Bearer abc.1"}))["token"] == "abc.1"
    both = {"Authorization": "abc.1", "Grpc-Metadata-Token": "def.2"}
    assert await seen(both) == {"authorization": "abc.1", "token": "def.2"}


async def test_a_deadline(running: Running) -> None:
    status, body = await running.post("/v3/kv/range", headers={"Grpc-Timeout": "10m"})
    assert (status, body["code"], body["message"]) == (504, 4, "context deadline exceeded")
    call = await running.service.calls.get()
    assert call.cancelled and call.deadline is not None
    call.reply(b"late")  # and nothing happens
    status, body = await running.post("/v3/kv/range", headers={"Grpc-Timeout": "soon"})
    assert (status, body["message"]) == (400, "invalid grpc-timeout: soon")


async def test_a_client_that_goes_cancels_its_call(running: Running) -> None:
    task = asyncio.create_task(running.post("/v3/kv/range"))
    call = await running.service.calls.get()
    task.cancel()
    async with asyncio.timeout(10):
        while not call.cancelled:  # noqa: ASYNC110  the call is the service's to look at
            await asyncio.sleep(0.005)


async def test_a_reply_too_large_for_one_turn_is_whole(running: Running) -> None:
    reply = RangeResponse(count=5000)
    for number in range(5000):
        reply.kvs.add(key=b"%d" % number)
    task = asyncio.create_task(running.post("/v3/kv/range"))
    (await running.service.calls.get()).reply(reply.SerializeToString())
    status, body = await task
    assert status == 200 and body["count"] == "5000"
    assert [base64.b64decode(kv["key"]) for kv in body["kvs"]] == [b"%d" % number for number in range(5000)]


# Streams


async def test_requests_come_as_they_are_sent_and_replies_go_line_by_line(running: Running) -> None:
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        while (piece := await pieces.get()) is not None:
            yield piece

    pieces.put_nowait(b'{"cancel_request":{"watch_id":1}}{"cancelRequest":')
    begun = asyncio.create_task(running.session.post(running.url + "/v3/watch", data=body()))
    stream = await running.stream()
    await stream.until("message")
    stream.send(1)
    answer = await begun
    assert answer.headers["Content-Type"].startswith("application/json")
    assert await answer.content.readline() == b'{"result":{"watch_id":"1"}}\n'
    pieces.put_nowait(b'{"watch_id":"2"}}\n{"cancel_request":{"watch_id":3}}')
    await stream.until("message")
    await stream.until("message")
    assert stream.heard == [1, 2, 3]
    pieces.put_nowait(None)
    await stream.until("half_closed")
    stream.send(4)  # the end of the body has not ended the stream
    assert await answer.content.readline() == b'{"result":{"watch_id":"4"}}\n'
    stream.call.finish(Status.UNAVAILABLE, "etcdserver: no leader")
    error = json.loads(await answer.content.readline())["error"]
    assert (error["grpc_code"], error["http_code"], error["message"]) == (14, 503, "etcdserver: no leader")
    assert await answer.content.read() == b""


async def test_a_stream_that_fails_before_its_first_line_has_its_status(running: Running) -> None:
    task = asyncio.create_task(running.post("/v3/watch", b"{}"))
    (await running.stream()).call.finish(Status.UNAVAILABLE, "etcdserver: no leader")
    status, body = await task
    assert (status, body["error"]["code"]) == (503, 14)
    task = asyncio.create_task(running.post("/v3/watch", b""))
    (await running.stream()).call.finish()
    assert await task == (200, "")


async def test_bad_json_before_the_stream_and_in_it(running: Running) -> None:
    status, body = await running.post("/v3/watch", b"bad")
    assert (status, body["code"]) == (400, 3) and running.service.streams.empty()
    status, body = await running.post("/v3/watch", b'{"cancel_request":{}} {bad')
    assert (status, body["error"]["code"]) == (400, 3) and "ends within an object" in body["error"]["message"]
    await (await running.stream()).until("cancelled")


async def test_a_bug_in_a_stream_is_an_error_of_its_call_alone(running: Running) -> None:
    status, body = await running.post("/v3/watch", b'{"cancel_request":{"watch_id":666}}')
    assert (status, body["error"]["code"], body["error"]["message"]) == (500, 13, "internal error")
    await (await running.stream()).until("cancelled")


async def test_a_streams_deadline(running: Running) -> None:
    status, body = await running.post("/v3/watch", b"{}", headers={"Grpc-Timeout": "20m"})
    assert (status, body["error"]["grpc_code"]) == (504, 4)
    await (await running.stream()).until("cancelled")


async def test_a_stream_whose_client_goes_is_cancelled(running: Running) -> None:
    answer = asyncio.create_task(running.session.post(running.url + "/v3/watch", data=b"{}"))
    stream = await running.stream()
    await stream.until("half_closed")
    stream.send(1)
    (await answer).close()
    await stream.until("cancelled")
    assert stream.call.cancelled


async def test_a_slow_client_is_waited_for(running: Running) -> None:
    answer_task = asyncio.create_task(running.session.post(running.url + "/v3/watch", data=b"{}"))
    stream = await running.stream()
    await stream.until("half_closed")
    line, count = "x" * 50_000, 600  # 30 MB: more than the sockets and both sides' buffers hold
    for number in range(count):
        stream.send(number, line)
    answer = await answer_task
    await settled(lambda: stream.call.buffered_bytes)
    assert stream.call.buffered_bytes > 8 << 20 and stream.said.empty()
    for number in range(count):
        assert json.loads(await answer.content.readuntil(b"\n"))["result"].get("watch_id", "0") == str(number)
    await stream.until("drained")
    assert stream.call.buffered_bytes == 0
    answer.close()


async def test_a_server_stream_takes_one_request(running: Running) -> None:
    task = asyncio.create_task(running.post("/v3/maintenance/snapshot", b"{}{}"))
    stream = await running.stream()
    await stream.until("half_closed")
    assert stream.heard == [0]
    stream.call.finish()
    assert (await task)[0] == 200


async def test_a_member_that_stops_says_so(start: Start) -> None:
    service = Service()
    gateway = Gateway(service.methods(), message_bytes_max=MESSAGE_BYTES_MAX)
    app = App({}, AccessControl(origins=["*"], hosts=["*"]), gateway)
    runner = web.AppRunner(app.application(), handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession() as session:
        made = Running(service, f"http://127.0.0.1:{runner.addresses[0][1]}", session)
        task = asyncio.create_task(made.post("/v3/watch", b"{}"))
        await (await made.stream()).until("half_closed")
        app.close()
        status, body = await task
        assert (status, body["error"]["message"]) == (503, "etcdserver: server stopped")
    await runner.cleanup()


# Websockets


async def test_a_websocket_carries_a_stream(running: Running) -> None:
    async with running.session.ws_connect(running.url + "/v3/watch", protocols=["Bearer", "abc.1"]) as socket:
        assert socket.protocol == "Bearer"
        await socket.send_str('{"cancel_request":{"watch_id":1}}')
        stream = await running.stream()
        assert stream.call.metadata["token"] == "abc.1"
        await stream.until("message")
        await socket.send_str('{"cancel_request":{"watch_id":2}}\n{"cancel_request":{"watch_id":3}}')
        await stream.until("message")
        await stream.until("message")
        assert stream.heard == [1, 2, 3]
        stream.send(5)
        assert await socket.receive_str() == '{"result":{"watch_id":"5"}}'
    await stream.until("cancelled")  # a websocket's end ends the call: there is no half-close


async def test_a_websockets_stream_ends_with_its_error(running: Running) -> None:
    async with running.session.ws_connect(running.url + "/v3/watch") as socket:
        await socket.send_str("{}")
        (await running.stream()).call.finish(Status.UNAVAILABLE, "etcdserver: no leader")
        assert json.loads(await socket.receive_str())["error"]["grpc_code"] == 14
        assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE
    async with running.session.ws_connect(running.url + "/v3/watch") as socket:
        await socket.send_str("bad")
        assert json.loads(await socket.receive_str())["code"] == 3
        assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE


async def test_a_websocket_carries_one_unary_call(running: Running) -> None:
    async with running.session.ws_connect(running.url + "/v3/kv/put") as socket:
        await socket.send_str('{"value":"YQ=="}')
        assert json.loads(await socket.receive_str()) == {"prev_kv": {"value": "YQ=="}}
        assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE


# Access


async def test_hosts_and_origins(start: Start) -> None:
    running: Running = await start(origins="http://good", hosts="127.0.0.1")
    async with running.session.get(running.url + "/hello", headers={"Origin": "http://good"}) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "http://good"
    async with running.session.get(running.url + "/hello", headers={"Origin": "http://evil"}) as answer:
        assert answer.status == 200 and "Access-Control-Allow-Origin" not in answer.headers
    async with running.session.get(running.url + "/hello", headers={"Host": "evil:2379"}) as answer:
        assert answer.status == 421 and "--host-whitelist=evil" in await answer.text()
    options = {"Origin": "http://good", "Access-Control-Request-Method": "POST"}
    async with running.session.options(running.url + "/v3/kv/put", headers=options) as answer:
        assert answer.status == 200 and "POST" in answer.headers["Access-Control-Allow-Methods"]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await running.session.ws_connect(running.url + "/v3/watch", origin="http://evil")
    assert refused.value.status == 403


async def test_a_stream_carries_the_origins_headers_too(running: Running) -> None:
    task = asyncio.create_task(running.session.post(running.url + "/v3/watch", data=b"{}"))
    stream = await running.stream()
    stream.send(1)
    answer = await task
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    answer.close()


async def test_without_the_gateway_its_paths_are_unknown(start: Start) -> None:
    running: Running = await start(gateway=False)
    assert await running.post("/v3/kv/put", b"{}") == (404, "404 page not found\n")
