"""Header blocks: requests decoded and remembered, replies encoded once.

A client repeats the same block for every call of one kind. A block that was decoded without changing the HPACK
dynamic table means the same as long as the table does not change, so its decoded head is kept by its bytes; any
change of the table forgets them all. Replies never touch the encoder's table, so they are constants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from kvstore.rpc import Methods, Status, StreamMethod, UnaryHandler, UnaryMethod
from kvstore.wire.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFault
from kvstore.wire.limits import Limits
from kvstore.wire.literals import literal as literal
from kvstore.wire.traffic import CallCounts, Traffic

_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

REPLY_HEADERS = b"\x88\x0f\x10\x10application/grpc"  # :status 200 and the content type, neither indexed
OK_TRAILERS = b"\x00\x0bgrpc-status\x010"
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_MESSAGE_BYTES_MAX = 4096
_VERSION_LENGTH_MAX = 32
INVALID_VERSION = "etcdserver: invalid client api version"
"""To whoever says it in bytes that are no UTF-8: it could be no label of a metric (etcd from 3.6 on)."""
FIELDS_FREE = 64  # no client sends more in one header block
_UNCOUNTED = CallCounts("", "")
_REMEMBERED_BYTES_MAX = 4096  # of a block: what clients repeat is smaller; a thousand large ones are memory


class Head:
    """What one request's header block asks for. refusal: why it cannot be served, as ready reply headers."""

    __slots__ = ("_metadata", "counts", "encoding", "fields", "method", "plain", "refusal", "timeout_s")

    def __init__(self, fields: list[tuple[bytes, bytes]], counts: CallCounts) -> None:
        self.fields = fields
        self.counts = counts  # where calls like this one are counted; of no use without a method
        self.method: UnaryMethod | StreamMethod | None = None
        self.plain: UnaryHandler | None = (
            None  # the method's, where nothing of the head asks for more than a call
        )
        self.timeout_s: float | None = None
        self.encoding = b"identity"
        self.refusal: bytes | None = None
        self._metadata: Mapping[str, str] | None = None

    @property
    def metadata(self) -> Mapping[str, str]:
        """Built when first asked for; a repeated name keeps its values, joined by commas."""
        if self._metadata is None:
            metadata: dict[str, str] = {}
            for name, value in self.fields:
                if name.startswith(b":"):
                    continue
                text = name.decode("latin-1").lower()
                given = value.decode("utf-8", "replace")
                metadata[text] = f"{metadata[text]},{given}" if text in metadata else given
            self._metadata = metadata
        return self._metadata


class HeadReader:
    """One connection's HPACK decoder, and the heads it has seen."""

    def __init__(self, methods: Methods, limits: Limits, traffic: Traffic | None = None) -> None:
        self._methods = methods
        self._traffic = traffic or Traffic()
        self._entries_max = limits.head_cache_entries
        self._decoder = Decoder(max_header_list_size=limits.header_list_bytes)
        self.seen: dict[bytes, Head] = {}  # by block; only read by others
        self.decoded_bytes = 0  # of blocks that were not remembered, since whoever counts last took it

    def read(self, block: bytes) -> Head:
        head = self.seen.get(block)
        return head if head is not None else self._decode(block)

    def _decode(self, block: bytes) -> Head:
        self.decoded_bytes += len(block)
        table = self._decoder.header_table
        entries: Any = table.dynamic_entries
        newest: object = entries[0] if entries else None
        before = len(entries), table.maxsize
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError as excess:
            raise ConnectionFault(ENHANCE_YOUR_CALM, f"header list too large: {excess}") from None
        except (HPACKError, IndexError, ValueError) as problem:
            raise ConnectionFault(COMPRESSION_ERROR, f"header block cannot be decoded: {problem}") from None
        head = _understand(fields, self._methods, self._traffic)
        # The same entry and not an equal one: an equal one put in may have pushed another out.
        same_newest = newest is (entries[0] if entries else None)
        if not same_newest or before != (len(entries), table.maxsize):
            self.seen.clear()
        elif len(self.seen) < self._entries_max and len(block) <= _REMEMBERED_BYTES_MAX:
            self.seen[block] = head
        return head


def _understand(fields: list[tuple[bytes, bytes]], methods: Methods, traffic: Traffic) -> Head:
    head = Head(fields, _UNCOUNTED)
    path = verb = content_type = version = b""
    for name, value in fields:
        if name == b":path":
            path = value
        elif name == b":method":
            verb = value
        elif name == b"content-type":
            content_type = value
        elif name == b"grpc-timeout":
            head.timeout_s = _timeout(value)
        elif name == b"grpc-encoding":
            head.encoding = value
        elif name == b"client-api-version":
            version = value
    if verb != b"POST":
        head.refusal = literal(":status", "405")
    elif not content_type.startswith(b"application/grpc"):
        head.refusal = literal(":status", "415")
    elif head.timeout_s is not None and head.timeout_s < 0:
        head.refusal = refusal(Status.INTERNAL, "malformed grpc-timeout")
    elif head.encoding not in (b"identity", b"gzip"):
        text = f'grpc: Decompressor is not installed for grpc-encoding "{head.encoding.decode("latin-1")}"'
        head.refusal = refusal(Status.UNIMPLEMENTED, text) + literal("grpc-accept-encoding", "identity,gzip")
    else:
        wanted = path.decode("latin-1")
        head.method = methods.get(wanted)
        if head.method is None:
            head.refusal = refusal(Status.UNIMPLEMENTED, _unknown(wanted, methods))
        elif (told := _text(version)) is None:
            head.method = None
            head.refusal = refusal(Status.INVALID_ARGUMENT, INVALID_VERSION)
        else:
            head.counts = traffic.counts(wanted, told[:_VERSION_LENGTH_MAX])
            if isinstance(head.method, UnaryMethod) and head.timeout_s is None and len(fields) <= FIELDS_FREE:
                head.plain = head.method.handler
    return head


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _timeout(value: bytes) -> float:
    """Seconds, or -1 where the value is none."""
    match = _TIMEOUT.fullmatch(value)
    return int(match[1]) * _UNITS[match[2]] if match else -1.0


def _unknown(path: str, methods: Methods) -> str:
    service, slash, method = path.lstrip("/").rpartition("/")
    if not slash or not path.startswith("/"):
        return f'malformed method name: "{path}"'
    if any(known.startswith(f"/{service}/") for known in methods):
        return f"unknown method {method} for service {service}"
    return f"unknown service {service}"


def trailers(status: int, message: str) -> bytes:
    """grpc-status and, where there is one, grpc-message, percent-encoded as gRPC asks."""
    block = literal("grpc-status", str(int(status)))
    if message:
        block += literal("grpc-message", _escaped(message))
    return block


def _escaped(message: str) -> str:
    """Percent-encoded, and then cut: one character becomes up to twelve, and the block must stay within a frame
    and within the 8 KiB of headers that grpc-core takes. No escape is cut in two."""
    escaped = quote(message[:_MESSAGE_BYTES_MAX], safe=_PRINTABLE)[:_MESSAGE_BYTES_MAX]
    at = escaped.rfind("%", -2)
    return escaped[:at] if at >= 0 else escaped


def refusal(status: int, message: str) -> bytes:
    """A whole reply without a message: headers and trailers in one block."""
    return REPLY_HEADERS + trailers(status, message)
