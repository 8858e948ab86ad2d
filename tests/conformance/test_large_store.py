"""What migrate_large makes and compares, in small: all of it arrives, and whatever differs is found."""

from __future__ import annotations

from pathlib import Path

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.conformance.etcd_process import running_cluster
from tests.conformance.large_store import PREFIX, Store, make, read
from tests.conformance.snapshots import KVCTL, Calls, restore


def test_a_store_arrives_and_each_difference_is_found(tmp_path: Path) -> None:
    path = tmp_path / "small.db"
    made = make(path, 0.002, silent)
    assert made.newest.count > 4000 and len(made.leases) == 64 and made.newest != made.earlier
    with running_cluster(
        "kvstore", prepare=lambda each: restore(KVCTL, path, each, "--bump-revision=0")
    ) as one:
        calls = Calls(one.endpoints[0])
        assert found(calls, made) == []
        some = made.leases[min(made.leases)]
        assert some == (3600, []) and any(keys for _, keys in made.leases.values())
        calls("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=min(made.leases)), pb.LeaseRevokeResponse)
        assert found(calls, made) == ["leases"]
        calls("Auth/UserDelete", pb.AuthUserDeleteRequest(name="reader"), pb.AuthUserDeleteResponse)
        calls("Auth/RoleDelete", pb.AuthRoleDeleteRequest(role="reader"), pb.AuthRoleDeleteResponse)
        assert found(calls, made) == ["leases", "users", "roles"]
        calls.put(PREFIX + b"more", b"x")
        assert found(calls, made) == ["revision", "leases", "users", "roles"]
        made.newest.count += 1
        made.earlier.sum ^= 1
        assert found(calls, made) == ["revision", "newest", "earlier", "leases", "users", "roles"]
        calls.close()


def found(calls: Calls, made: Store) -> list[str]:
    store = read(calls, made, silent, revision=made.revision)
    return [each.partition(":")[0] for each in made.differences(store)]


def silent(where: str) -> None:
    """Nobody waits for it."""
