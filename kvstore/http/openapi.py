"""The HTTP API described: an OpenAPI 3.1 document made from the descriptors, and a page for a browser.

Messages become schemas under their full names. One schema serves requests and replies, so what only one of them
allows (a number for a 64-bit integer, camelCase) is left out: the document says what to send, not all that is taken.
"""

from __future__ import annotations

import functools
import html
import json
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from kvstore.http.paths import Binding, bindings
from kvstore.version import ETCD_VERSION, VERSION

_SIGNED, _UNSIGNED = "^-?[0-9]{1,19}$", "^[0-9]{1,20}$"
_SCALARS: dict[int, dict[str, Any]] = {
    FieldDescriptor.TYPE_INT64: {"type": "string", "format": "int64", "pattern": _SIGNED},
    FieldDescriptor.TYPE_UINT64: {"type": "string", "format": "uint64", "pattern": _UNSIGNED},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_UINT32: {
        "type": "integer",
        "format": "uint32",
        "minimum": 0,
        "maximum": (1 << 32) - 1,
    },
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte", "contentEncoding": "base64"},
}
_ERROR = {
    "type": "object",
    "required": ["code", "message", "error"],
    "properties": {
        "code": {"type": "integer", "description": "gRPC status code"},
        "message": {"type": "string", "description": "etcd's own text"},
        "error": {"description": "the message once more; of a stream an object with grpc_code and http_code"},
        "details": {"type": "array"},
    },
}
_STREAM_ERROR = {
    "type": "object",
    "required": ["code", "message", "grpc_code", "http_code"],
    "properties": {
        "code": {"type": "integer"},
        "message": {"type": "string"},
        "grpc_code": {"type": "integer"},
        "http_code": {"type": "integer"},
        "http_status": {"type": "string"},
        "details": {"type": "array"},
    },
}
_CHECKS = {
    "/livez": "state on this member can be read",
    "/readyz": "this member reaches a majority, and no data are known to be corrupt",
    "/writez": "a write would be taken; writes nothing to the key space",
}


def document() -> dict[str, Any]:
    schemas: dict[str, Any] = {"Error": _ERROR, "StreamError": _STREAM_ERROR}
    paths: dict[str, Any] = {}
    for binding in bindings():
        for path in binding.paths:
            paths[path] = {"post": _operation(binding, path, schemas)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kvstore",
            "version": VERSION,
            "description": f"The JSON gateway of etcd's v3 API, as etcd {ETCD_VERSION} serves it.",
        },
        "paths": paths | _pages(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "Authorization"}},
        },
    }


@functools.cache
def document_json() -> str:
    return json.dumps(document(), separators=(",", ":"))


@functools.cache
def document_html() -> str:
    rows = "".join(
        f"<tr><td><code>POST {html.escape(path)}</code></td><td>{html.escape(binding.method[1:])}</td>"
        f"<td>{'stream' if binding.streams else ''}</td></tr>"
        for binding in bindings()
        for path in binding.paths
    )
    pages = "".join(
        f'<tr><td><a href="{path}"><code>GET {path}</code></a></td><td>{html.escape(item["get"]["summary"])}</td></tr>'
        for path, item in _pages().items()
    )
    return (
        "<!doctype html><meta charset=utf-8><title>kvstore: HTTP API</title>"
        "<style>body{font-family:sans-serif;margin:2em}td{padding:.15em 1em .15em 0}</style>"
        f"<h1>kvstore {VERSION}: HTTP API</h1><p>Described for programs in "
        '<a href="/openapi.json">openapi.json</a>.</p>'
        f"<table>{pages}</table><h2>JSON gateway</h2><table>{rows}</table>"
    )


def _operation(binding: Binding, path: str, schemas: dict[str, Any]) -> dict[str, Any]:
    reply = _schema_of(binding.reply, schemas)
    if binding.streams:
        error = {"$ref": "#/components/schemas/StreamError"}
        reply = {"type": "object", "properties": {"result": reply, "error": error}}
    service, _, name = binding.method[1:].partition("/")
    operation: dict[str, Any] = {
        "operationId": path.removeprefix("/v3/").replace("/", "_").replace("-", "_"),
        "tags": [service],
        "summary": f"{service}.{name}",
        "requestBody": {"content": _json(_schema_of(binding.request, schemas))},
        "responses": {
            "200": {"description": "OK", "content": _json(reply)},
            "default": {
                "description": "the call failed",
                "content": _json({"$ref": "#/components/schemas/Error"}),
            },
        },
        "security": [{}, {"token": []}],
    }
    if binding.streams:
        operation["responses"]["200"]["description"] = "one such object a line, until the stream ends"
        operation["responses"]["default"]["content"] = _json({"type": "object", "required": ["error"]})
    if path != binding.paths[0]:
        operation["deprecated"] = True
    return operation


def _pages() -> dict[str, Any]:
    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    health = {
        "type": "object",
        "required": ["health", "reason"],
        "properties": {"health": {"enum": ["true", "false"]}, "reason": {"type": "string"}},
    }
    version: dict[str, Any] = {
        "type": "object",
        "required": ["etcdserver", "etcdcluster"],
        "additionalProperties": {"type": "string"},
    }
    pages: dict[str, Any] = {
        "/version": _get("versions", {"200": {"description": "OK", "content": _json(version)}}),
        "/health": _get(
            "whether the cluster serves, as etcd judges it",
            {number: {"description": "", "content": _json(health)} for number in ("200", "503")},
            {"serializable": {"enum": ["true", "false"]}, "exclude": {"enum": ["NOSPACE", "CORRUPT"]}},
        ),
    }
    for path, summary in _CHECKS.items():
        answers = {number: {"description": "", **text} for number in ("200", "400", "503")}
        names = {
            "verbose": {"type": "string"},
            "exclude": {"type": "string"},
            "allowlist": {"type": "string"},
        }
        pages[path] = _get(summary, answers, names)
    return pages


def _get(summary: str, answers: dict[str, Any], query: dict[str, Any] | None = None) -> dict[str, Any]:
    parameters = [{"name": name, "in": "query", "schema": schema} for name, schema in (query or {}).items()]
    return {"get": {"summary": summary, "parameters": parameters, "responses": answers}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _schema_of(kind: type[Message], schemas: dict[str, Any]) -> dict[str, Any]:
    return _reference(cast(Descriptor, kind.DESCRIPTOR), schemas)


def _reference(kind: Descriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    """Puts the message, and what it is made of, among the schemas."""
    if kind.full_name not in schemas:
        schema: dict[str, Any] = {"type": "object"}
        schemas[kind.full_name] = schema  # before its fields, which may lead back to it
        if kind.fields:
            schema["properties"] = {field.name: _field(field, schemas) for field in kind.fields}
        for group in kind.oneofs:
            if group.name.startswith("_"):  # what protoc makes of an optional field
                continue
            schema["description"] = f"at most one of {', '.join(field.name for field in group.fields)}"
    return {"$ref": f"#/components/schemas/{kind.full_name}"}


def _field(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        schema = _reference(field.message_type, schemas)
    elif field.enum_type is not None:
        schema = {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    else:
        schema = _SCALARS[field.type]
    return {"type": "array", "items": schema} if field.is_repeated else schema
