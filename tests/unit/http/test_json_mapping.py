"""JSON in etcd's spelling, and each thing json_format alone would let through."""

from __future__ import annotations

import base64
import json

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.http.json_mapping import BadRequest, parse, to_json, to_message
from kvstore.pb.etcdserverpb_pb2 import (
    LeaseGrantRequest,
    MemberAddRequest,
    PutRequest,
    RangeRequest,
    ResponseHeader,
    TxnRequest,
    TxnResponse,
    WatchResponse,
)
from kvstore.pb.mvccpb_pb2 import Event, KeyValue


def read(text: str, kind: type[Message] = RangeRequest) -> Message:
    return to_message(parse(text.encode()), kind)


@pytest.mark.parametrize(
    "text", ["", "  \n", "{}", "null", '{"key":null}', '{"bogus":[1,{"key":2}]}', '{"[a.b]":1}']
)
def test_nothing_asked_is_the_empty_request(text: str) -> None:
    assert read(text) == RangeRequest()


def test_proto_names_and_camel_case() -> None:
    wanted = RangeRequest(key=b"a", range_end=b"b", sort_order=RangeRequest.DESCEND, count_only=True)
    assert read('{"key":"YQ==","range_end":"Yg==","sort_order":"DESCEND","count_only":true}') == wanted
    assert read('{"key":"YQ==","rangeEnd":"Yg==","sortOrder":2,"countOnly":true}') == wanted


def test_names_are_told_apart_by_case() -> None:
    assert read('{"ttl":60,"id":8}', LeaseGrantRequest) == LeaseGrantRequest()
    assert read('{"TTL":"60","ID":8}', LeaseGrantRequest) == LeaseGrantRequest(TTL=60, ID=8)


def test_what_follows_the_first_value_is_not_read() -> None:
    assert read('{"key":"YQ=="} trailing') == read('{"key":"YQ=="}{"key":"Yg=="}') == RangeRequest(key=b"a")


@pytest.mark.parametrize("text", ["+/8=", "-_8=", "+/8", "-_8"])
def test_base64_in_both_alphabets_with_and_without_padding(text: str) -> None:
    assert read(json.dumps({"key": text})) == RangeRequest(key=b"\xfb\xff")


@pytest.mark.parametrize("number", ["7", '"7"', "7.0", "7e0"])
def test_integers(number: str) -> None:
    assert read(f'{{"limit":{number}}}') == RangeRequest(limit=7)


def test_an_unknown_number_of_an_enum_is_kept() -> None:
    assert read('{"sort_order":17}') == RangeRequest(sort_order=17)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"key":"Zm9', "invalid JSON at character 7"),
        ("[]", "it must be a JSON object, not an array"),
        ('"x"', "it must be a JSON object, not a string"),
        ("NaN", "NaN is no JSON value"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 10_000, "invalid JSON"),
        ("\udcff", "not UTF-8 at byte 0"),
        ('{"key":"!!!"}', "key must be base64"),
        ('{"key":"YQ="}', "key must be base64"),
        ('{"key":"Y"}', "key must be base64"),
        ('{"key":"YQ==YQ=="}', "key must be base64"),
        ('{"key":5}', "key must be a base64 string, not a number"),
        ('{"limit":true}', "limit must be an integer, not a boolean"),
        ('{"limit":1.5}', "limit must be an integer, not 1.5"),
        ('{"limit":"1_000"}', "limit must be an integer"),
        ('{"limit":""}', "limit must be an integer"),
        ('{"limit":99999999999999999999}', "out of range"),
        ('{"sort_order":"descend"}', "sort_order must be one of NONE, ASCEND, DESCEND"),
        ('{"sort_order":"1"}', "sort_order must be one of"),
        ('{"sort_order":true}', "sort_order must be a name or a number"),
        ('{"serializable":"true"}', "serializable must be true or false, not a string"),
    ],
)
def test_what_is_wrong_is_told(text: str, problem: str) -> None:
    with pytest.raises(BadRequest, match=problem):
        to_message(parse(text.encode("utf-8", "surrogateescape")), RangeRequest)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"compare":{"key":""}}', "compare must be a JSON array, not an object"),
        ('{"compare":[null]}', r"compare\[0\] must be a JSON object, not null"),
        ('{"compare":["abc"]}', r"compare\[0\] must be a JSON object, not a string"),
        (
            '{"compare":[{},{"version":1,"createRevision":4}]}',
            r"compare\[1\] can have only one of version and",
        ),
        ('{"success":[{"request_put":{"key":5}}]}', r"success\[0\].request_put.key must be a base64 string"),
        ('{"success":[{"request_txn":' * 60 + "{}" + "}]}" * 60, "nested too deeply"),
    ],
)
def test_what_is_wrong_inside_is_told_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(BadRequest, match=problem):
        to_message(parse(text.encode()), TxnRequest)


def test_strings_are_strings() -> None:
    assert read('{"peerURLs":["http://h:1"],"isLearner":true}', MemberAddRequest) == MemberAddRequest(
        peerURLs=["http://h:1"], isLearner=True
    )
    with pytest.raises(BadRequest, match=r"peerURLs\[0\] must be a string, not a number"):
        read('{"peerURLs":[5]}', MemberAddRequest)


def test_replies_in_etcds_spelling() -> None:
    header = ResponseHeader(cluster_id=(1 << 64) - 1, revision=7, raft_term=2)
    event = Event(type=Event.DELETE, kv=KeyValue(key=b"\xfb\xff", mod_revision=7))
    reply = WatchResponse(header=header, watch_id=-1, events=[event, Event(kv=KeyValue(key="é".encode()))])
    assert to_json(reply) == (
        '{"header":{"cluster_id":"18446744073709551615","revision":"7","raft_term":"2"},"watch_id":"-1",'
        '"events":[{"type":"DELETE","kv":{"key":"+/8=","mod_revision":"7"}},{"kv":{"key":"w6k="}}]}'
    )


def test_an_empty_message_that_is_set_stays() -> None:
    reply = TxnResponse(succeeded=True)
    reply.responses.add().response_txn.header.SetInParent()
    assert to_json(reply) == '{"succeeded":true,"responses":[{"response_txn":{"header":{}}}]}'


@settings(deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(-(1 << 63), (1 << 63) - 1), st.booleans())
def test_what_is_written_is_read_back(key: bytes, value: bytes, lease: int, flag: bool) -> None:
    request = PutRequest(key=key, value=value, lease=lease, prev_kv=flag)
    assert to_message(parse(to_json(request).encode()), PutRequest) == request


@settings(deadline=None)
@given(st.text(max_size=12))
def test_a_bytes_field_is_taken_whole_or_refused(text: str) -> None:
    """Never with characters left out, as b64decode does by itself."""
    try:
        request = to_message({"key": text}, RangeRequest)
    except BadRequest:
        return
    standard = base64.b64encode(request.key).decode().rstrip("=")
    assert standard == text.replace("-", "+").replace("_", "/").rstrip("=") or len(text.rstrip("=")) % 4
