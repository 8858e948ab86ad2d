"""What a server's header blocks say of a call, and the gRPC status that each way of ending one stands for. Pure.

No dynamic table is offered, so a block means the same each time and is decoded once. A server that uses a table all
the same is understood: nothing is remembered while there are entries in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_to_bytes

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from kvstore.rpc import Status
from kvstore.wire import frames as h2
from kvstore.wire.frames import ConnectionFault

HEADER_LIST_BYTES_MAX = 64 << 10
_REMEMBERED_MAX = 256
_REMEMBERED_BYTES_MAX = 1024


class Fate(Enum):
    """What is certain of a call that failed."""

    SENT = "the server may have processed it"
    REFUSED = "the server says that it did not look at it"
    UNSENT = "not a byte of it left this client"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended. text: the server's own where there is one."""

    status: Status
    text: str = ""
    fate: Fate = Fate.SENT


# https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
_HTTP = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}

_CONNECT_ERROR, _INADEQUATE_SECURITY = 10, 12
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors
_RESETS = {
    h2.NO_ERROR: Status.INTERNAL,
    h2.PROTOCOL_ERROR: Status.INTERNAL,
    h2.INTERNAL_ERROR: Status.INTERNAL,
    h2.FLOW_CONTROL_ERROR: Status.INTERNAL,
    4: Status.INTERNAL,  # SETTINGS_TIMEOUT
    h2.STREAM_CLOSED: Status.INTERNAL,
    h2.FRAME_SIZE_ERROR: Status.INTERNAL,
    h2.REFUSED_STREAM: Status.UNAVAILABLE,
    h2.CANCEL: Status.CANCELLED,
    h2.COMPRESSION_ERROR: Status.INTERNAL,
    _CONNECT_ERROR: Status.INTERNAL,
    h2.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    _INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}
_NAMES = (
    "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR "
    "REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED"
).split()


def code_name(code: int) -> str:
    return _NAMES[code] if code < len(_NAMES) else f"error {code}"


def reset_ending(code: int, *, answered: bool) -> Ending:
    """For a call that the server reset with this HTTP/2 error code. answered: a part of the answer had come, so it
    was processed whatever the code says."""
    fate = Fate.REFUSED if code == h2.REFUSED_STREAM and not answered else Fate.SENT
    return Ending(
        _RESETS.get(code, Status.UNKNOWN), f"the server reset the stream with {code_name(code)}", fate
    )


@dataclass(frozen=True, slots=True)
class Head:
    """One header block. ending: what it says where it ends the stream. refusal: why what follows it is no answer
    of gRPC's, None where it is one or where it is trailers. http: its :status, 0 for trailers."""

    http: int
    encoding: bytes
    ending: Ending
    refusal: Ending | None


class HeadReader:
    """One connection's HPACK decoder, and the heads it has seen."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=HEADER_LIST_BYTES_MAX)
        self._decoder.header_table_size = 0
        self._seen: dict[bytes, Head] = {}

    def read(self, block: bytes) -> Head:
        """Raises ConnectionFault."""
        head = self._seen.get(block)
        return head if head is not None else self._decode(block)

    def _decode(self, block: bytes) -> Head:
        try:
            fields = {bytes(name): bytes(value) for name, value in self._decoder.decode(block, raw=True)}
        except OversizedHeaderListError as excess:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, f"header list too large: {excess}") from None
        except (HPACKError, IndexError, ValueError) as problem:
            raise ConnectionFault(
                h2.COMPRESSION_ERROR, f"header block cannot be decoded: {problem}"
            ) from None
        head = _understand(fields)
        if self._decoder.header_table.dynamic_entries:
            self._seen.clear()
        elif len(self._seen) < _REMEMBERED_MAX and len(block) <= _REMEMBERED_BYTES_MAX:
            self._seen[block] = head
        return head


def _understand(fields: dict[bytes, bytes]) -> Head:
    given = fields.get(b":status", b"0")
    if not given.isdigit() or len(given) > 3:
        raise ConnectionFault(h2.PROTOCOL_ERROR, f"a :status of {given!r}")
    http, refusal = int(given), None
    content_type = fields.get(b"content-type", b"")
    if http not in (0, 200):
        refusal = Ending(_HTTP.get(http, Status.UNKNOWN), f"the server answered with HTTP status {http}")
    elif http == 200 and not content_type.startswith(b"application/grpc"):
        text = f'the server answered with content type "{content_type.decode("latin-1")}", not with gRPC'
        refusal = Ending(Status.UNKNOWN, text)
    said = fields.get(b"grpc-status")
    if said is not None:
        text = unquote_to_bytes(fields.get(b"grpc-message", b"")).decode("utf-8", "replace")
        ending = Ending(_status(said), text)
    else:
        ending = refusal or Ending(Status.UNKNOWN, "the server ended the call without a grpc-status")
    return Head(http, fields.get(b"grpc-encoding", b"identity"), ending, refusal)


def _status(value: bytes) -> Status:
    code = int(value) if value.isdigit() and len(value) < 4 else -1
    return Status(code) if code in Status._value2member_map_ else Status.UNKNOWN
