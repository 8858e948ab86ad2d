"""-w simple: what people and shell scripts read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kvstore.cli.output import EndpointHash, EndpointHealth, EndpointStatus, WatchEnd
from kvstore.cli.output.rows import member_rows, quota_rows, status_rows
from kvstore.cli.text import format_duration, hexadecimal
from kvstore.client.compare import EVERYTHING, prefix_end
from kvstore.client.results import KeyValue, WatchBatch
from kvstore.pb import authpb_pb2 as authpb
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2 as mvccpb
from kvstore.pb.quota_pb2 import PrefixQuota

READING = (authpb.Permission.READ, authpb.Permission.READWRITE)
WRITING = (authpb.Permission.WRITE, authpb.Permission.READWRITE)


class Printer:
    def __init__(self, *, hex_strings: bool = False) -> None:
        self._hex = hex_strings

    def get(self, response: pb.RangeResponse, *, values_only: bool = False) -> bytes:
        return b"".join(self._pair(kv, values_only) for kv in response.kvs)

    def put(self, response: pb.PutResponse) -> bytes:
        return b"OK\n" + (self._pair(response.prev_kv) if response.HasField("prev_kv") else b"")

    def delete(self, response: pb.DeleteRangeResponse) -> bytes:
        return b"%d\n" % response.deleted + b"".join(self._pair(kv) for kv in response.prev_kvs)

    def txn(self, response: pb.TxnResponse) -> bytes:
        head = b"SUCCESS\n" if response.succeeded else b"FAILURE\n"
        return head + b"".join(b"\n" + self._op(op) for op in response.responses)

    def _op(self, op: pb.ResponseOp) -> bytes:
        match op.WhichOneof("response"):
            case "response_put":
                return self.put(op.response_put)
            case "response_range":
                return self.get(op.response_range)
            case "response_delete_range":
                return self.delete(op.response_delete_range)
            case _:
                return self.txn(op.response_txn)

    def watch(self, batch: WatchBatch) -> bytes:
        parts = []
        for event in batch.events:
            parts.append(f"{event.type}\n".encode())
            if event.prev_kv is not None:
                parts.append(self._pair(event.prev_kv))
            parts.append(self._pair(event.kv))
        return b"".join(parts)

    def watch_end(self, end: WatchEnd) -> bytes:
        return b""

    def lease_grant(self, response: pb.LeaseGrantResponse) -> bytes:
        return f"lease {response.ID:016x} granted with TTL({response.TTL}s)\n".encode()

    def lease_revoke(self, lease_id: int, response: pb.LeaseRevokeResponse) -> bytes:
        return f"lease {lease_id:016x} revoked\n".encode()

    def lease_keep_alive(self, response: pb.LeaseKeepAliveResponse) -> bytes:
        return f"lease {response.ID:016x} keepalived with TTL({response.TTL})\n".encode()

    def lease_lost(self, lease_id: int) -> bytes:
        return f"lease {lease_id:016x} expired or revoked.\n".encode()

    def lease_list(self, response: pb.LeaseLeasesResponse) -> bytes:
        lines = [f"found {len(response.leases)} leases", *(f"{each.ID:016x}" for each in response.leases)]
        return _lines(lines)

    def lease_time_to_live(self, response: pb.LeaseTimeToLiveResponse, *, keys: bool) -> bytes:
        name = f"lease {response.ID:016x}".encode()
        if response.grantedTTL == 0 and response.TTL == -1:
            return name + b" already expired\n"
        line = b"%b granted with TTL(%ds), remaining(%ds)" % (name, response.grantedTTL, response.TTL)
        if keys:
            line += b", attached keys([%b])" % b" ".join(response.keys)
        return line + b"\n"

    def member_list(self, response: pb.MemberListResponse) -> bytes:
        return _lines(", ".join(row) for row in member_rows(response))

    def member_change(self, response: Any, text: str) -> bytes:
        return self.reply(response, text)

    def endpoint_status(self, found: Sequence[EndpointStatus]) -> bytes:
        return _lines(", ".join(row) for row in status_rows(found))

    def endpoint_health(self, found: Sequence[EndpointHealth]) -> bytes:
        """The healthy ones; the others go to stderr, in the command."""
        return _lines(
            f"{each.endpoint} is healthy: successfully committed proposal: took = {format_duration(each.took_s)}"
            for each in found
            if each.healthy
        )

    def endpoint_hashkv(self, found: Sequence[EndpointHash]) -> bytes:
        return _lines(f"{each.endpoint}, {each.response.hash}" for each in found)

    def alarms(self, response: pb.AlarmResponse) -> bytes:
        return _lines(
            f"memberID:{alarm.memberID} alarm:{pb.AlarmType.Name(alarm.alarm)} " for alarm in response.alarms
        )

    def role(self, name: str, response: pb.AuthRoleGetResponse) -> bytes:
        lines = [f"Role {name}".encode()]
        for title, kinds in (("KV Read:", READING), ("KV Write:", WRITING)):
            lines.append(title.encode())
            lines += [b"\t" + _keys(each) for each in response.perm if each.permType in kinds]
        return b"".join(line + b"\n" for line in lines)

    def quotas(self, response: Any, quotas: Sequence[PrefixQuota]) -> bytes:
        return _lines(
            f"{prefix}, bytes {size}/{bytes_max}, keys {keys}/{keys_max}, qps {qps_max}"
            for prefix, size, bytes_max, keys, keys_max, qps_max in quota_rows(quotas)
        )

    def names(self, response: Any, names: Sequence[str]) -> bytes:
        return _lines(names)

    def reply(self, response: Any, text: str) -> bytes:
        return _lines([text])

    def _pair(self, kv: mvccpb.KeyValue | KeyValue, values_only: bool = False) -> bytes:
        shown = hexadecimal if self._hex else bytes
        return (b"" if values_only else shown(kv.key) + b"\n") + shown(kv.value) + b"\n"


def _keys(permission: authpb.Permission) -> bytes:
    """The keys of a permission: one, a range, everything from one on, and what prefix that is."""
    first, end = permission.key, permission.range_end
    if not end:
        return first
    text = b"[%b, <open ended>" % first if end == EVERYTHING else b"[%b, %b)" % (first, end)
    return text + b" (prefix %b)" % first if end == prefix_end(first) else text


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
