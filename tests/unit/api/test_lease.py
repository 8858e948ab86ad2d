"""etcdserverpb.Lease: what of it needs no cluster."""

from __future__ import annotations

from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from kvstore.api.lease import LeaseService
from kvstore.pb.etcdserverpb_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse
from tests.unit.api.door import Call, Door


@pytest.mark.parametrize(("ttl_ms", "ttl_s"), [(None, 0), (500, 1), (999, 1), (1999, 1), (60_000, 60)])
def test_a_lease_that_lives_is_never_renewed_for_no_time(
    tmp_path: Path, ttl_ms: int | None, ttl_s: int
) -> None:
    """0 says that it is gone. Instances are announced for milliseconds, and anybody may renew their leases."""
    keeper: Any = SimpleNamespace(renew=lambda lease_id, done: done(ttl_ms, None))
    service = LeaseService(Door(str(tmp_path), Random(1), enabled=False).context, keeper, Random(1))
    call = Call({})
    service.keep_alive(call).message(LeaseKeepAliveRequest(ID=7).SerializeToString())
    (answer,) = (LeaseKeepAliveResponse.FromString(each) for each in call.sent)
    assert (answer.ID, answer.TTL) == (7, ttl_s)
