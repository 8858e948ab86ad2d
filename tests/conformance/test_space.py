"""A member that runs out of space, as a process: the alarm, what goes on under it, and the way back."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable

import grpc
import pytest

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.conformance.etcd_process import QUICK_ELECTIONS, running_cluster
from tests.conformance.test_metrics import Calls, eventually

QUOTA = 4 << 20
NO_SPACE = "etcdserver: mvcc: database space exceeded"


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as problem:
        call()
    assert problem.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    return str(problem.value.details())


def test_full_and_emptied_again() -> None:
    flags = ["--quota-backend-bytes", str(QUOTA), *QUICK_ELECTIONS]
    with running_cluster("kvstore", flags=flags) as cluster:
        endpoint = cluster.endpoints[0]
        calls = Calls(endpoint)
        granted = calls("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=60), pb.LeaseGrantResponse)
        with pytest.raises(grpc.RpcError) as problem:
            for number in range(200):
                calls.put(b"fill/%d" % number, bytes(100_000))
        assert problem.value.details() == NO_SPACE

        def alarms() -> list[pb.AlarmMember]:
            return list(calls("/etcdserverpb.Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse).alarms)

        assert eventually(lambda: [each.alarm for each in alarms()] == [pb.AlarmType.NOSPACE])
        assert refused(lambda: calls.put(b"small", b"x")) == NO_SPACE
        lease = pb.LeaseGrantRequest(TTL=60)
        assert (
            refused(lambda: calls("/etcdserverpb.Lease/LeaseGrant", lease, pb.LeaseGrantResponse)) == NO_SPACE
        )
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://{endpoint}/health", timeout=10)
        assert calls("/etcdserverpb.KV/Range", pb.RangeRequest(key=b"fill/0"), pb.RangeResponse).count == 1
        calls("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=granted.ID), pb.LeaseRevokeResponse)
        calls("/etcdserverpb.Maintenance/Defragment", pb.DefragmentRequest(), pb.DefragmentResponse)
        deleted = calls(
            "/etcdserverpb.KV/DeleteRange",
            pb.DeleteRangeRequest(key=b"fill/", range_end=b"fill0"),
            pb.DeleteRangeResponse,
        )
        assert deleted.deleted > 10
        compaction = pb.CompactionRequest(revision=deleted.header.revision, physical=True)
        calls("/etcdserverpb.KV/Compact", compaction, pb.CompactionResponse)
        assert eventually(lambda: not alarms()), "disarmed by itself"
        calls.put(b"small", b"x")
        status = calls("/etcdserverpb.Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
        assert status.dbSizeInUse < QUOTA // 2 < status.dbSize
        assert (status.dbSizeQuota, list(status.errors)) == (QUOTA, [])
        calls.channel.close()
