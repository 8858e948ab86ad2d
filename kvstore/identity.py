"""Who is who: member and cluster ids, computed as etcd computes them, so that both print the same ones.

A member id is the first eight bytes of the SHA-1 of its sorted peer URLs and the cluster token; a cluster id is
that of its sorted member ids. Checked against etcd 3.5.1: the default member is 8e9e05c52164694d in cluster
cdf818194e3a8c32.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence


def member_id(peer_urls: Sequence[str], token: str) -> int:
    text = "".join(sorted(peer_urls)) + token
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:8], "big")


def cluster_id(member_ids: Iterable[int]) -> int:
    packed = b"".join(struct.pack(">Q", each) for each in sorted(member_ids))
    return int.from_bytes(hashlib.sha1(packed).digest()[:8], "big")


def initial_members(cluster: Mapping[str, Sequence[str]], token: str) -> dict[str, int]:
    """Name to member id, for an initial cluster given as name to peer URLs."""
    return {name: member_id(urls, token) for name, urls in cluster.items()}
