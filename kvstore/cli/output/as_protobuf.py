"""-w protobuf: the answer as it came over the wire, one message after another and nothing between them.

For leases etcdctl prints the header alone, and not as a field of anything. Programs that read it expect that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from kvstore.cli.output import EndpointHash, EndpointHealth, EndpointStatus, WatchEnd
from kvstore.client.results import Event, Header, KeyValue, WatchBatch
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2 as mvccpb
from kvstore.pb.quota_pb2 import PrefixQuota


class Printer:
    def __init__(self, *, hex_strings: bool = False) -> None:
        """--hex has no meaning here."""

    def get(self, response: pb.RangeResponse, *, values_only: bool = False) -> bytes:
        return _wire(response)

    def put(self, response: pb.PutResponse) -> bytes:
        return _wire(response)

    def delete(self, response: pb.DeleteRangeResponse) -> bytes:
        return _wire(response)

    def txn(self, response: pb.TxnResponse) -> bytes:
        return _wire(response)

    def watch(self, batch: WatchBatch) -> bytes:
        return _wire(pb.WatchResponse(header=header_message(batch.header), events=map(_event, batch.events)))

    def watch_end(self, end: WatchEnd) -> bytes:
        header = header_message(end.header or Header())
        return _wire(pb.WatchResponse(header=header, compact_revision=end.compact_revision, canceled=True))

    def lease_grant(self, response: pb.LeaseGrantResponse) -> bytes:
        return _wire(response.header)

    def lease_revoke(self, lease_id: int, response: pb.LeaseRevokeResponse) -> bytes:
        return _wire(response)

    def lease_keep_alive(self, response: pb.LeaseKeepAliveResponse) -> bytes:
        return _wire(response.header)

    def lease_lost(self, lease_id: int) -> bytes:
        return b""

    def lease_list(self, response: pb.LeaseLeasesResponse) -> bytes:
        return _wire(response.header)

    def lease_time_to_live(self, response: pb.LeaseTimeToLiveResponse, *, keys: bool) -> bytes:
        return _wire(response.header)

    def member_list(self, response: pb.MemberListResponse) -> bytes:
        return _wire(response)

    def member_change(self, response: Any, text: str) -> bytes:
        return _wire(response)

    def endpoint_status(self, found: Sequence[EndpointStatus]) -> bytes:
        raise NotImplementedError  # Settings.printer() lets no command with several answers through

    def endpoint_health(self, found: Sequence[EndpointHealth]) -> bytes:
        raise NotImplementedError

    def endpoint_hashkv(self, found: Sequence[EndpointHash]) -> bytes:
        raise NotImplementedError

    def alarms(self, response: pb.AlarmResponse) -> bytes:
        return _wire(response)

    def role(self, name: str, response: pb.AuthRoleGetResponse) -> bytes:
        return _wire(response)

    def quotas(self, response: Any, quotas: Sequence[PrefixQuota]) -> bytes:
        return _wire(response)

    def names(self, response: Any, names: Sequence[str]) -> bytes:
        return _wire(response)

    def reply(self, response: Any, text: str) -> bytes:
        return _wire(response)


def _wire(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def header_message(header: Header) -> pb.ResponseHeader:
    return pb.ResponseHeader(
        cluster_id=header.cluster_id,
        member_id=header.member_id,
        revision=header.revision,
        raft_term=header.raft_term,
    )


def _event(event: Event) -> mvccpb.Event:
    kind = mvccpb.Event.DELETE if event.type == "DELETE" else mvccpb.Event.PUT
    previous = None if event.prev_kv is None else key_value_message(event.prev_kv)
    return mvccpb.Event(type=kind, kv=key_value_message(event.kv), prev_kv=previous)


def key_value_message(kv: KeyValue) -> mvccpb.KeyValue:
    return mvccpb.KeyValue(
        key=kv.key,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        version=kv.version,
        value=kv.value,
        lease=kv.lease,
    )
