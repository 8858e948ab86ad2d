"""The table of JSON paths: every method that etcd's gateway has, under etcd's names, and of ours the quotas."""

from __future__ import annotations

from kvstore.http.paths import bindings, canonical, table

PATHS = """
/v3/kv/range /v3/kv/put /v3/kv/deleterange /v3/kv/txn /v3/kv/compaction
/v3/watch
/v3/lease/grant /v3/lease/revoke /v3/lease/keepalive /v3/lease/timetolive /v3/lease/leases
/v3/kv/lease/revoke /v3/kv/lease/timetolive /v3/kv/lease/leases
/v3/cluster/member/add /v3/cluster/member/remove /v3/cluster/member/update /v3/cluster/member/list
/v3/cluster/member/promote
/v3/maintenance/alarm /v3/maintenance/status /v3/maintenance/defragment /v3/maintenance/hash
/v3/maintenance/hashkv /v3/maintenance/snapshot /v3/maintenance/transfer-leadership /v3/maintenance/downgrade
/v3/auth/enable /v3/auth/disable /v3/auth/status /v3/auth/authenticate
/v3/auth/user/add /v3/auth/user/get /v3/auth/user/list /v3/auth/user/delete /v3/auth/user/changepw
/v3/auth/user/grant /v3/auth/user/revoke
/v3/auth/role/add /v3/auth/role/get /v3/auth/role/list /v3/auth/role/delete /v3/auth/role/grant
/v3/auth/role/revoke
/v3/lock/lock /v3/lock/unlock
/v3/election/campaign /v3/election/proclaim /v3/election/leader /v3/election/observe /v3/election/resign
/v3/quota/set /v3/quota/get /v3/quota/list /v3/quota/remove
""".split()


def test_every_path_of_etcds_gateway() -> None:
    assert sorted(table()) == sorted(PATHS)


def test_only_these_methods_stream() -> None:
    streams = {binding.method: (binding.client_streams, binding.server_streams) for binding in bindings()}
    assert {method: both for method, both in streams.items() if any(both)} == {
        "/etcdserverpb.Watch/Watch": (True, True),
        "/etcdserverpb.Lease/LeaseKeepAlive": (True, True),
        "/etcdserverpb.Maintenance/Snapshot": (False, True),
        "/v3electionpb.Election/Observe": (False, True),
    }


def test_an_alias_is_the_same_binding() -> None:
    paths = table()
    assert paths["/v3/kv/lease/revoke"] is paths["/v3/lease/revoke"]


def test_the_older_root_is_rewritten() -> None:
    assert canonical("/v3beta/kv/put") == "/v3/kv/put"
    assert canonical("/v3betakv/put") == "/v3betakv/put"
    assert canonical("/v3alpha/kv/put") == "/v3alpha/kv/put"
