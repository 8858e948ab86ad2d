"""Who asks through the proxy. A process of its own with blocking sockets, so that it costs little and its times are
those of the answers, not of an event loop that has other things to do.

    python -m benchmarks.routed.client HOST:PORT [--connections N] [--pause MS]

Commands, a line each on stdin, each answered with a line of JSON on stdout:

    served   asks until an answer is a 200: {"at": when it was there, "asked": requests}
    refused  asks until one is not
    begin    N connections ask all the time from now on, each PAUSE_MS after its last answer
    end      they stop: {"ok": …, "failures": [what, …], "reconnected": …}

Times are nanoseconds of the monotonic clock. A kept connection that the proxy has closed before a byte of the answer
is opened again and asked once more, as every client of HTTP does (RFC 9112, 9.3.1); that is counted as reconnected,
and as a failure only when the fresh one fails too.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

SERVED = 200
TIMEOUT_S = 10.0
FAILURES_KEPT = 20


class Closed(Exception):
    """The connection ended before a byte of the answer."""


class Asks(Protocol):
    reconnected: int

    def ask(self) -> int:
        """The status of one answer. Raises OSError."""

    def wait(self) -> int:
        """The same, of a request that may wait for somebody who serves it, where a client can do that."""

    def close(self) -> None: ...


class Asking:
    """One keep-alive connection."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._to = (host, int(port))
        self._request = f"GET / HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
        self._socket: socket.socket | None = None
        self.reconnected = 0

    def ask(self) -> int:
        """The status. Raises OSError."""
        if self._socket is not None:
            try:
                return self._once(self._socket)
            except (Closed, ConnectionError):
                self.reconnected += 1
                self.close()
        self._socket = socket.create_connection(self._to, TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return self._once(self._socket)
        except Closed:
            self.close()
            raise ConnectionError("closed without an answer") from None
        except OSError:
            self.close()
            raise

    def wait(self) -> int:
        return self.ask()

    def _once(self, connected: socket.socket) -> int:
        connected.sendall(self._request)
        data = connected.recv(65536)
        if not data:
            raise Closed
        while b"\r\n\r\n" not in data:
            data += self._more(connected)
        head, _, body = data.partition(b"\r\n\r\n")
        fields = head.lower().split(b"\r\n")
        length = next((int(one[15:]) for one in fields if one.startswith(b"content-length:")), None)
        if length is None:
            is_done: Callable[[bytes], bool] = lambda got: got.endswith(b"0\r\n\r\n")  # noqa: E731 - chunked
        else:
            wanted = length
            is_done = lambda got: len(got) >= wanted  # noqa: E731
        while not is_done(body):
            body += self._more(connected)
        if b"connection: close" in fields:
            self.close()
        return int(head[9:12])

    def _more(self, connected: socket.socket) -> bytes:
        data = connected.recv(65536)
        if not data:
            raise ConnectionError("closed in the middle of an answer")
        return data

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def until(ask: Callable[[], int], is_served: bool, pause_s: float) -> dict[str, int]:
    asked = 0
    while True:
        asked += 1
        try:
            status = ask()
        except OSError:
            status = 0
        if (status == SERVED) is is_served:
            return {"at": time.monotonic_ns(), "asked": asked}
        time.sleep(pause_s)


class Load:
    """Several that ask all the time."""

    def __init__(self, make: Callable[[], Asks], connections: int, pause_s: float) -> None:
        self._make = make
        self._pause_s = pause_s
        self._is_over = False
        self.ok = 0
        self.reconnected = 0
        self.failures: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._one, daemon=True) for _ in range(connections)]
        for thread in self._threads:
            thread.start()

    def _one(self) -> None:
        asking = self._make()
        ok, failures = 0, []
        while not self._is_over:
            try:
                status = asking.ask()
                if status == SERVED:
                    ok += 1
                else:
                    failures.append(f"status {status}")
            except OSError as problem:
                failures.append(f"{type(problem).__name__}: {problem}")
            time.sleep(self._pause_s)
        asking.close()
        with self._lock:
            self.ok += ok
            self.failures += failures
            self.reconnected += asking.reconnected

    def end(self) -> dict[str, Any]:
        self._is_over = True
        for thread in self._threads:
            thread.join()
        return {
            "ok": self.ok,
            "failed": len(self.failures),
            "failures": self.failures[:FAILURES_KEPT],
            "reconnected": self.reconnected,
        }


def serve(make: Callable[[], Asks], options: argparse.Namespace) -> None:
    """Obeys stdin until it ends."""
    pause_s = options.pause / 1e3
    asking = make()
    load: Load | None = None
    for line in sys.stdin:
        answer: dict[str, Any] = {}
        match line.strip():
            case "served":
                answer = until(asking.wait, True, pause_s)
            case "refused":
                answer = until(asking.ask, False, pause_s)
            case "begin":
                load = Load(make, options.connections, pause_s)
            case "end" if load is not None:
                answer = load.end()
        print(json.dumps(answer), flush=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("address")
    made.add_argument("--connections", type=int, default=4)
    made.add_argument("--pause", type=float, default=0.2)
    return made


if __name__ == "__main__":
    given = parser().parse_args()
    serve(lambda: Asking(given.address), given)
