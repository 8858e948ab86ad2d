"""The columns that simple and table share."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.cli.output import EndpointStatus
from kvstore.cli.text import human_bytes
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.quota_pb2 import PrefixQuota

MEMBER_COLUMNS = ("ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner")
STATUS_COLUMNS = (
    "Endpoint",
    "ID",
    "Version",
    "DB Size",
    "Is Leader",
    "Is Learner",
    "Raft Term",
    "Raft Index",
    "Raft Applied Index",
    "Errors",
)


QUOTA_COLUMNS = ("Prefix", "Bytes", "Max Bytes", "Keys", "Max Keys", "Max QPS")


def member_rows(response: pb.MemberListResponse) -> list[list[str]]:
    return [
        [
            f"{member.ID:x}",
            "started" if member.name else "unstarted",
            member.name,
            ",".join(member.peerURLs),
            ",".join(member.clientURLs),
            _bool(member.isLearner),
        ]
        for member in response.members
    ]


def status_rows(found: Sequence[EndpointStatus]) -> list[list[str]]:
    return [
        [
            each.endpoint,
            f"{each.response.header.member_id:x}",
            each.response.version,
            human_bytes(each.response.dbSize),
            _bool(each.response.leader == each.response.header.member_id),
            _bool(each.response.isLearner),
            str(each.response.raftTerm),
            str(each.response.raftIndex),
            str(each.response.raftAppliedIndex),
            ", ".join(each.response.errors),
        ]
        for each in found
    ]


def quota_rows(quotas: Sequence[PrefixQuota]) -> list[list[str]]:
    """A limit that there is not is a dash."""
    return [
        [
            each.prefix.decode("utf-8", "surrogateescape"),
            str(each.used_bytes),
            str(each.bytes_max or "-"),
            str(each.used_keys),
            str(each.keys_max or "-"),
            str(each.qps_max or "-"),
        ]
        for each in quotas
    ]


def _bool(value: bool) -> str:
    return "true" if value else "false"
