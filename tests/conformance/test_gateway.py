"""The JSON gateway beside etcd's: the same bytes sent to both, the same JSON and status from both.

What may differ is who answered, and what DIFFERENT lists, each with its reason. Replies are compared as values: the
order of fields and the spelling of the same JSON are nobody's promise.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.conformance.etcd_process import Cluster, running_cluster

MASKED = {"cluster_id", "member_id", "raft_term", "leader", "clientURLs", "peerURLs", "raftIndex", "raftTerm"}
MASKED |= {"raftAppliedIndex", "dbSize", "dbSizeInUse", "details"}


class Answer(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Cluster, Cluster]]:
    """Shared by the module's tests: both are given the same, so both stay alike."""
    with running_cluster("etcd") as reference, running_cluster("kvstore") as ours:
        yield reference, ours


def call(
    cluster: Cluster,
    path: str,
    body: str | bytes = "",
    verb: str = "POST",
    **headers: str,
) -> Answer:
    connection = http.client.HTTPConnection(cluster.endpoints[0], timeout=15)
    try:
        connection.request(verb, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    given = {name.lower(): value for name, value in answer.getheaders()}
    is_json = text and given.get("content-type", "").startswith("application/json")
    lines = [json.loads(line) for line in text.splitlines()] if is_json else []
    return Answer(answer.status, lines[0] if len(lines) == 1 else lines if is_json else text, given)


def masked(value: Any) -> Any:
    """Without what depends on who answered, and when."""
    if isinstance(value, list):
        return [masked(each) for each in value]
    if not isinstance(value, dict):
        return value
    hidden = MASKED | {"ID"} if "peerURLs" in value else MASKED
    return {
        name: "*" if name in hidden else masked(inner) for name, inner in value.items() if name != "details"
    }


def both(
    servers: tuple[Cluster, Cluster], path: str, body: str | bytes = "", **more: str
) -> tuple[Answer, Answer]:
    reference, ours = (call(cluster, path, body, **more) for cluster in servers)
    return reference, ours


A, B, C, FOO, SIZED = "YQ==", "Yg==", "Yw==", "Zm9v", "c2l6ZWQ="
# In order: each finds what those before it left.
SAME: list[tuple[str, str]] = [
    ("/v3/kv/put", f'{{"key":"{A}","value":"{B}"}}'),
    ("/v3/kv/put", f'{{"key":"{A}","value":"{C}","prev_kv":true}}'),
    ("/v3/kv/put", f'{{"key":"{A}","ignoreValue":true,"prevKv":true}}'),
    ("/v3/kv/put", f'{{"key":"{B}","value":"","lease":"99"}}'),
    ("/v3/kv/put", "{}"),
    ("/v3/kv/put", f'{{"key":"{A}","value":"{B}","ignore_value":true}}'),
    ("/v3/kv/put", f'{{"key":"{C}","ignore_value":true}}'),
    ("/v3/kv/range", f'{{"key":"{A}"}}'),
    ("/v3/kv/range", ""),
    ("/v3/kv/range", "null"),
    ("/v3/kv/range", f'{{"key":"{A}","bogus":{{"x":[1]}}}}'),
    ("/v3/kv/range", f'{{"key":"{A}"}} trailing'),
    ("/v3/kv/range", f'{{"key":"{A}","key":"{B}"}}'),
    ("/v3/kv/range", f'{{"KEY":"{A}"}}'),
    ("/v3/kv/range", f'{{"key":"{A}","Serializable":true}}'),
    ("/v3/kv/range", f'{{"key":"{A}","limit":"1","revision":2}}'),
    ("/v3/kv/range", f'{{"key":"{A}","limit":null,"sort_order":"DESCEND","sortTarget":"MOD"}}'),
    ("/v3/kv/range", f'{{"key":"{A}","sort_order":1,"sort_target":4}}'),
    ("/v3/kv/range", f'{{"key":"{A}","keys_only":true,"serializable":true}}'),
    ("/v3/kv/range", '{"key":"AA==","range_end":"AA==","count_only":true}'),
    ("/v3/kv/range", f'{{"key":"{A}","revision":"99"}}'),
    ("/v3/kv/range?key=ignored", f'{{"key":"{A}"}}'),
    ("/v3beta/kv/range", f'{{"key":"{A}"}}'),
    ("/v3/kv/txn", "{}"),
    (
        "/v3/kv/txn",
        f'{{"compare":[{{"target":"VALUE","result":"EQUAL","key":"{A}","value":"{C}"}}],'
        f'"success":[{{"requestRange":{{"key":"{A}"}}}},'
        f'{{"request_txn":{{"success":[{{"request_range":{{"key":"{A}"}}}}]}}}},'
        f'{{"request_put":{{"key":"{FOO}","value":"{B}"}}}},{{"request_delete_range":{{"key":"{B}"}}}}],'
        '"failure":null}',
    ),
    ("/v3/kv/txn", f'{{"compare":[{{"target":"CREATE","key":"{A}","create_revision":"77"}}]}}'),
    ("/v3/kv/txn", f'{{"compare":[{{"target":"LEASE","result":"NOT_EQUAL","key":"{A}","lease":1}}]}}'),
    ("/v3/kv/txn", '{"success":[{}]}'),
    ("/v3/kv/txn", f'{{"success":[{{"request_put":{{"key":"{A}"}}}},{{"request_put":{{"key":"{A}"}}}}]}}'),
    ("/v3/kv/deleterange", f'{{"key":"{FOO}","prev_kv":true}}'),
    ("/v3/kv/deleterange", f'{{"key":"{FOO}"}}'),
    ("/v3/kv/compaction", '{"revision":"3"}'),
    ("/v3/kv/compaction", '{"revision":"3"}'),
    ("/v3/kv/compaction", '{"revision":"999","physical":true}'),
    ("/v3/kv/range", f'{{"key":"{A}","revision":"2"}}'),
    ("/v3/lease/grant", '{"TTL":60,"ID":7}'),
    ("/v3/lease/grant", '{"TTL":"60","ID":"7"}'),
    ("/v3/lease/grant", '{"TTL":9000000001}'),
    ("/v3/kv/put", f'{{"key":"{C}","lease":7}}'),
    ("/v3/lease/leases", "{}"),
    ("/v3/kv/lease/leases", ""),
    ("/v3/lease/keepalive", '{"ID":7}'),
    ("/v3/lease/keepalive", '{"ID":"9999"}'),
    ("/v3/lease/keepalive", '{"ID":7}{"ID":8}'),
    ("/v3/lease/keepalive", '{"ID":7}\n{"ID":8}\n'),
    ("/v3/lease/keepalive", ""),
    ("/v3/kv/lease/timetolive", '{"ID":12345}'),
    ("/v3/lease/revoke", '{"ID":9}'),
    ("/v3/kv/lease/revoke", '{"ID":7}'),
    ("/v3/kv/range", f'{{"key":"{C}"}}'),
    ("/v3/lease/revoke", '{"ID":7}'),
    ("/v3/cluster/member/list", "{}"),
    ("/v3/cluster/member/list", '{"linearizable":true}'),
    ("/v3/cluster/member/add", "{}"),
    ("/v3/cluster/member/remove", '{"ID":"5"}'),
    ("/v3/maintenance/alarm", "{}"),
    ("/v3/maintenance/alarm", '{"action":"ACTIVATE","alarm":"NOSPACE"}'),
    ("/v3/kv/put", f'{{"key":"{A}"}}'),
    ("/v3/lease/grant", '{"TTL":60}'),
    ("/v3/maintenance/alarm", '{"action":"DEACTIVATE","alarm":"NOSPACE"}'),
    ("/v3/maintenance/defragment", "{}"),
    ("/v3/maintenance/transfer-leadership", '{"targetID":"4"}'),
    ("/v3/kv/nothing", "{}"),
    ("/v3/", "{}"),
    ("/v3alpha/kv/range", "{}"),
    ("/v3/kv/range/", "{}"),
    ("/nothing", "{}"),
    ("/version", "{}"),
    ("/health", "{}"),
]
# Malformed requests: the same status and code; the texts are each side's own.
MALFORMED: list[tuple[str, str]] = [
    ("/v3/kv/range", '{"key":"Zm9'),
    ("/v3/kv/range", "[]"),
    ("/v3/kv/range", '"x"'),
    ("/v3/kv/range", '{"key":"!!!"}'),
    ("/v3/kv/range", '{"key":5}'),
    ("/v3/kv/range", '{"limit":true}'),
    ("/v3/kv/range", '{"limit":1.5}'),
    ("/v3/kv/range", '{"limit":"x"}'),
    ("/v3/kv/range", '{"limit":""}'),
    ("/v3/kv/range", '{"limit":99999999999999999999}'),
    ("/v3/kv/range", '{"sort_order":"1"}'),
    ("/v3/kv/range", '{"sort_order":"descend"}'),
    ("/v3/kv/range", '{"serializable":"true"}'),
    ("/v3/kv/range", '{"serializable":1}'),
    ("/v3/kv/txn", '{"compare":{"target":"VALUE"}}'),
    ("/v3/kv/txn", '{"compare":[null]}'),
    ("/v3/maintenance/snapshot", "[]"),
]
# (path, body, etcd 3.5.1's status, ours, the reason)
DIFFERENT: list[tuple[str, str, int, int, str]] = [
    ("/v3/kv/range", '{"key":"-_-_"}', 400, 200, "URL-safe base64: taken from 3.6 on"),
    ("/v3/kv/range", '{"key":"Zm8"}', 400, 200, "base64 without padding: taken from 3.6 on"),
    (
        "/v3/kv/range",
        f'{{"key":"{A}","limit":1.0}}',
        400,
        200,
        "whole numbers with a point: taken from 3.6 on",
    ),
    ("/v3/kv/range", f'{{"key":"{A}","limit":" 1"}}', 200, 400, "blanks in numbers: refused from 3.6 on"),
    ("/v3/kv/range", f'{{"key":"{A}","sort_order":17}}', 200, 400, "unknown sort order: refused from 3.6 on"),
    (
        "/v3/kv/txn",
        f'{{"compare":[{{"key":"{A}","version":1,"create_revision":4}}]}}',
        *(200, 400),
        "two fields of a oneof: refused from 3.6 on",
    ),
    ("/v3/lease/keepalive", '{"ID":"x"}', 500, 400, "bad JSON on a stream is the client's mistake too"),
    ("/v3/watch", "bad", 500, 400, "bad JSON on a stream is the client's mistake too"),
    ("/v3/maintenance/hashkv", "{}", 404, 200, "the path was wrong until 3.5.10"),
    ("/v3//kv/range", "{}", 301, 404, "paths are exact: nothing is redirected"),
]


@pytest.mark.parametrize(("path", "body"), SAME)
def test_the_same_answer(servers: tuple[Cluster, Cluster], path: str, body: str) -> None:
    reference, ours = both(servers, path, body)
    assert (ours.status, masked(ours.body)) == (reference.status, masked(reference.body))


@pytest.mark.parametrize(("path", "body"), MALFORMED)
def test_malformed_requests(servers: tuple[Cluster, Cluster], path: str, body: str) -> None:
    reference, ours = both(servers, path, body)
    if ours.status == 501:
        assert ours.body["code"] == 12
        return
    assert (ours.status, ours.body["code"]) == (reference.status, reference.body["code"]) == (400, 3)
    assert ours.body["error"] == ours.body["message"] and "invalid" in ours.body["message"]


@pytest.mark.parametrize(("path", "body", "theirs", "mine", "reason"), DIFFERENT)
def test_differences(
    servers: tuple[Cluster, Cluster], path: str, body: str, theirs: int, mine: int, reason: str
) -> None:
    reference, ours = both(servers, path, body)
    assert (reference.status, ours.status) == (theirs, mine), reason


def test_a_member_that_is_not_there(servers: tuple[Cluster, Cluster]) -> None:
    """Of ours alone: etcd 3.5.1 at times drops a change that follows another one closely, and never answers."""
    for name, urls in (("update", ',"peerURLs":["http://127.0.0.1:1"]'), ("promote", "")):
        answer = call(servers[1], f"/v3/cluster/member/{name}", f'{{"ID":"5"{urls}}}')
        assert (answer.status, answer.body["message"]) == (404, "etcdserver: member not found")
    (voter,) = call(servers[1], "/v3/cluster/member/list", "{}").body["members"]
    answer = call(servers[1], "/v3/cluster/member/promote", f'{{"ID":"{voter["ID"]}"}}')
    assert (answer.status, answer.body["message"]) == (400, "etcdserver: can only promote a learner member")


def test_status(servers: tuple[Cluster, Cluster]) -> None:
    reference, ours = (answer.body for answer in both(servers, "/v3/maintenance/status", "{}"))
    assert set(reference) <= set(ours) and re.fullmatch(r"3\.5\.\d+", ours["version"])
    assert ours["leader"] == ours["header"]["member_id"] and int(ours["raftIndex"]) > 0


def test_verbs(servers: tuple[Cluster, Cluster]) -> None:
    for verb in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
        reference, ours = both(servers, "/v3/kv/range", verb=verb)
        assert (ours.status, ours.body) == (reference.status, reference.body), verb
    for path in ("/v3/nothing", "/nothing", "/"):
        reference, ours = both(servers, path, verb="GET")
        assert (ours.status, ours.body) == (reference.status, reference.body), path
    assert both(servers, "/version", verb="HEAD")[1].status == 200  # etcd: 405


def test_sizes(servers: tuple[Cluster, Cluster]) -> None:
    for size in (1_500_000, 1_700_000, 2_200_000):
        value = base64.b64encode(b"x" * size).decode()
        reference, ours = both(servers, "/v3/kv/put", f'{{"key":"{SIZED}","value":"{value}"}}')
        assert (ours.status, masked(ours.body)) == (reference.status, masked(reference.body)), size
    reference, ours = both(servers, "/v3/kv/range", f'{{"key":"{SIZED}"}}')
    assert ours.body["kvs"][0]["value"] == reference.body["kvs"][0]["value"]
    # A body no message can come of is not read to its end, as etcd would.
    assert both(servers, "/v3/kv/put", " " * 5_000_000)[1].status == 413


def test_timeouts(servers: tuple[Cluster, Cluster]) -> None:
    for timeout in ("1n", "soon"):
        reference, ours = both(servers, "/v3/kv/range", f'{{"key":"{A}"}}', Grpc_Timeout=timeout)
        assert (ours.status, masked(ours.body)) == (reference.status, masked(reference.body))
    for body in ("", f'{{"create_request":{{"key":"{FOO}"}}}}'):
        reference, ours = both(servers, "/v3/watch", body, Grpc_Timeout="50m")
        theirs, mine = ([a.body] if isinstance(a.body, dict) else a.body for a in (reference, ours))
        assert mine[-1]["error"]["grpc_code"] == 4 and ours.status == (504 if len(mine) == 1 else 200)
        # etcd's code is sometimes 2, by which of its two sides notices first
        assert set(theirs[-1]["error"]) <= set(mine[-1]["error"])
        assert "context deadline exceeded" in theirs[-1]["error"]["message"]


def watch(servers: tuple[Cluster, Cluster], body: str, count: int) -> tuple[list[Any], list[Any]]:
    """The first lines of both sides' streams."""

    async def lines(endpoint: str) -> list[Any]:
        url = f"http://{endpoint}/v3/watch"
        async with aiohttp.ClientSession() as session, session.post(url, data=body) as answer:
            assert answer.status == 200
            return [json.loads(await answer.content.readline()) for _ in range(count)]

    async def main() -> list[list[Any]]:
        async with asyncio.timeout(20):
            return [masked(await lines(cluster.endpoints[0])) for cluster in servers]

    reference, ours = asyncio.run(main())
    return reference, ours


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (f'{{"create_request":{{"key":"{A}","range_end":"{A}"}}}}', 1),
        (f'{{"create_request":{{"key":"{A}","start_revision":"1"}}}}', 2),
        (f'{{"create_request":{{"key":"{A}","startRevision":4,"filters":["NODELETE"],"prevKv":true}}}}', 2),
        (
            f'{{"create_request":{{"key":"{A}"}}}}{{"create_request":{{"key":"{B}"}}}}\n{{"progress_request":{{}}}}',
            3,
        ),
        (f'{{"create_request":{{"key":"{A}","watch_id":"5"}}}}{{"cancel_request":{{"watch_id":"5"}}}}', 2),
    ],
)
def test_watches(servers: tuple[Cluster, Cluster], body: str, count: int) -> None:
    """created, events, canceled: in the order that lua-resty-etcd and APISIX rely on."""
    reference, ours = watch(servers, body, count)
    for line in (*reference, *ours):
        if "events" in line["result"]:  # of the past: etcd names its revision of now, ours the last event's
            del line["result"]["header"]["revision"]
    assert ours == reference


def test_a_watch_hears_of_what_happens_later(servers: tuple[Cluster, Cluster]) -> None:
    async def heard(endpoint: str) -> list[Any]:
        async with aiohttp.ClientSession(f"http://{endpoint}") as session:
            body = f'{{"create_request":{{"key":"{FOO}"}}}}'
            async with session.post("/v3/watch", data=body) as answer:
                lines = [json.loads(await answer.content.readline())]
                for path, more in (
                    ("put", f',"value":"{A}"'),
                    ("put", f',"value":"{B}"'),
                    ("deleterange", ""),
                ):
                    await (await session.post(f"/v3/kv/{path}", data=f'{{"key":"{FOO}"{more}}}')).read()
                    lines.append(json.loads(await answer.content.readline()))
                return lines

    async def main() -> list[list[Any]]:
        async with asyncio.timeout(20):
            return [await heard(cluster.endpoints[0]) for cluster in servers]

    reference, ours = asyncio.run(main())
    start = int(reference[0]["result"]["header"]["revision"]) - int(ours[0]["result"]["header"]["revision"])
    assert start == 0, "both were given the same"
    assert masked(ours) == masked(reference)


def test_websockets(servers: tuple[Cluster, Cluster]) -> None:
    async def talk(endpoint: str) -> list[Any]:
        said: list[Any] = []
        async with aiohttp.ClientSession(f"http://{endpoint}") as session:
            async with session.ws_connect("/v3/watch") as socket:
                for text in (f'{{"create_request":{{"key":"{A}"}}}}', '{"progress_request":{}}'):
                    await socket.send_str(text)
                    said.append(json.loads(await socket.receive_str()))
            async with session.ws_connect("/v3/lease/keepalive") as socket:
                for text in ('{"ID":3}', '{"ID":"4"}'):
                    await socket.send_str(text)
                    said.append(json.loads(await socket.receive_str()))
        return said

    async def main() -> list[list[Any]]:
        async with asyncio.timeout(20):
            return [await talk(cluster.endpoints[0]) for cluster in servers]

    reference, ours = asyncio.run(main())
    assert masked(ours) == masked(reference) and len(ours) == 4


def test_what_patroni_does(servers: tuple[Cluster, Cluster]) -> None:
    """Patroni's calls in their order: version, members, a serializable read, a lease, its leader key by
    transactions one within the other, a watch from the revision it read."""
    for cluster in servers:
        version = call(cluster, "/version", verb="GET").body
        assert all(
            part.isdigit() for key in ("etcdserver", "etcdcluster") for part in version[key].split(".")
        )
        assert call(cluster, "/v3/cluster/member/list", "{}").body["members"][0]["clientURLs"]
    prefix, leader = (
        base64.b64encode(b"/service/p/").decode(),
        base64.b64encode(b"/service/p/leader").decode(),
    )
    end = base64.b64encode(b"/service/p0").decode()
    put = f'{{"request_put":{{"key":"{leader}","value":"{A}","lease":"77"}}}}'
    absent = f'[{{"target":"CREATE","result":"EQUAL","key":"{leader}","create_revision":"0"}}]'
    held = f'[{{"target":"VALUE","result":"EQUAL","key":"{leader}","value":"{A}"}}]'
    inner = f'{{"request_txn":{{"compare":{held},"success":[{put}],"failure":[]}}}}'
    steps = [
        ("/v3/kv/range", f'{{"key":"{prefix}","range_end":"{end}","serializable":true}}'),
        ("/v3/lease/grant", '{"TTL":30,"ID":"77"}'),
        ("/v3/lease/keepalive", '{"ID":"77"}'),
        ("/v3/kv/txn", f'{{"compare":{absent},"success":[{put}],"failure":[{inner}]}}'),
        ("/v3/kv/txn", f'{{"compare":{absent},"success":[{put}],"failure":[{inner}]}}'),
        ("/v3/kv/range", f'{{"key":"{prefix}","range_end":"{end}","serializable":true}}'),
        ("/v3/kv/deleterange", f'{{"key":"{leader}"}}'),
        ("/v3/lease/revoke", '{"ID":"77"}'),
        ("/v3/lease/keepalive", '{"ID":"77"}'),  # without a TTL: it is lost
    ]
    answers = [both(servers, path, body) for path, body in steps]
    for (path, body), (reference, ours) in zip(steps, answers):
        assert (ours.status, masked(ours.body)) == (reference.status, masked(reference.body)), (path, body)
    assert "TTL" in answers[2][1].body["result"] and "TTL" not in answers[-1][1].body["result"]
    assert answers[3][1].body["succeeded"] and not answers[4][1].body.get("succeeded", False)
    assert answers[4][1].body["responses"][0]["response_txn"]["succeeded"]
    revision = answers[5][1].body["header"]["revision"]
    body = f'{{"create_request":{{"key":"{prefix}","range_end":"{end}","start_revision":"{revision}"}}}}'
    theirs, mine = watch(servers, body, 2)
    assert mine == theirs
    events = [event for line in mine for event in line["result"].get("events", [])]
    assert [event.get("type", "PUT") for event in events] == ["PUT", "DELETE"]


# What the other services answer.
OTHERS: list[tuple[str, str]] = [
    ("/v3/auth/enable", "{}"),
    ("/v3/auth/authenticate", '{"name":"a","password":"b"}'),
    ("/v3/auth/user/list", "{}"),
    ("/v3/auth/user/get", '{"name":"a"}'),
    ("/v3/auth/role/list", "{}"),
    ("/v3/auth/role/add", '{"name":"r"}'),
    (
        "/v3/auth/role/grant",
        f'{{"name":"r","perm":{{"permType":"READWRITE","key":"{A}","range_end":"{B}"}}}}',
    ),
    ("/v3/auth/role/get", '{"role":"r"}'),
    ("/v3/auth/role/revoke", f'{{"role":"r","key":"{A}","range_end":"{B}"}}'),
    ("/v3/auth/role/delete", '{"role":"r"}'),
    ("/v3/election/leader", f'{{"name":"{A}"}}'),
    ("/v3/election/resign", "{}"),
    ("/v3/election/proclaim", "{}"),
    ("/v3/lock/unlock", f'{{"key":"{FOO}"}}'),
]


@pytest.mark.parametrize(("path", "body"), OTHERS)
def test_the_other_services(servers: tuple[Cluster, Cluster], path: str, body: str) -> None:
    reference, ours = both(servers, path, body)
    assert (ours.status, masked(ours.body)) == (reference.status, masked(reference.body))
