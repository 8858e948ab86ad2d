"""The same calls to two servers, and what must be equal.

What is not compared, and why:
  cluster_id, member_id, raft_term    who answered
  a lease's remaining TTL             the two are asked at different moments; that it runs is compared
  the order of leases in LeaseLeases  etcd's is by expiry, which they share
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
import hypothesis

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.conformance.etcd_process import Server, running_cluster
from tests.differential.calls import Step, sequences

TIMEOUT_S = 10.0
SENTINEL = b"the last event of a test"
METHODS: dict[str, tuple[str, Any]] = {
    "Range": ("KV/Range", pb.RangeResponse),
    "Put": ("KV/Put", pb.PutResponse),
    "DeleteRange": ("KV/DeleteRange", pb.DeleteRangeResponse),
    "Txn": ("KV/Txn", pb.TxnResponse),
    "Compact": ("KV/Compact", pb.CompactionResponse),
    "LeaseGrant": ("Lease/LeaseGrant", pb.LeaseGrantResponse),
    "LeaseRevoke": ("Lease/LeaseRevoke", pb.LeaseRevokeResponse),
    "LeaseTimeToLive": ("Lease/LeaseTimeToLive", pb.LeaseTimeToLiveResponse),
    "LeaseLeases": ("Lease/LeaseLeases", pb.LeaseLeasesResponse),
}


class Difference(AssertionError):
    """The two servers answered differently."""


class Answer(NamedTuple):
    code: str
    text: str
    message: Any


class Side:
    """One server."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(endpoint)
        self._stubs = {
            name: self._channel.unary_unary(
                f"/etcdserverpb.{path}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=kind.FromString,
            )
            for name, (path, kind) in METHODS.items()
        }

    def close(self) -> None:
        self._channel.close()

    def ask(self, name: str, request: Any) -> Answer:
        try:
            return Answer("OK", "", _comparable(self._stubs[name](request, timeout=TIMEOUT_S)))
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            return Answer(error.code().name, error.details() or "", None)

    def newest(self) -> int:
        revision: int = self.ask("Range", pb.RangeRequest(key=b"\0", count_only=True)).message.header.revision
        return revision

    def watch(self, request: pb.WatchCreateRequest) -> list[Any]:
        """What a watch says until it ends, or has said everything up to the newest revision: of its events the
        last one is a sentinel's, which is written here where the filters let one through."""
        stub = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )
        said: list[Any] = []
        stream = stub(iter([pb.WatchRequest(create_request=request)]), timeout=TIMEOUT_S)
        try:
            for response in stream:
                header = response.header.revision if response.created else 0
                said += [
                    (
                        response.watch_id,
                        response.created,
                        response.canceled,
                        response.compact_revision,
                        header,
                    )
                ]
                said += [(event.type, str(event.kv), str(event.prev_kv)) for event in response.events]
                if response.canceled or any(event.kv.value == SENTINEL for event in response.events):
                    break
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            said.append((error.code().name, error.details()))
        finally:
            stream.cancel()  # type: ignore[no-untyped-call]
        # How events are spread over answers is the server's affair; what they are, and their order, is not.
        return said[:1] + [each for each in said[1:] if len(each) != 5 or each[2]]


def _comparable(message: Any) -> Any:
    header = message.header
    header.cluster_id = header.member_id = header.raft_term = 0
    if isinstance(message, pb.LeaseTimeToLiveResponse):
        message.TTL = min(message.TTL, 1) if message.TTL >= 0 else message.TTL
    elif isinstance(message, pb.LeaseLeasesResponse):
        ids = sorted(lease.ID for lease in message.leases)
        del message.leases[:]
        message.leases.extend(pb.LeaseStatus(ID=each) for each in ids)
    for inner in getattr(message, "responses", ()):
        _clear_inner(inner)
    return message


def _clear_inner(response: pb.ResponseOp) -> None:
    kind = response.WhichOneof("response")
    if kind is not None:
        for inner in getattr(getattr(response, kind), "responses", ()):
            _clear_inner(inner)


class Pair:
    """Both servers, which have been asked the same since they were empty."""

    def __init__(self, ours: str, reference: str) -> None:
        self.sides = Side(ours), Side(reference)
        self.calls: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self._compacted = 0
        self._threads = ThreadPoolExecutor(2)

    def close(self) -> None:
        self._threads.shutdown()
        for side in self.sides:
            side.close()

    def run(self, steps: Sequence[Step]) -> None:
        """Raises Difference. Both are as good as empty afterwards."""
        self._clear()
        for number, step in enumerate(steps):
            self._step(step, f"step {number + 1} of {len(steps)}, {step!r}")

    def _step(self, step: Step, what: str) -> None:
        request = type(step.request)()
        request.CopyFrom(step.request)
        if step.revision is not None:
            revision = max(1, self.sides[0].newest() + step.revision)
            if step.name == "Watch" and revision == self._compacted:
                revision += 1  # etcd up to 3.5.15 has lost the deletions of that very revision (19179)
            setattr(request, "start_revision" if step.name == "Watch" else "revision", revision)
        self.calls[step.name] += 1
        if step.name == "Watch":
            self._watch(request, what)
            return
        ours, reference = self._both(step.name, request)
        if step.name == "Compact" and reference.code == "OK":
            self._compacted = request.revision
        self.codes[reference.code if reference.code == "OK" else f"{reference.code} {reference.text}"] += 1
        if ours != reference:
            raise Difference(f"{what}\nasked:\n{request}\nours: {ours}\netcd: {reference}")

    def _both(self, name: str, request: Any) -> tuple[Answer, Answer]:
        ours, reference = self._threads.map(lambda side: side.ask(name, request), self.sides)
        return ours, reference

    def _watch(self, request: pb.WatchCreateRequest, what: str) -> None:
        if len(set(request.filters)) == 2:
            return  # it says nothing, for ever
        key = request.key or b"\0"
        if not request.range_end or request.range_end == b"\0" or key < request.range_end:
            if pb.WatchCreateRequest.NOPUT in request.filters:
                return  # a delete has no value to know it by
            self._both("Put", pb.PutRequest(key=key, value=SENTINEL))
        ours, reference = self._threads.map(lambda side: side.watch(request), self.sides)
        if ours != reference:
            raise Difference(f"{what}\nasked:\n{request}\nours: {ours}\netcd: {reference}")

    def _clear(self) -> None:
        found = self._both("LeaseLeases", pb.LeaseLeasesRequest())
        for lease in found[0].message.leases:
            self._both("LeaseRevoke", pb.LeaseRevokeRequest(ID=lease.ID))
        self._both("DeleteRange", pb.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
        ours, reference = (side.newest() for side in self.sides)
        if ours != reference:
            raise Difference(f"between two tests: revision {ours} here, {reference} there")
        self._both("Compact", pb.CompactionRequest(revision=ours))
        self._compacted = ours


@contextmanager
def running_pair(server: Server = "kvstore") -> Iterator[Pair]:
    with running_cluster(server) as ours, running_cluster("etcd") as reference:
        pair = Pair(ours.endpoints[0], reference.endpoints[0])
        try:
            yield pair
        finally:
            pair.close()


def find_difference(pair: Pair, seed: int, examples: int) -> str:
    """Runs generated sequences; the smallest that is answered differently as a text to replay, "" without one."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        report_multiple_bugs=False,
    )
    @hypothesis.given(sequences)
    def same(steps: list[Step]) -> None:
        pair.run(steps)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", hypothesis.errors.HypothesisWarning)  # of a long repr
            same()
    except Difference as found:
        return "\n".join([str(found), *getattr(found, "__notes__", ())])
    return ""
