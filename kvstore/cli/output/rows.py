"""The columns that simple and table share."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.cli.output import EndpointStatus
from kvstore.cli.text import human_bytes
from kvstore.pb import etcdserverpb_pb2 as pb

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


def _bool(value: bool) -> str:
    return "true" if value else "false"
