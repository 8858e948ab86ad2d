"""-w fields: one `"Name" : value` a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvstore.cli.output import EndpointHash, EndpointHealth, EndpointStatus, WatchEnd
from kvstore.cli.text import format_duration, quote
from kvstore.client.results import Header, KeyValue, WatchBatch
from kvstore.pb import authpb_pb2 as authpb
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2 as mvccpb
from kvstore.pb.quota_pb2 import PrefixQuota


class Printer:
    def __init__(self, *, hex_strings: bool = False) -> None:
        """--hex has no meaning here: strings are quoted."""

    def get(self, response: pb.RangeResponse, *, values_only: bool = False) -> bytes:
        return _bytes(_range(response))

    def put(self, response: pb.PutResponse) -> bytes:
        return _bytes(_put(response))

    def delete(self, response: pb.DeleteRangeResponse) -> bytes:
        return _bytes(_delete(response))

    def txn(self, response: pb.TxnResponse) -> bytes:
        return _bytes(_txn(response))

    def watch(self, batch: WatchBatch) -> bytes:
        lines = _header(batch.header)
        for event in batch.events:
            lines.append(f'"Type" : {event.type}')
            if event.prev_kv is not None:
                lines += _pair(event.prev_kv, "Prev")
            lines += _pair(event.kv)
        return _bytes(lines)

    def watch_end(self, end: WatchEnd) -> bytes:
        return _bytes(_header(end.header or Header()))

    def lease_grant(self, response: pb.LeaseGrantResponse) -> bytes:
        return _bytes([*_header(response.header), f'"ID" : {response.ID}', f'"TTL" : {response.TTL}'])

    def lease_revoke(self, lease_id: int, response: pb.LeaseRevokeResponse) -> bytes:
        return _bytes(_header(response.header))

    def lease_keep_alive(self, response: pb.LeaseKeepAliveResponse) -> bytes:
        return _bytes([*_header(response.header), f'"ID" : {response.ID}', f'"TTL" : {response.TTL}'])

    def lease_lost(self, lease_id: int) -> bytes:
        return b""

    def lease_list(self, response: pb.LeaseLeasesResponse) -> bytes:
        return _bytes([*_header(response.header), *(f'"ID" : {each.ID}' for each in response.leases)])

    def lease_time_to_live(self, response: pb.LeaseTimeToLiveResponse, *, keys: bool) -> bytes:
        lines = [
            *_header(response.header),
            f'"ID" : {response.ID}',
            f'"TTL" : {response.TTL}',
            f'"GrantedTTL" : {response.grantedTTL}',
            *(f'"Key" : {quote(key)}' for key in response.keys),
        ]
        return _bytes(lines)

    def member_list(self, response: pb.MemberListResponse) -> bytes:
        lines = _header(response.header)
        for member in response.members:
            lines += [
                f'"ID" : {member.ID}',
                f'"Name" : {quote(member.name)}',
                *(f'"PeerURL" : {quote(url)}' for url in member.peerURLs),
                *(f'"ClientURL" : {quote(url)}' for url in member.clientURLs),
                f'"IsLearner" : {_bool(member.isLearner)}',
                "",
            ]
        return _bytes(lines)

    def member_change(self, response: Any, text: str) -> bytes:
        raise NotImplementedError  # Settings.printer() lets none of these commands through

    def endpoint_status(self, found: Sequence[EndpointStatus]) -> bytes:
        lines = []
        for each in found:
            status = each.response
            lines += [
                *_header(status.header),
                f'"Version" : {quote(status.version)}',
                f'"DBSize" : {status.dbSize}',
                f'"Leader" : {status.leader}',
                f'"IsLearner" : {_bool(status.isLearner)}',
                f'"RaftIndex" : {status.raftIndex}',
                f'"RaftTerm" : {status.raftTerm}',
                f'"RaftAppliedIndex" : {status.raftAppliedIndex}',
                f'"Errors" : [{" ".join(status.errors)}]',
                f'"Endpoint" : {quote(each.endpoint)}',
                "",
            ]
        return _bytes(lines)

    def endpoint_health(self, found: Sequence[EndpointHealth]) -> bytes:
        lines = []
        for each in found:
            lines += [
                f'"Endpoint" : {quote(each.endpoint)}',
                f'"Health" : {_bool(each.healthy)}',
                f'"Took" : {format_duration(each.took_s)}',
                f'"Error" : {each.error}',
                "",
            ]
        return _bytes(lines)

    def endpoint_hashkv(self, found: Sequence[EndpointHash]) -> bytes:
        lines = []
        for each in found:
            lines += [
                *_header(each.response.header),
                f'"Endpoint" : {quote(each.endpoint)}',
                f'"Hash" : {each.response.hash}',
                "",
            ]
        return _bytes(lines)

    def alarms(self, response: pb.AlarmResponse) -> bytes:
        lines = _header(response.header)
        for alarm in response.alarms:
            name = pb.AlarmType.Name(alarm.alarm)
            lines += [f'"MemberID" : {alarm.memberID}', f'"AlarmType" : {name}', ""]
        return _bytes(lines)

    def role(self, name: str, response: pb.AuthRoleGetResponse) -> bytes:
        lines = _header(response.header)
        for each in response.perm:
            lines += [
                f'"PermType" :  {authpb.Permission.Type.Name(each.permType)}',  # two blanks, as etcdctl has it
                f'"Key" : {quote(each.key)}',
                f'"RangeEnd" : {quote(each.range_end)}',
            ]
        return _bytes(lines)

    def quotas(self, response: Any, quotas: Sequence[PrefixQuota]) -> bytes:
        lines = _header(response.header)
        for each in quotas:
            lines += [
                f'"Prefix" : {quote(each.prefix)}',
                f'"BytesMax" : {each.bytes_max}',
                f'"KeysMax" : {each.keys_max}',
                f'"QPSMax" : {each.qps_max}',
                f'"UsedBytes" : {each.used_bytes}',
                f'"UsedKeys" : {each.used_keys}',
                "",
            ]
        return _bytes(lines)

    def names(self, response: Any, names: Sequence[str]) -> bytes:
        listed = "".join(f" {quote(name)}" for name in names)
        return _bytes([*_header(response.header), f'"Roles" :{listed}'])

    def reply(self, response: Any, text: str) -> bytes:
        return _bytes(_header(response.header))


def _range(response: pb.RangeResponse) -> list[str]:
    lines = _header(response.header)
    for kv in response.kvs:
        lines += _pair(kv)
    return [*lines, f'"More" : {_bool(response.more)}', f'"Count" : {response.count}']


def _put(response: pb.PutResponse) -> list[str]:
    lines = _header(response.header)
    return lines + _pair(response.prev_kv, "Prev") if response.HasField("prev_kv") else lines


def _delete(response: pb.DeleteRangeResponse) -> list[str]:
    lines = [*_header(response.header), f'"Deleted" : {response.deleted}']
    for kv in response.prev_kvs:
        lines += _pair(kv, "Prev")
    return lines


def _txn(response: pb.TxnResponse) -> list[str]:
    lines = [*_header(response.header), f'"Succeeded" : {_bool(response.succeeded)}']
    for op in response.responses:
        match op.WhichOneof("response"):
            case "response_put":
                lines += _put(op.response_put)
            case "response_range":
                lines += _range(op.response_range)
            case "response_delete_range":
                lines += _delete(op.response_delete_range)
            case _:
                lines += _txn(op.response_txn)
    return lines


def _header(header: pb.ResponseHeader | Header) -> list[str]:
    return [
        f'"ClusterID" : {header.cluster_id}',
        f'"MemberID" : {header.member_id}',
        f'"Revision" : {header.revision}',
        f'"RaftTerm" : {header.raft_term}',
    ]


def _pair(kv: mvccpb.KeyValue | KeyValue, prefix: str = "") -> list[str]:
    return [
        f'"{prefix}Key" : {quote(kv.key)}',
        f'"{prefix}CreateRevision" : {kv.create_revision}',
        f'"{prefix}ModRevision" : {kv.mod_revision}',
        f'"{prefix}Version" : {kv.version}',
        f'"{prefix}Value" : {quote(kv.value)}',
        f'"{prefix}Lease" : {kv.lease}',
    ]


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _bytes(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
