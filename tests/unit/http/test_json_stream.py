"""Bodies in pieces: however they are cut, the same objects come out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.http.json_mapping import BadRequest
from kvstore.http.json_stream import JsonObjects, TooLarge

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a"\\{}[]é \n'), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), max_size=4)


@settings(deadline=None)
@given(OBJECTS, st.sampled_from(["", "\n", " \r\n\t"]), st.integers(1, 7))
def test_any_cut_gives_the_same_objects(values: list[dict[str, Any]], between: str, size: int) -> None:
    body = (between.join(map(json.dumps, values)) + between).encode()
    objects, found = JsonObjects(1 << 20), list[bytes]()
    for start in range(0, len(body), size):
        found += objects.feed(body[start : start + size])
    objects.end()
    assert [json.loads(each) for each in found] == values


def test_an_object_is_given_out_with_its_last_byte() -> None:
    objects = JsonObjects(100)
    assert objects.feed(b'{"a":"}\\"') == []
    assert objects.feed(b'"}') == [b'{"a":"}\\""}']


@pytest.mark.parametrize("body", [b"bad", b"[1]", b"null", b'{} "x"', b"{},{}"])
def test_only_objects_are_requests(body: bytes) -> None:
    with pytest.raises(BadRequest, match="a request begins with"):
        JsonObjects(100).feed(body)


def test_a_body_that_ends_within_an_object() -> None:
    objects = JsonObjects(100)
    assert objects.feed(b'{}{"a":') == [b"{}"]
    with pytest.raises(BadRequest, match="ends within an object"):
        objects.end()


def test_one_object_has_a_bound_and_their_number_has_none() -> None:
    objects = JsonObjects(10)
    assert len(objects.feed(b'{"a":1}' * 1000)) == 1000
    with pytest.raises(TooLarge):
        objects.feed(b'{"a":"long"}')
    with pytest.raises(TooLarge):
        JsonObjects(10).feed(b'{"a":"not even whole')
