"""Range: which pairs, in which order, how many, and the encoded answer spliced from stored bytes.

Quirks kept because clients see them (etcd server/etcdserver/txn/range.go):
  - count is of all keys in the range, whatever limit and the revision filters say;
  - a sort target other than KEY without an order sorts ascending, but only the first limit+1 keys by key;
  - a sort order or a filter fetches everything: filter, sort, cut, then more.
A negative revision means the newest here and is refused as compacted inside a transaction, but for one (txn.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from kvstore import errors
from kvstore.pb.etcdserverpb_pb2 import RangeRequest
from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.state.mvcc import Keyspace
from kvstore.state.overlay import Latest
from kvstore.state.records import KV_AT, Buffer
from kvstore.state.varint import varint

_KVS, _MORE, _COUNT = b"\x12", b"\x18\x01", b"\x20"
_FIELD: dict[int, bytes] = {}
_FIELDS_KEPT = 4096
LEARNED_KEYS = 5_000
STEP_KEYS, STEP_BYTES = 2_000, 512 << 10
"""Looked at in one turn of the loop, a few milliseconds."""
FIRST_KV_BYTES = 512
_SORT_BY: dict[int, Callable[[KeyValue], Any]] = {
    RangeRequest.KEY: lambda kv: kv.key,
    RangeRequest.VERSION: lambda kv: kv.version,
    RangeRequest.CREATE: lambda kv: kv.create_revision,
    RangeRequest.MOD: lambda kv: kv.mod_revision,
    RangeRequest.VALUE: lambda kv: kv.value,
}


def interval(key: bytes, range_end: bytes) -> tuple[bytes, bytes | None]:
    """A request's range as [start, end); end None: no end. For a single key see Keyspace.get."""
    return key, None if range_end == b"\0" else range_end


def answer(keyspace: Keyspace, request: RangeRequest) -> bytes:
    """The encoded RangeResponse without its header. Raises Compacted, FutureRevision."""
    revision = _revision(keyspace, request)
    if not request.range_end:
        kv = keyspace.get(request.key, revision)
        if kv is None:
            return b""
        if request.count_only or (
            is_filtered(request) and not _passes(request, KeyValue.FromString(bytes(kv)))
        ):
            return _tail(False, 1)
        if request.keys_only:
            (kv,) = _without_values([kv])
        return b"".join((_KVS, varint(len(kv)), kv, b"\x20\x01"))
    start, end = interval(request.key, request.range_end)
    if request.count_only:
        return _tail(False, keyspace.count(start, end, revision))
    if revision is None and not is_filtered(request):
        if not request.sort_order and not request.sort_target and not request.keys_only:
            return _plain(keyspace, start, end, request.limit)
    gathering = Gathering(keyspace, request)
    while (parts := gathering.step()) is None:
        pass
    return b"".join(parts)


def may_be_long(keyspace: Keyspace, request: RangeRequest) -> bool:
    """Whether answer() may take more than a turn of the loop should; otherwise it does not."""
    if not request.range_end or request.count_only:
        return False
    if _are_few(keyspace, request, STEP_KEYS):
        return False
    return not 0 < request.limit <= STEP_KEYS or bool(request.sort_order) or is_filtered(request)


class Gathering:
    """A range's pairs at one revision, collected a few milliseconds at a time; others may write meanwhile."""

    def __init__(self, keyspace: Keyspace, request: RangeRequest) -> None:
        """Of a range, and not of its count alone. Raises Compacted, FutureRevision."""
        asked = _revision(keyspace, request)
        self._revision = keyspace.read_revision if asked is None else asked
        self._keyspace = keyspace
        self._request = request
        self._start, self._end = interval(request.key, request.range_end)
        order = request.sort_order
        if order == RangeRequest.NONE and request.sort_target != RangeRequest.KEY:
            order = RangeRequest.ASCEND
        self._order = order
        self._chooses = order != RangeRequest.NONE or is_filtered(request)
        all_are_wanted = request.sort_order != RangeRequest.NONE or is_filtered(request)
        self._keys_max = 0 if request.limit <= 0 or all_are_wanted else request.limit + self._chooses
        self._parts: list[bytes] = []  # where nothing is chosen: what is in the answer by now
        self._chosen: list[tuple[Any, Buffer]] = []  # what to sort by, the pair's bytes
        self._seen = 0
        self._kv_bytes = FIRST_KV_BYTES  # of a pair, about

    def step(self) -> list[bytes] | None:
        """The parts of the encoded RangeResponse without its header once all is there, else None: call it again.
        Raises Compacted where that came in between."""
        keys, size = 0, 0
        while keys < STEP_KEYS and size < STEP_BYTES:
            count = max(1, min(STEP_KEYS - keys, (STEP_BYTES - size) // self._kv_bytes))
            if self._keys_max:
                count = min(count, self._keys_max - self._seen)
            found, rest = self._next(count)
            got = sum(map(len, found))
            keys, size, self._seen = keys + len(found), size + got, self._seen + len(found)
            self._kv_bytes = max(1, got // max(1, len(found)))
            self._keep(found)
            if rest is None:
                return self._encoded(self._seen)
            self._start = rest
            if self._seen == self._keys_max:
                more = self._keyspace.count(rest, self._end, self._at)
                return self._encoded(self._seen + more)
        return None

    @property
    def _at(self) -> int | None:
        return None if self._keyspace.read_revision == self._revision else self._revision

    def _next(self, count: int) -> tuple[Sequence[Buffer], bytes | None]:
        keyspace, at = self._keyspace, self._at
        if at is None:
            return keyspace.first(self._start, self._end, count)
        if at < keyspace.compact_revision:
            raise errors.Compacted(keyspace.compact_revision)
        found: list[Buffer] = []
        for key, record in keyspace.scan(self._start, self._end, at):
            if len(found) == count:
                return found, bytes(key)
            found.append(record[KV_AT:])
        return found, None

    def _keep(self, found: Sequence[Buffer]) -> None:
        """Copies: what was read is good for one turn."""
        request = self._request
        if not self._chooses:
            self._parts.append(_fields(_without_values(found) if request.keys_only else found))
            return
        by = _SORT_BY[request.sort_target]
        for kv in found:
            pair = KeyValue.FromString(bytes(kv))
            if _passes(request, pair):
                key = by(pair)
                if request.keys_only:
                    pair.ClearField("value")
                    kv = pair.SerializeToString()
                self._chosen.append((key, bytes(kv)))

    def _encoded(self, count: int) -> list[bytes]:
        limit = self._request.limit
        if not self._chooses:
            return [*self._parts, _tail(0 < limit < count, count)]
        chosen = self._chosen
        if self._order != RangeRequest.NONE:  # equal ones stay in key order, in descending order too
            chosen.sort(key=itemgetter(0), reverse=self._order == RangeRequest.DESCEND)
        more = 0 < limit < len(chosen)
        if more:
            del chosen[limit:]
        return [_fields([kv for _, kv in chosen]), _tail(more, count)]


def learn(keyspace: Keyspace, request: RangeRequest, at: bytes | None) -> bytes | None:
    """What makes answer() quick where only a few of very many pairs are wanted, a few milliseconds of it: from where
    to go on (at None: the beginning), None once answer() may be asked. Raises as it does."""
    is_page = request.count_only or (
        request.limit > 0 and not request.sort_order and not is_filtered(request)
    )
    if not request.range_end or not is_page or _are_few(keyspace, request, LEARNED_KEYS):
        return None
    start, end = interval(request.key, request.range_end)
    return keyspace.learn(start if at is None else at, end, _revision(keyspace, request), LEARNED_KEYS)


def _are_few(keyspace: Keyspace, request: RangeRequest, keys: int) -> bool:
    """Certainly: at a past revision there may have been more than now."""
    return request.revision <= 0 and keyspace.key_count <= keys


def _revision(keyspace: Keyspace, request: RangeRequest) -> int | None:
    """The one that is asked for, None for the newest. Raises Compacted, FutureRevision."""
    if request.revision > keyspace.read_revision:
        raise errors.FutureRevision
    if request.revision <= 0 or request.revision == keyspace.read_revision:
        return None
    if request.revision < keyspace.compact_revision:
        raise errors.Compacted(keyspace.compact_revision)
    return request.revision


def _plain(keyspace: Keyspace, start: bytes, end: bytes | None, limit: int) -> bytes:
    """What most ask for: pairs as they are now, in key order, the first `limit` (0: all)."""
    found, rest = keyspace.first(start, end, max(0, limit))
    more = keyspace.count(rest, end) if rest is not None else 0
    return _fields(found, _tail(more > 0, len(found) + more))


def _fields(kvs: Iterable[Buffer], tail: bytes = b"") -> bytes:
    """The answer's kvs, and what follows them."""
    parts: list[Buffer] = []
    for kv in kvs:
        size = len(kv)
        parts += (_FIELD.get(size) or _field(size), kv)
    parts.append(tail)
    return b"".join(parts)


def _field(size: int) -> bytes:
    """How a kvs field of so many bytes begins; those of small ones are kept."""
    made = _KVS + varint(size)
    if size < _FIELDS_KEPT:
        _FIELD[size] = made
    return made


class Chunk(NamedTuple):
    """pairs: RangeResponse's kvs fields. next_key: where the next chunk begins, None where nothing is left."""

    pairs: bytes
    key_count: int
    next_key: bytes | None


def chunk(
    keyspace: Keyspace, request: RangeRequest, start: bytes, revision: int, keys_max: int, bytes_max: int
) -> Chunk:
    """Pairs of the request's range from `start` on, in key order: at most keys_max, and about bytes_max unless the
    first is larger. Raises Compacted, FutureRevision."""
    parts: list[Buffer] = []
    count = size = 0
    for key, record in _from(keyspace, request, start, revision):
        if count == keys_max or (size >= bytes_max):
            return Chunk(b"".join(parts), count, bytes(key))
        kv: Buffer = record[KV_AT:]
        if request.keys_only:
            (kv,) = _without_values([kv])
        parts += (_KVS, varint(len(kv)), kv)
        size += len(kv)
        count += 1
    return Chunk(b"".join(parts), count, None)


def count_from(
    keyspace: Keyspace, request: RangeRequest, start: bytes, revision: int, keys_max: int
) -> tuple[int, bytes | None]:
    """How many pairs there are from `start` on, up to keys_max, and where to go on counting."""
    count = 0
    for key, _ in _from(keyspace, request, start, revision):
        if count == keys_max:
            return count, bytes(key)
        count += 1
    return count, None


def _from(
    keyspace: Keyspace, request: RangeRequest, start: bytes, revision: int
) -> Iterator[tuple[bytes, Buffer]]:
    if revision > keyspace.read_revision:
        raise errors.FutureRevision
    if revision < keyspace.compact_revision:
        raise errors.Compacted(keyspace.compact_revision)
    first, end = interval(request.key, request.range_end or request.key + b"\0")
    return keyspace.scan(max(first, start), end, revision)


def value_of(latest: Latest | None) -> bytes:
    """The value of a key's newest version."""
    return KeyValue.FromString(latest.record[KV_AT:]).value if latest is not None else b""


def is_filtered(request: RangeRequest) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _tail(more: bool, count: int) -> bytes:
    counted = _COUNT + varint(count) if count else b""
    return _MORE + counted if more else counted


def _passes(request: RangeRequest, pair: KeyValue) -> bool:
    """The revision filters."""
    low_mod, high_mod = request.min_mod_revision, request.max_mod_revision
    low_create, high_create = request.min_create_revision, request.max_create_revision
    return not (
        (high_mod and pair.mod_revision > high_mod)
        or (low_mod and pair.mod_revision < low_mod)
        or (high_create and pair.create_revision > high_create)
        or (low_create and pair.create_revision < low_create)
    )


def _without_values(kvs: Iterable[Buffer]) -> list[Buffer]:
    stripped: list[Buffer] = []
    for kv in kvs:
        pair = KeyValue.FromString(bytes(kv))
        pair.ClearField("value")
        stripped.append(pair.SerializeToString())
    return stripped
