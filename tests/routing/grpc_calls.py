"""Calls a target again and again, and prints who answered: python -m tests.routing.grpc_calls TARGET"""

from __future__ import annotations

import sys
import time

import grpc

METHOD = "/test.Echo/Name"


def main() -> None:
    with grpc.insecure_channel(sys.argv[1]) as channel:
        call = channel.unary_unary(METHOD, bytes, bytes)
        while True:
            try:
                print(call(b"", timeout=10.0).decode(), flush=True)
            except grpc.RpcError as problem:
                print(f"! {problem.code().name} {problem.details()}", flush=True)
            time.sleep(0.002)


if __name__ == "__main__":
    main()
