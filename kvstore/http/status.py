"""gRPC statuses as HTTP has them, and the bodies that tell of them.

etcd up to 3.5 sends {"error", "code", "message"}, from 3.6 on {"code", "message", "details"}; in a stream 3.5 sends
{"error": {"grpc_code", "http_code", "message", "http_status"}}, 3.6 {"error": {"code", "message", "details"}}.
Both kinds of client read the body that has both.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus

from kvstore.rpc import Status

HTTP_STATUS = {
    Status.OK: 200,
    Status.CANCELLED: 499,
    Status.UNKNOWN: 500,
    Status.INVALID_ARGUMENT: 400,
    Status.DEADLINE_EXCEEDED: 504,
    Status.NOT_FOUND: 404,
    Status.ALREADY_EXISTS: 409,
    Status.PERMISSION_DENIED: 403,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.FAILED_PRECONDITION: 400,
    Status.ABORTED: 409,
    Status.OUT_OF_RANGE: 400,
    Status.UNIMPLEMENTED: 501,
    Status.INTERNAL: 500,
    Status.UNAVAILABLE: 503,
    Status.DATA_LOSS: 500,
    Status.UNAUTHENTICATED: 401,
}
DEADLINE_TEXT = "context deadline exceeded"
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def http_status(status: int) -> int:
    return HTTP_STATUS.get(Status(status), 500) if 0 <= status <= max(Status) else 500


def error_body(status: int, message: str) -> str:
    """Of a call that failed."""
    return _line({"error": message, "code": int(status), "message": message, "details": []})


def stream_error(status: int, message: str) -> str:
    """The last line of a stream that failed."""
    number = http_status(status)
    phrase = "Client Closed Request" if number == 499 else HTTPStatus(number).phrase
    error = {
        "grpc_code": int(status),
        "http_code": number,
        "message": message,
        "http_status": phrase,
        "code": int(status),
        "details": [],
    }
    return _line({"error": error})


def _line(body: dict[str, object]) -> str:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)


def timeout_s(text: str) -> float:
    """Of a Grpc-Timeout header. Raises ValueError."""
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid grpc-timeout: {text}")
    return int(match[1]) * _UNITS[match[2]]
