"""Who asks in the benchmark from ready to routed: what it takes for an answer, and what for a failure."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from benchmarks.routed.client import Asking, Load, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
CHUNKED = b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
CLOSE = b""


@contextlib.contextmanager
def proxy(*connections: list[bytes]) -> Iterator[str]:
    """Answers of each connection in turn; a connection is closed after its last, or at CLOSE, which takes a request."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answers in connections:
                connected, _ = listening.accept()
                with connected:
                    for answer in answers:
                        if not connected.recv(65536) or not answer:
                            break
                        connected.sendall(answer[:20])
                        connected.sendall(answer[20:])

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)


def test_answers_are_read_whole_and_the_connection_is_kept() -> None:
    with proxy([OK, CHUNKED, OK, REFUSED], [OK]) as address:
        asking = Asking(address)
        assert [asking.ask() for _ in range(5)] == [200, 502, 200, 503, 200]
        assert asking.reconnected == 0
        asking.close()


def test_a_kept_connection_that_is_closed_is_opened_again_and_counted() -> None:
    with proxy([OK, CLOSE], [OK]) as address:
        asking = Asking(address)
        assert [asking.ask(), asking.ask()] == [200, 200]
        assert asking.reconnected == 1
        asking.close()


def test_a_fresh_connection_that_is_closed_is_a_failure() -> None:
    with proxy([CLOSE]) as address, pytest.raises(ConnectionError, match="without an answer"):
        Asking(address).ask()


def test_an_answer_that_breaks_off_is_a_failure_and_not_asked_again() -> None:
    with proxy([OK[:-1]]) as address, pytest.raises(ConnectionError, match="middle"):
        Asking(address).ask()


def test_until_counts_what_it_asked() -> None:
    with proxy([REFUSED], [REFUSED], [OK, OK, CHUNKED]) as address:
        asking = Asking(address)
        assert until(asking.ask, True, 0.0)["asked"] == 3
        assert until(asking.ask, False, 0.0)["asked"] == 2
        asking.close()


class Script:
    """Answers after one another, and then the last for ever."""

    reconnected = 2

    def __init__(self) -> None:
        self.left: list[int | OSError] = [200, 503, ConnectionResetError("gone"), 200]
        self.used = threading.Event()

    def ask(self) -> int:
        answer = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if len(self.left) == 1:
            self.used.set()
        if isinstance(answer, OSError):
            raise answer
        return answer

    wait = ask

    def close(self) -> None:
        pass


def test_a_load_counts_what_was_not_answered_with_200() -> None:
    script = Script()
    load = Load(lambda: script, 1, 0.001)
    assert script.used.wait(10)
    found = load.end()
    assert found["failures"] == ["status 503", "ConnectionResetError: gone"]
    assert found["failed"] == 2
    assert found["reconnected"] == 2
    assert found["ok"] >= 1
