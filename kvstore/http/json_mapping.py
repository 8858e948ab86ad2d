"""Messages as JSON in etcd's spelling, by google.protobuf.json_format with what it takes too lightly refused.

Out: proto names (ID, TTL, raft_term), 64-bit integers as strings, bytes in base64, enums by name, zeroes left out.
In: proto names or camelCase, unknown names ignored, standard or URL-safe base64 with or without padding.

json_format alone drops characters that are not base64, takes "1_000" and true for numbers and a list for a
message, and would so turn a client's mistake into another request. What it is given is checked here first, against
the descriptor; the rest (ranges, oneofs, booleans, depth) is its own to judge.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
DEPTH_MAX = 90  # of messages in one another; protobuf's own bound is 100

_DIGITS = re.compile(r"-?[0-9]{1,20}")
_URL_SAFE = str.maketrans("-_", "+/")
_INTEGERS = frozenset(
    (
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    )
)
_NAMES: dict[str, dict[str, FieldDescriptor]] = {}  # by full name of the message, as its fields may be called


class BadRequest(ValueError):
    """One line that says what in the JSON is wrong, for the client to read."""


def parse(text: bytes) -> object:
    """The first JSON value in text; what comes after it is not looked at, as etcd does not. Empty is {}."""
    try:
        decoded = text.decode("utf-8").lstrip(" \t\r\n")
        return _decoder.raw_decode(decoded)[0] if decoded else {}
    except UnicodeDecodeError as problem:
        raise BadRequest(f"invalid JSON: not UTF-8 at byte {problem.start}") from None
    except json.JSONDecodeError as problem:
        raise BadRequest(f"invalid JSON at character {problem.pos}: {problem.msg}") from None
    except RecursionError:
        raise BadRequest("invalid JSON: nested too deeply") from None
    except ValueError as problem:  # a number of thousands of digits
        raise BadRequest(f"invalid JSON: {problem}") from None


def to_message(value: object, kind: type[M]) -> M:
    """The request a parsed JSON value stands for. Raises BadRequest."""
    message = kind()
    if value is None:
        return message
    checked = _message(value, cast(Descriptor, kind.DESCRIPTOR), "", 0)
    try:
        json_format.ParseDict(checked, message)
    except json_format.ParseError as problem:
        raise BadRequest(f"invalid request: {problem}") from None
    return message


def to_json(message: Message) -> str:
    """One line, without spaces."""
    return _encoder.encode(json_format.MessageToDict(message, preserving_proto_field_name=True))


def reply_json(kind: type[Message], data: bytes) -> str:
    """A reply's bytes, as the service gave them, as JSON."""
    return to_json(kind.FromString(data))


_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def _no_constant(name: str) -> object:
    raise BadRequest(f"invalid JSON: {name} is no JSON value")


_decoder = json.JSONDecoder(parse_constant=_no_constant)


def _message(value: object, kind: Descriptor, path: str, depth: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"invalid request: {_at(path)}must be a JSON object, not {_called(value)}")
    if depth > DEPTH_MAX:
        raise BadRequest("invalid request: nested too deeply")
    known = _NAMES.get(kind.full_name)
    if known is None:
        known = {name: field for field in kind.fields for name in (field.name, field.json_name)}
        _NAMES[kind.full_name] = known
    checked: dict[str, Any] = {}
    chosen: dict[str, str] = {}  # of each oneof, the field given first
    for name, given in value.items():
        field = known.get(name)
        if field is None or given is None:
            continue
        inner = f"{path}.{name}" if path else name
        if field.containing_oneof is not None:
            other = chosen.setdefault(field.containing_oneof.name, field.name)
            if other != field.name:
                raise BadRequest(f"invalid request: {_at(path)}can have only one of {other} and {field.name}")
        if not field.is_repeated:
            checked[name] = _single(given, field, inner, depth)
        elif isinstance(given, list):
            checked[name] = [_single(each, field, f"{inner}[{i}]", depth) for i, each in enumerate(given)]
        else:
            raise BadRequest(f"invalid request: {_at(inner)}must be a JSON array, not {_called(given)}")
    return checked


def _single(value: object, field: FieldDescriptor, path: str, depth: int) -> object:
    kind = field.cpp_type
    if field.message_type is not None:
        return _message(value, field.message_type, path, depth + 1)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(value, path)
    if kind in _INTEGERS:
        return _integer(value, path)
    if field.enum_type is not None:
        return _enum(value, field.enum_type, path)
    wanted: type = bool if kind == FieldDescriptor.CPPTYPE_BOOL else str
    if kind in (FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_STRING) and not isinstance(
        value, wanted
    ):
        name = "true or false" if wanted is bool else "a string"
        raise BadRequest(f"invalid request: {_at(path)}must be {name}, not {_called(value)}")
    return value


def _bytes(value: object, path: str) -> str:
    """In the one spelling that json_format reads as it stands."""
    if not isinstance(value, str):
        raise BadRequest(f"invalid request: {_at(path)}must be a base64 string, not {_called(value)}")
    standard = value.translate(_URL_SAFE).rstrip("=")
    if len(value) - len(standard) not in (0, -len(standard) % 4):
        raise BadRequest(f"invalid request: {_at(path)}must be base64")
    standard += "=" * (-len(standard) % 4)
    try:
        base64.b64decode(standard, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"invalid request: {_at(path)}must be base64") from None
    return standard


def _integer(value: object, path: str) -> int:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    shown = json.dumps(value)[:40] if isinstance(value, (str, float)) else _called(value)
    raise BadRequest(f"invalid request: {_at(path)}must be an integer, not {shown}")


def _enum(value: object, kind: EnumDescriptor, path: str) -> object:
    if isinstance(value, str):
        if value in kind.values_by_name:
            return value
        names = ", ".join(kind.values_by_name)
        raise BadRequest(f"invalid request: {_at(path)}must be one of {names}, not {json.dumps(value)[:40]}")
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise BadRequest(f"invalid request: {_at(path)}must be a name or a number, not {_called(value)}")


def _at(path: str) -> str:
    return f"{path} " if path else "it "


def _called(value: object) -> str:
    if value is None:
        return "null"
    return {bool: "a boolean", dict: "an object", list: "an array", str: "a string"}.get(
        type(value), "a number"
    )
