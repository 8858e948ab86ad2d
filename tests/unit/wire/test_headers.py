"""kvstore/wire/headers.py: what a request asks for, what is remembered of it, and how replies are encoded."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.rpc import Status
from kvstore.wire.frames import COMPRESSION_ERROR, ConnectionFault
from kvstore.wire.headers import OK_TRAILERS, REPLY_HEADERS, Head, HeadReader, literal, refusal, trailers
from kvstore.wire.limits import Limits
from tests.unit.wire.peer import CHAT, ECHO, Service

METHODS = Service().methods()
REQUEST = {":method": "POST", ":scheme": "http", ":path": ECHO, "content-type": "application/grpc"}


def plain(fields: dict[str, str]) -> bytes:
    """A block that no dynamic table has a part in."""
    return b"".join(literal(name, value) for name, value in fields.items())


def decoded(block: bytes) -> dict[str, str]:
    return {str(name): str(value) for name, value in Decoder().decode(block)}


def read(**changes: str) -> Head:
    fields = REQUEST | {name.replace("_", "-"): value for name, value in changes.items()}
    return HeadReader(METHODS, Limits()).read(plain(fields))


def path(name: str) -> dict[str, str]:
    return REQUEST | {":path": name}


@pytest.mark.parametrize("name", [ECHO, CHAT])
def test_a_request_finds_its_method(name: str) -> None:
    head = HeadReader(METHODS, Limits()).read(plain(path(name)))
    assert head.method is not None and type(head.method) is type(METHODS[name])
    assert (head.refusal, head.timeout_s, head.encoding) == (None, None, b"identity")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600.0),
        ("2M", 120.0),
        ("3S", 3.0),
        ("250m", 0.25),
        ("7u", 7e-6),
        ("1n", 1e-9),
        ("0S", 0.0),
        ("99999999H", 99_999_999 * 3600.0),  # eight digits are the most
    ],
)
def test_timeouts(text: str, seconds: float) -> None:
    head = read(grpc_timeout=text)
    assert head.timeout_s == pytest.approx(seconds)
    assert head.refusal is None


@pytest.mark.parametrize(
    "text", ["", "S", "1", "1s", "-1S", "1.5S", " 1S", "1S ", "1S\n", "123456789S", "١S"]
)
def test_what_is_no_timeout(text: str) -> None:
    head = HeadReader(METHODS, Limits()).read(
        plain(REQUEST) + b"\x00\x0cgrpc-timeout" + bytes((len(text.encode()),)) + text.encode()
    )
    assert head.method is None and head.refusal is not None
    assert decoded(head.refusal)["grpc-status"] == str(int(Status.INTERNAL))


def test_a_client_api_version_that_is_no_text_is_refused() -> None:
    """As by etcd from 3.6 on. Cut off for the metric, it may end within a character."""
    for version, is_text in (
        (b"3.5.21", True),
        (b"3.5\xff", False),
        (b"\xc3", False),
        (("ü" * 40).encode(), True),
    ):
        block = plain(REQUEST) + b"\x00\x12client-api-version" + bytes((len(version),)) + version
        head = HeadReader(METHODS, Limits()).read(block)
        assert (head.method is not None) == is_text, version
        if not is_text:
            assert head.refusal is not None
            reply = decoded(head.refusal)
            assert (reply["grpc-status"], reply["grpc-message"]) == (
                str(int(Status.INVALID_ARGUMENT)),
                "etcdserver: invalid client api version",
            )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({":method": "GET"}, {":status": "405"}),
        ({"content-type": "text/html"}, {":status": "415"}),
        ({"content-type": ""}, {":status": "415"}),
        ({"grpc-encoding": "br"}, {"grpc-status": "12", "grpc-accept-encoding": "identity,gzip"}),
        ({":path": "/no.Such/Thing"}, {"grpc-status": "12", "grpc-message": "unknown service no.Such"}),
        (
            {":path": "/test.Test/Thing"},
            {"grpc-status": "12", "grpc-message": "unknown method Thing for service test.Test"},
        ),
        ({":path": ""}, {"grpc-status": "12", "grpc-message": 'malformed method name: ""'}),
        ({":path": "test.Test/Echo"}, {"grpc-status": "12"}),
        ({":path": ECHO + "/"}, {"grpc-status": "12"}),
        ({":path": "/ü%\n"}, {"grpc-status": "12"}),
    ],
)
def test_refusals(changes: dict[str, str], expected: dict[str, str]) -> None:
    head = HeadReader(METHODS, Limits()).read(plain(REQUEST | changes))
    assert head.method is None and head.refusal is not None
    reply = decoded(head.refusal)
    assert reply.items() >= expected.items()
    assert next(iter(reply)) == ":status"  # pseudo-headers come first


def test_subtypes_of_grpc_are_grpc() -> None:
    assert read(content_type="application/grpc+proto").refusal is None
    assert read(grpc_encoding="gzip").encoding == b"gzip"


def test_an_empty_block_is_refused_like_any_request_that_is_none() -> None:
    head = HeadReader(METHODS, Limits()).read(b"")
    assert head.refusal is not None and decoded(head.refusal) == {":status": "405"}


def test_metadata_has_no_pseudo_headers_and_joins_what_is_repeated() -> None:
    block = plain(REQUEST) + plain({"Note": "a"}) + plain({"note": "b"}) + plain({"raw-bin": "AAE="})
    head = HeadReader(METHODS, Limits()).read(block)
    assert head.metadata == {"content-type": "application/grpc", "note": "a,b", "raw-bin": "AAE="}
    assert head.metadata is head.metadata  # built once


def test_metadata_that_is_no_utf8_does_no_harm() -> None:
    head = HeadReader(METHODS, Limits()).read(plain(REQUEST) + b"\x00\x01\xff\x02\xc3\x28")
    assert head.metadata["ÿ"] == "\N{REPLACEMENT CHARACTER}("


# What is remembered


def test_a_block_that_changes_no_table_is_remembered() -> None:
    reader = HeadReader(METHODS, Limits())
    assert reader.read(plain(REQUEST)) is reader.read(plain(REQUEST))


def test_at_most_so_many_are() -> None:
    reader = HeadReader(METHODS, Limits(head_cache_entries=2))
    blocks = [plain(REQUEST | {"note": str(at)}) for at in range(3)]
    first = [reader.read(block) for block in blocks]
    assert [reader.read(block) is head for block, head in zip(blocks, first)] == [True, True, False]


INDEXED_62, INDEXED_63 = b"\xbe", b"\xbf"
TABLE_OF_0, TABLE_OF_100, TABLE_OF_4096 = b"\x20", b"\x3f\x45", b"\x3f\xe1\x1f"


def insert(name: str, value: str) -> bytes:
    """Literal with incremental indexing (RFC 7541 6.2.1): the field goes to the front of the table."""
    return b"\x40" + literal(name, value)[1:]


@pytest.mark.parametrize(
    "change",
    [
        insert("note", "second"),  # one more
        TABLE_OF_0 + TABLE_OF_4096 + insert("note", "second"),  # as many as before, all others
        insert("filler", "x" * 4000) + insert("note", "second"),  # evicts
    ],
)
def test_an_index_means_what_the_table_says_now(change: bytes) -> None:
    """The same byte, 62, asks for the table's newest entry; remembering it over a change would be wrong."""
    reader = HeadReader(METHODS, Limits())
    reader.read(insert("note", "first"))
    asks = plain(REQUEST) + INDEXED_62
    assert reader.read(asks).metadata["note"] == "first"
    assert reader.read(asks).metadata["note"] == "first"
    reader.read(change)
    assert reader.read(asks).metadata["note"] == "second"


def test_an_index_into_an_emptied_table_is_an_error() -> None:
    reader = HeadReader(METHODS, Limits())
    reader.read(insert("note", "first"))
    asks = plain(REQUEST) + INDEXED_62
    reader.read(asks)
    reader.read(TABLE_OF_0 + TABLE_OF_4096)
    with pytest.raises(ConnectionFault) as fault:
        reader.read(asks)
    assert fault.value.code == COMPRESSION_ERROR


def test_an_entry_evicted_at_the_far_end_is_noticed() -> None:
    """The newest entry is the same, and so is the size of the table: only the number of entries tells."""
    reader = HeadReader(METHODS, Limits())
    reader.read(insert("note", "older" + "x" * 100))
    reader.read(insert("note", "newer"))
    asks = plain(REQUEST) + INDEXED_63
    assert reader.read(asks).metadata["note"].startswith("older")
    reader.read(TABLE_OF_100 + TABLE_OF_4096)
    with pytest.raises(ConnectionFault):
        reader.read(asks)


def test_a_block_that_changes_the_tables_size_is_not_remembered() -> None:
    reader = HeadReader(METHODS, Limits())
    for block in (TABLE_OF_100, TABLE_OF_4096, TABLE_OF_100):
        reader.read(block)
    reader.read(insert("note", "x" * 100))  # more than the table takes: it stays empty
    with pytest.raises(ConnectionFault):
        reader.read(plain(REQUEST) + INDEXED_62)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "1", "22", "x" * 900])), max_size=40))
def test_a_reader_that_remembers_reads_as_one_that_does_not(notes: list[tuple[str, str]]) -> None:
    encoder, reader, naive = Encoder(), HeadReader(METHODS, Limits()), Decoder()
    for name, value in notes:
        block = encoder.encode([*REQUEST.items(), (name, value)])
        expected = [(bytes(field), bytes(text)) for field, text in naive.decode(block, raw=True)]
        assert reader.read(block).fields == expected


@pytest.mark.parametrize(
    "block", [b"\x80", b"\xff\xff\xff", b"\x00\x7f", b"\x3f\xe2\x1f", b"\x00\x81\xff\x01a"]
)
def test_blocks_that_are_no_hpack(block: bytes) -> None:
    """Index 0, an endless integer, a truncated string, a table above 4,096 bytes, and bad Huffman padding."""
    with pytest.raises(ConnectionFault) as fault:
        HeadReader(METHODS, Limits()).read(block)
    assert fault.value.code == COMPRESSION_ERROR


# Replies


def test_constant_replies_are_what_they_say() -> None:
    assert decoded(REPLY_HEADERS) == {":status": "200", "content-type": "application/grpc"}
    assert decoded(OK_TRAILERS) == {"grpc-status": "0"}


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 16_510, 16_511, 60_000])
def test_literals_of_every_length(size: int) -> None:
    decoder = Decoder()
    name, value = "n" * size, "v" * (60_000 - size)
    (found,) = decoder.decode(literal(name, value), raw=True)
    assert (found[0], found[1]) == (name.encode(), value.encode())
    assert len(decoder.header_table.dynamic_entries) == 0


@settings(max_examples=50)
@given(st.text(max_size=200))
def test_messages_survive_percent_encoding(text: str) -> None:
    reply = decoded(trailers(Status.ABORTED, text))
    assert reply["grpc-status"] == "10"
    assert unquote(reply.get("grpc-message", "")) == text
    assert all(" " <= character <= "~" for character in reply.get("grpc-message", ""))


@settings(max_examples=30)
@given(st.text(max_size=40), st.integers(50, 400))
def test_a_message_is_cut_between_escapes(text: str, times: int) -> None:
    text *= times
    message = decoded(refusal(Status.ABORTED, text)).get("grpc-message", "")
    assert len(message) <= 4096
    assert text.encode().startswith(_bytes_of(message))


def _bytes_of(escaped: str) -> bytes:
    out, at = bytearray(), 0
    while at < len(escaped):
        if escaped[at] == "%":
            out.append(int(escaped[at + 1 : at + 3], 16))
            assert len(escaped[at + 1 : at + 3]) == 2
            at += 3
        else:
            out.append(ord(escaped[at]))
            at += 1
    return bytes(out)
