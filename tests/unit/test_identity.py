"""kvstore/identity.py against ids that etcd 3.5.1 printed."""

from kvstore.identity import cluster_id, initial_members, member_id


def test_the_default_member_has_etcds_ids() -> None:
    assert member_id(["http://localhost:2380"], "etcd-cluster") == 0x8E9E05C52164694D
    assert cluster_id([0x8E9E05C52164694D]) == 0xCDF818194E3A8C32


def test_order_of_urls_and_members_does_not_matter() -> None:
    urls = ["http://a:1", "http://b:2"]
    assert member_id(urls, "t") == member_id(urls[::-1], "t")
    ids = list(initial_members({"x": urls, "y": ["http://c:3"]}, "t").values())
    assert cluster_id(ids) == cluster_id(ids[::-1])


def test_the_token_keeps_clusters_apart() -> None:
    assert member_id(["http://a:1"], "one") != member_id(["http://a:1"], "two")
