"""-w json: etcdctl's JSON, which is Go's of its structures. Keys and values are base64, numbers are numbers,
what is zero is left out where Go's tags say so."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from kvstore.cli.output import EndpointHash, EndpointHealth, EndpointStatus, WatchEnd
from kvstore.cli.text import format_duration
from kvstore.client.results import Event, Header, KeyValue, WatchBatch
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.quota_pb2 import PrefixQuota

ID_FIELDS = ("cluster_id", "member_id", "ID")


class Printer:
    def __init__(self, *, hex_strings: bool = False) -> None:
        """hex_strings: ids of members and clusters as other commands take them. Keys are base64 all the same."""
        self._hex_ids = hex_strings

    def get(self, response: pb.RangeResponse, *, values_only: bool = False) -> bytes:
        return dump(plain(response))

    def put(self, response: pb.PutResponse) -> bytes:
        return dump(plain(response))

    def delete(self, response: pb.DeleteRangeResponse) -> bytes:
        return dump(plain(response))

    def txn(self, response: pb.TxnResponse) -> bytes:
        return dump(_txn(response))

    def watch(self, batch: WatchBatch) -> bytes:
        return _watch(_header(batch.header), [_event(event) for event in batch.events])

    def watch_end(self, end: WatchEnd) -> bytes:
        if end.header is None:
            return _watch({}, None, canceled=True)
        return _watch(_header(end.header), [], compact_revision=end.compact_revision, canceled=True)

    def lease_grant(self, response: pb.LeaseGrantResponse) -> bytes:
        granted = {"ID": response.ID, "TTL": response.TTL, "Error": response.error}
        return dump({**plain(response.header), **granted})

    def lease_revoke(self, lease_id: int, response: pb.LeaseRevokeResponse) -> bytes:
        return dump(plain(response))

    def lease_keep_alive(self, response: pb.LeaseKeepAliveResponse) -> bytes:
        return dump({**plain(response.header), "ID": response.ID, "TTL": response.TTL})

    def lease_lost(self, lease_id: int) -> bytes:
        return b""

    def lease_list(self, response: pb.LeaseLeasesResponse) -> bytes:
        return dump({**plain(response.header), "leases": [{"id": each.ID} for each in response.leases]})

    def lease_time_to_live(self, response: pb.LeaseTimeToLiveResponse, *, keys: bool) -> bytes:
        found = {
            "id": response.ID,
            "ttl": response.TTL,
            "granted-ttl": response.grantedTTL,
            "keys": [_base64(key) for key in response.keys] or None,
        }
        return dump({**plain(response.header), **found})

    def member_list(self, response: pb.MemberListResponse) -> bytes:
        return dump(self._with_ids(plain(response)))

    def member_change(self, response: Any, text: str) -> bytes:
        return dump(self._with_ids(plain(response)))

    def endpoint_status(self, found: Sequence[EndpointStatus]) -> bytes:
        rows = [{"Endpoint": each.endpoint, "Status": plain(each.response)} for each in found]
        return dump(rows)

    def endpoint_health(self, found: Sequence[EndpointHealth]) -> bytes:
        rows = [
            {
                "endpoint": each.endpoint,
                "health": each.healthy,
                "took": format_duration(each.took_s),
                **({"error": each.error} if each.error else {}),
            }
            for each in found
        ]
        return dump(rows)

    def endpoint_hashkv(self, found: Sequence[EndpointHash]) -> bytes:
        rows = [{"Endpoint": each.endpoint, "HashKV": plain(each.response)} for each in found]
        return dump(rows)

    def alarms(self, response: pb.AlarmResponse) -> bytes:
        return dump(plain(response))

    def role(self, name: str, response: pb.AuthRoleGetResponse) -> bytes:
        return dump(plain(response))

    def quotas(self, response: Any, quotas: Sequence[PrefixQuota]) -> bytes:
        return dump(plain(response))

    def names(self, response: Any, names: Sequence[str]) -> bytes:
        return dump(plain(response))

    def reply(self, response: Any, text: str) -> bytes:
        return dump(plain(response))

    def _with_ids(self, found: dict[str, Any]) -> dict[str, Any]:
        if self._hex_ids:
            for part in (found["header"], found.get("member", {}), *found.get("members", [])):
                part.update((name, f"{part[name]:x}") for name in ID_FIELDS if name in part)
        return found


def dump(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":  # Go escapes them, for pages that embed JSON
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "replace") + b"\n"


def plain(message: Message) -> dict[str, Any]:
    """A message as Go's generated structures have it: fields in order, by their names, zeroes left out."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if value:
                found[field.name] = [_value(field, each) for each in value]
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            if message.HasField(field.name):
                found[field.name] = _value(field, value)
        elif value:
            found[field.name] = _value(field, value)
    return found


def _value(field: Any, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return plain(value)
    return _base64(value) if field.type == FieldDescriptor.TYPE_BYTES else value


def _txn(response: pb.TxnResponse) -> dict[str, Any]:
    """A oneof is an interface in Go: one more level, without a tag to rename it."""
    found: dict[str, Any] = {}
    if response.HasField("header"):
        found["header"] = plain(response.header)
    if response.succeeded:
        found["succeeded"] = True
    if response.responses:
        found["responses"] = [{"Response": _op(op)} for op in response.responses]
    return found


def _op(op: pb.ResponseOp) -> dict[str, Any] | None:
    kind = op.WhichOneof("response")
    if kind is None:
        return None
    return {kind: _txn(op.response_txn) if kind == "response_txn" else plain(getattr(op, kind))}


def _watch(
    header: dict[str, Any],
    events: list[dict[str, Any]] | None,
    *,
    compact_revision: int = 0,
    canceled: bool = False,
) -> bytes:
    return dump(
        {
            "Header": header,
            "Events": events,
            "CompactRevision": compact_revision,
            "Canceled": canceled,
            "Created": False,
        }
    )


def _event(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = {} if event.type == "PUT" else {"type": 1}
    found["kv"] = _key_value(event.kv)
    if event.prev_kv is not None:
        found["prev_kv"] = _key_value(event.prev_kv)
    return found


def _key_value(kv: KeyValue) -> dict[str, Any]:
    found = {
        "key": _base64(kv.key),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "value": _base64(kv.value),
        "lease": kv.lease,
    }
    return {name: value for name, value in found.items() if value}


def _header(header: Header) -> dict[str, Any]:
    found = {
        "cluster_id": header.cluster_id,
        "member_id": header.member_id,
        "revision": header.revision,
        "raft_term": header.raft_term,
    }
    return {name: value for name, value in found.items() if value}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
