"""client.py for a gRPC service: the same commands, a target like xds:///NAME in place of the address.

A call that is to be served waits in the channel until there is somebody (wait_for_ready), so that nothing is asked
again and again meanwhile.
"""

from __future__ import annotations

import grpc

from benchmarks.routed.client import SERVED, TIMEOUT_S, parser, serve
from benchmarks.routed.grpc_container import METHOD, SERVICE

UNAVAILABLE = 503


class Calling:
    """One channel."""

    reconnected = 0

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._call = self._channel.unary_unary(f"/{SERVICE}/{METHOD}", bytes, bytes)

    def ask(self) -> int:
        return self._ask(wait_for_ready=False)

    def wait(self) -> int:
        return self._ask(wait_for_ready=True)

    def _ask(self, *, wait_for_ready: bool) -> int:
        try:
            self._call(b"", timeout=TIMEOUT_S, wait_for_ready=wait_for_ready)
        except grpc.RpcError:
            return UNAVAILABLE
        return SERVED

    def close(self) -> None:
        self._channel.close()


if __name__ == "__main__":
    given = parser().parse_args()
    serve(lambda: Calling(given.address), given)
