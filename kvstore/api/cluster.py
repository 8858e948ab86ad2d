"""etcdserverpb.Cluster: who the members are. Changes of membership are refused until they are built."""

from __future__ import annotations

from kvstore import errors
from kvstore.api.context import Context, parse
from kvstore.api.errors import fail
from kvstore.pb.etcdserverpb_pb2 import Member, MemberListRequest, MemberListResponse
from kvstore.rpc import Methods, Status, UnaryCall, UnaryMethod


class ClusterService:
    def __init__(self, context: Context, configured: dict[int, Member]) -> None:
        """configured: every member of the initial cluster, by id, as known before any has published itself."""
        self._context = context
        self._configured = configured

    def methods(self) -> Methods:
        refused = UnaryMethod(_refuse)
        return {
            "/etcdserverpb.Cluster/MemberList": UnaryMethod(self.member_list),
            "/etcdserverpb.Cluster/MemberAdd": refused,
            "/etcdserverpb.Cluster/MemberRemove": refused,
            "/etcdserverpb.Cluster/MemberUpdate": refused,
            "/etcdserverpb.Cluster/MemberPromote": refused,
        }

    def member_list(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, MemberListRequest, data)
        if request is None or not self._context.has_leader(call):
            return
        if not request.linearizable:
            call.reply(self._reply())
            return

        def ready(problem: errors.StoreError | None) -> None:
            if problem is not None:
                fail(call, problem)
            else:
                call.reply(self._reply())

        self._context.driver.read(ready)

    def members(self) -> list[Member]:
        """Published records over configured ones, by ascending id."""
        known = dict(self._configured)
        for member_id, record in self._context.machine.members.items():
            known[member_id] = record.member
        return [known[member_id] for member_id in sorted(known)]

    def _reply(self) -> bytes:
        return self._context.header(0) + MemberListResponse(members=self.members()).SerializeToString()


def _refuse(call: UnaryCall, data: bytes) -> None:
    call.fail(
        Status.UNIMPLEMENTED,
        "kvstore: changing the membership of a running cluster is not supported yet",
    )
