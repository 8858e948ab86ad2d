"""container.py for a gRPC service: the same commands, one method that answers with the name.

python -m benchmarks.routed.grpc_container NAME PORT CONTROL
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import grpc

from benchmarks.routed.container import Server, main

SERVICE, METHOD = "bench.Names", "Name"


class GrpcServer(Server):
    def __init__(self, name: str, port: int) -> None:
        super().__init__(name, port)
        self._name = name.encode()
        self._serving: grpc.aio.Server | None = None

    async def listen(self) -> None:
        self._serving = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(self._call)
        self._serving.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
        )
        self._serving.add_insecure_port(f"127.0.0.1:{self._port}")
        await self._serving.start()

    async def _call(self, request: bytes, context: Any) -> bytes:
        self.last_ns = time.monotonic_ns()
        self.count += 1
        return self._name


if __name__ == "__main__":
    asyncio.run(main(GrpcServer(sys.argv[1], int(sys.argv[2])), sys.argv[3], later=False))
