"""A reply's header, made of what 128 revisions share, is the one that protobuf makes."""

from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.context import Context
from kvstore.pb.etcdserverpb_pb2 import PutResponse, ResponseHeader
from kvstore.state.auth import AuthStore
from kvstore.state.quotas import Quotas

REVISIONS = st.integers(0, 1 << 62) | st.integers(0, 1 << 15)


def context(term: int = 7) -> Context:
    made = SimpleNamespace(node=SimpleNamespace(term=term))
    machine = SimpleNamespace(auth=AuthStore(), on_auth=None, quotas=Quotas())
    fields = (SimpleNamespace(), made, machine, 0x8CC6_E2B9_1A77_0A4F, 0xFD42_2379_FDA5_0E48)
    found = Context(*fields, lambda: 0.0, lambda *_: None, tokens=cast("object", SimpleNamespace()))  # type: ignore[arg-type]
    return found


@given(st.lists(st.tuples(REVISIONS, st.integers(0, 1 << 40)), min_size=1, max_size=20))
def test_header_is_protobufs(asked: list[tuple[int, int]]) -> None:
    made = context()
    for revision, term in asked:
        made.driver.node.term = term  # type: ignore[misc]
        for each in (revision, revision + 1, revision ^ 0x80):
            header = ResponseHeader(
                cluster_id=made.cluster_id, member_id=made.member_id, revision=each, raft_term=term
            )
            assert made.header(each) == PutResponse(header=header).SerializeToString()
