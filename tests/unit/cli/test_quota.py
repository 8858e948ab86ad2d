"""kvctl quota: limits as people write them, and the answer in every format."""

from __future__ import annotations

import json

import pytest

from kvstore.cli.failures import CommandFailed
from kvstore.cli.output import printer
from kvstore.cli.quota import limit
from kvstore.pb.quota_pb2 import PrefixQuota, QuotaListResponse

QUOTAS = [
    PrefixQuota(prefix=b"/a/", bytes_max=1 << 20, keys_max=10, qps_max=5, used_bytes=7, used_keys=1),
    PrefixQuota(prefix=b"/b/", keys_max=3),
]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000", 1000), ("10kB", 10_000), ("64MiB", 64 << 20), ("1G", 10**9), ("2 TiB", 2 << 40), ("none", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert limit("bytes_max", text) == size


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("bytes_max", text) for text in ("", "-1", "0", "64 MiBs", "1.5MiB", "9999999TiB")),
        *(("keys_max", text) for text in ("10k", "0", "many")),
    ],
)
def test_what_is_no_limit(name: str, text: str) -> None:
    with pytest.raises(CommandFailed, match="none"):
        limit(name, text)


def test_every_format() -> None:
    response = QuotaListResponse(quotas=QUOTAS)
    response.header.revision = 4

    def shown(name: str) -> bytes:
        return printer(name, hex_strings=False).quotas(response, QUOTAS)

    assert shown("simple") == (b"/a/, bytes 7/1048576, keys 1/10, qps 5\n/b/, bytes 0/-, keys 0/3, qps -\n")
    assert shown("protobuf") == response.SerializeToString()
    assert json.loads(shown("json"))["quotas"][1] == {"prefix": "L2Iv", "keys_max": 3}
    assert b'"Prefix" : "/a/"\n"BytesMax" : 1048576\n"KeysMax" : 10\n"QPSMax" : 5\n' in shown("fields")
    assert b"| PREFIX | BYTES | MAX BYTES | KEYS | MAX KEYS | MAX QPS |" in shown("table")
