"""bbolt's files: what is written is read back, and damage is found rather than believed."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvstore.etcd_db.pages import HEADER, META_BYTES, PAGE_BYTES, BadDatabase, decode_meta, fnv1a
from kvstore.etcd_db.reader import Bucket, Database, Element
from kvstore.etcd_db.status import status, verify_digest
from kvstore.etcd_db.writer import Items, write_database

keys = st.one_of(st.binary(min_size=1, max_size=24), st.binary(min_size=900, max_size=1200))
values = st.one_of(st.binary(max_size=40), st.integers(0, 9000).map(lambda size: b"v" * size))
maps = st.dictionaries(keys, values, max_size=60)
trees = st.dictionaries(
    keys, st.one_of(values, maps, st.dictionaries(keys, st.one_of(values, maps), max_size=5)), max_size=20
)
Tree = dict[bytes, "bytes | Tree"]


def items(tree: Tree) -> Items:
    return [(key, value if isinstance(value, bytes) else items(value)) for key, value in sorted(tree.items())]


def tree(bucket: Bucket) -> Tree:
    found: Tree = {}
    for key, element in bucket:
        found[key] = element if isinstance(element, bytes) else tree(element)
    assert list(found) == sorted(found)
    return found


def written(path: Path, content: Items) -> Path:
    with path.open("wb") as file:
        assert write_database(file, content) == file.tell()
    return path


def read(path: Path) -> Tree:
    with Database(str(path)) as database:
        database.begin_verify()
        found = tree(database.root)
        database.end_verify()
        assert database.size == path.stat().st_size
        return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=trees)
def test_any_tree_comes_back(tmp_path: Path, made: Tree) -> None:
    """Buckets in buckets, inline or not, values over many pages; and every page is used once."""
    assert read(written(tmp_path / "x.db", items(made))) == made


@pytest.mark.parametrize("count", [0, 1, 30, 180, 181, 20_000, 60_000])
def test_trees_of_every_height(tmp_path: Path, count: int) -> None:
    """One leaf, one branch, and branches above branches; some counts leave a single page for the last branch."""
    made = [(b"%017d" % number, b"v" * 20) for number in range(count)]
    assert read(written(tmp_path / "x.db", [(b"key", made)])) == {b"key": dict(made)}


def test_every_branch_has_two_children(tmp_path: Path) -> None:
    """bbolt merges a branch with fewer away; long keys make pages of few."""
    random_ = random.Random(1)
    for count in range(2, 40):
        made = sorted(
            {random_.randbytes(random_.choice([20, 1500, 4000])): b"" for _ in range(count)}.items()
        )
        path = written(tmp_path / "x.db", [(b"key", made)])
        assert read(path) == {b"key": dict(made)}
        data = path.read_bytes()
        at = 0
        while at < len(data):
            _, kind, elements, overflow = HEADER.unpack_from(data, at)
            assert kind != 1 or elements >= 2
            at += PAGE_BYTES * (1 + overflow)


def test_equal_items_make_equal_files() -> None:
    one, other = io.BytesIO(), io.BytesIO()
    made = [(b"key", [(b"%d" % number, b"v" * number) for number in range(1000, 2000)])]
    write_database(one, made)
    write_database(other, iter(made))
    assert one.getvalue() == other.getvalue()


@pytest.mark.parametrize("wrong", [[b"b", b"a"], [b"a", b"a"], [b""], [b"k" * 40_000]])
def test_keys_out_of_order_or_measure_are_refused(wrong: list[bytes]) -> None:
    with pytest.raises(ValueError, match="key "):
        write_database(io.BytesIO(), [(b"key", [(key, b"") for key in wrong])])


def test_fnv1a_is_the_published_one() -> None:
    assert fnv1a(b"") == 0xCBF29CE484222325
    assert fnv1a(b"a") == 0xAF63DC4C8601EC8C
    assert fnv1a(b"foobar") == 0x85944171F73967E8


def test_the_newer_valid_meta_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "x.db", [(b"key", [(b"a", b"1")])])
    data = bytearray(path.read_bytes())
    first = decode_meta(bytes(data[:META_BYTES]))
    assert first is not None
    assert first.transaction == 2
    data[META_BYTES - 1] ^= 1
    path.write_bytes(data)
    assert read(path) == {b"key": {b"a": b"1"}}
    with Database(str(path)) as database:
        assert database.meta.transaction == 1
    data[PAGE_BYTES + META_BYTES - 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadDatabase, match="not a bbolt database"):
        Database(str(path))


def test_damage_to_the_structure_is_bad_database_and_nothing_else(tmp_path: Path) -> None:
    """Any byte may be anything: reading ends, in order (which tree() asserts) or with BadDatabase. Keys and values
    themselves have no checksum in this format, so some changes go through."""
    random_ = random.Random(7)
    made = [(b"alarm", []), (b"key", [(b"%05d" % number, b"v" * 50) for number in range(2000)])]
    path = written(tmp_path / "x.db", made)
    good = path.read_bytes()
    seen = 0
    for _ in range(200):
        data = bytearray(good)
        at = random_.randrange(2 * PAGE_BYTES, len(data))
        at -= random_.choice([0, at % PAGE_BYTES, at % PAGE_BYTES - 16])
        for offset in range(random_.choice([1, 4, 8])):
            data[min(at + offset, len(data) - 1)] = random_.choice([0, 1, 255, random_.randrange(256)])
        path.write_bytes(data)
        try:
            read(path)
        except BadDatabase:
            seen += 1
    assert seen > 80


def test_a_file_that_is_cut_off_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "x.db", [(b"key", [(b"%05d" % number, b"v" * 50) for number in range(500)])])
    data = path.read_bytes()
    path.write_bytes(data[:-PAGE_BYTES])
    with pytest.raises(BadDatabase, match="cut off"):
        Database(str(path))
    path.write_bytes(b"")
    with pytest.raises(BadDatabase, match="empty"):
        Database(str(path))


def test_a_circle_of_pages_ends(tmp_path: Path) -> None:
    """The second child of the root branch is made the first again: its keys do not ascend."""
    path = written(tmp_path / "x.db", [(b"key", [(b"%05d" % number, b"v" * 50) for number in range(500)])])
    data = bytearray(path.read_bytes())
    branch = next(at for at in range(0, len(data), PAGE_BYTES) if HEADER.unpack_from(data, at)[1] == 1)
    data[branch + 16 + 16 + 8 : branch + 16 + 32] = data[branch + 16 + 8 : branch + 16 + 16]
    path.write_bytes(data)
    with Database(str(path)) as database:
        bucket: Element | None = database.bucket(b"key")
        assert isinstance(bucket, Bucket)
        with pytest.raises(BadDatabase, match="do not ascend"):
            tree(bucket)
    with pytest.raises(BadDatabase, match="something else too"):
        status(str(path))


def test_the_digest_behind_a_snapshot(tmp_path: Path) -> None:
    import hashlib

    path = written(tmp_path / "x.db", [(b"key", [(b"a", b"1")])])
    assert verify_digest(str(path)) is None
    data = path.read_bytes()
    digest = hashlib.sha256(data).digest()
    path.write_bytes(data + digest)
    assert verify_digest(str(path)) == digest
    path.write_bytes(data + digest[::-1])
    with pytest.raises(BadDatabase, match="expected sha256"):
        verify_digest(str(path))
