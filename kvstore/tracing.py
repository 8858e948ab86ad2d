"""Where the time of a put goes: stamps along its way, written to a file, for `python -m benchmarks.hops`.

    KVSTORE_TRACE=FILE kvstore …        or a folder that exists: then FOLDER/NAME.trace of the member NAME

Without the variable this module is not imported and nothing of it is on the way: install() puts functions of its
own around those of one member's parts, before it serves. With it a member is some tenths slower, so that shares of
the way carry over and absolute times less. For looking, not for production: the file grows with every put.

A line is one stamp, CLOCK_MONOTONIC in ns, which the processes of one machine share. Entries go by their index in
the log, as in every member; a put by the index of the entry it is in and the revision it got.

    member ID                                 this member's, in hexadecimal
    put INDEX REVISION IN PROPOSED DONE OUT   read from the socket, proposed, applied here, answer given to the socket
    append FIRST LAST NS                      the leader took batches as these entries
    send FIRST LAST NS                        … and encodes them for a follower's socket, the first time
    receive FIRST LAST NS                     a follower has read them
    sync FIRST LAST NS                        they are on this member's disk; taken on the log's thread
    reply LAST NS                             a follower says that it has everything up to LAST
    ack ID LAST NS                            the leader hears of it
    commit FIRST LAST NS                      known to be committed here
    watch REVISION NS                         events of this revision given to a watcher's socket

What is given to a socket is written by the event loop at the end of its turn.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any

from kvstore.api.watch import WatchStream
from kvstore.commands import Kind, decode_header
from kvstore.replication.driver import Driver
from kvstore.replication.outbox import Done, Outcome
from kvstore.replication.wal_writer import WalWriter
from kvstore.wire.connection import Connection
from kvstore.wire.protocol import WireProtocol
from raft import AppendEntries, AppendResponse, Entry, EntryID, EntryKind, Message


def path_of(given: str, name: str) -> str:
    """The file of one member."""
    return os.path.join(given, f"{name}.trace") if os.path.isdir(given) else given


class Put:
    """One put that this member was asked for, in the place of who waits for its outcome."""

    __slots__ = ("applied", "done", "index", "proposed", "received", "revision", "tracer")

    def __init__(self, tracer: Tracer, done: Done) -> None:
        self.tracer = tracer
        self.done = done
        self.received = tracer.received_at
        self.proposed = monotonic_ns()
        self.index = self.revision = self.applied = 0

    def __call__(self, outcome: Outcome) -> None:
        self.applied = monotonic_ns()
        self.revision = outcome[0] if isinstance(outcome, tuple) else 0
        self.tracer.answering = self
        self.done(outcome)
        self.tracer.answering = None


class Tracer:
    """Keeps the stamps of one member until flush() writes them out."""

    def __init__(self, path: str, member_id: int) -> None:
        self._file = open(path, "w", encoding="ascii")  # noqa: SIM115  as long as the process
        self._lines: deque[str] = deque((f"member {member_id:x}",))  # two threads append
        self.received_at = 0  # what is being read from a socket
        self.answering: Put | None = None
        self._sent_to = 0
        self._answered: dict[int, list[Put]] = {}  # what is on a connection's output, by the connection
        self._watched: dict[int, list[int]] = {}
        self._submitted: deque[tuple[int, int, int]] = deque()  # of a Ready: its number, first and last entry

    def write(self, *words: object) -> None:
        self._lines.append(" ".join(map(str, words)))

    def flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if lines:
            self._file.write("\n".join(lines) + "\n")
            self._file.flush()

    # The way of a put, in its order

    def receive(self, original: Callable[..., None]) -> Callable[..., None]:
        def receive(protocol: WireProtocol, connection: Connection, data: bytes) -> None:
            self.received_at = monotonic_ns()
            original(protocol, connection, data)

        return receive

    def propose(self, original: Callable[..., None]) -> Callable[..., None]:
        def propose(kind: int, payload: bytes, done: Done) -> None:
            original(kind, payload, Put(self, done) if kind == Kind.PUT else done)

        return propose

    def node_propose(self, original: Callable[..., EntryID]) -> Callable[..., EntryID]:
        def propose(batches: Sequence[bytes]) -> EntryID:
            last = original(batches)
            self.write("append", last.index - len(batches) + 1, last.index, monotonic_ns())
            return last

        return propose

    def send(self, original: Callable[[list[Message]], None]) -> Callable[[list[Message]], None]:
        def send(messages: list[Message]) -> None:
            now = monotonic_ns()  # before: a peer may have read it when the call returns
            for message in messages:
                if isinstance(message, AppendEntries) and message.entries:
                    first, last = message.entries[0].index, message.entries[-1].index
                    if last > self._sent_to:
                        self.write("send", max(first, self._sent_to + 1), last, now)
                        self._sent_to = last
                elif isinstance(message, AppendResponse) and not message.reject:
                    self.write("reply", message.index, now)
            original(messages)

        return send

    def received(self, original: Callable[[Sequence[Message]], None]) -> Callable[[Sequence[Message]], None]:
        def received(messages: Sequence[Message]) -> None:
            now = monotonic_ns()
            for message in messages:
                if isinstance(message, AppendEntries) and message.entries:
                    self.write("receive", message.entries[0].index, message.entries[-1].index, now)
                elif isinstance(message, AppendResponse) and not message.reject:
                    self.write("ack", f"{message.sender:x}", message.index, now)
            original(messages)

        return received

    def submit(self, original: Callable[..., None]) -> Callable[..., None]:
        def submit(number: int, state: Any, snapshot: Any, entries: Sequence[Entry], sync: bool) -> None:
            if entries:
                self._submitted.append((number, entries[0].index, entries[-1].index))
            original(number, state, snapshot, entries, sync)

        return submit

    def post(self, original: Callable[..., object]) -> Callable[..., object]:
        """On the log's thread, right after its sync."""

        def post(function: Callable[..., None], argument: object) -> object:
            now = monotonic_ns()
            while isinstance(argument, int) and self._submitted and self._submitted[0][0] <= argument:
                _, first, last = self._submitted.popleft()
                self.write("sync", first, last, now)
            return original(function, argument)

        return post

    def ready(self, original: Callable[[], Any]) -> Callable[[], Any]:
        def ready() -> Any:
            found = original()
            if found.committed:
                self.write("commit", found.committed[0].index, found.committed[-1].index, monotonic_ns())
            return found

        return ready

    def apply_one(self, driver: Driver) -> Callable[[Entry], None]:
        original = driver._apply_one

        def apply_one(entry: Entry) -> None:
            if entry.kind == EntryKind.NORMAL and entry.data:
                header = decode_header(entry.data)
                if (header.origin, header.incarnation) == (driver.member_id, driver.incarnation):
                    pending = driver.outbox._pending.get(header.sequence)
                    for waiter in pending.waiters if pending is not None else ():
                        if isinstance(waiter, Put):
                            waiter.index = entry.index
            original(entry)

        return apply_one

    # To the socket

    def reply(self, original: Callable[..., None]) -> Callable[..., None]:
        def reply(connection: Connection, stream: Any, message: bytes) -> None:
            if self.answering is not None:
                self._answered.setdefault(id(connection), []).append(self.answering)
            original(connection, stream, message)

        return reply

    def events(self, original: Callable[..., None]) -> Callable[..., None]:
        def events(stream: WatchStream, watcher: Any, revision: int, encoded: bytes, count: int) -> None:
            original(stream, watcher, revision, encoded, count)
            if not watcher.behind:  # else they are of the past
                connection = getattr(stream._call, "connection", None)
                revisions = range(revision - count + 1, revision + 1)
                self._watched.setdefault(id(connection), []).extend(revisions)

        return events

    def flushed(self, original: Callable[..., None]) -> Callable[..., None]:
        def flush(protocol: WireProtocol) -> None:
            original(protocol)
            now, key = monotonic_ns(), id(protocol._connection)
            for put in self._answered.pop(key, ()):
                self.write("put", put.index, put.revision, put.received, put.proposed, put.applied, now)
            for revision in self._watched.pop(key, ()):
                self.write("watch", revision, now)

        return flush

    def then_flush(self, original: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            original()
            self.flush()

        return call


def install(path: str, driver: Driver, log: WalWriter) -> Tracer:
    """From here on every put leaves its stamps. Before the first connection: classes of the wire are changed."""
    tracer = Tracer(path, driver.member_id)
    _around(WireProtocol, "_receive", tracer.receive)
    _around(WireProtocol, "_flush", tracer.flushed)
    _around(Connection, "reply", tracer.reply)
    _around(WatchStream, "events", tracer.events)
    _around(driver, "propose", tracer.propose)
    _around(driver, "received", tracer.received)
    _around(driver, "_apply_one", lambda _: tracer.apply_one(driver))
    _around(driver, "tick", tracer.then_flush)
    _around(driver, "stop", tracer.then_flush)
    _around(driver.node, "propose", tracer.node_propose)
    _around(driver.node, "ready", tracer.ready)
    _around(driver._transport, "send", tracer.send)
    _around(log, "submit", tracer.submit)
    _around(log, "_post", tracer.post)
    return tracer


def _around(owner: object, name: str, wrap: Callable[[Any], Any]) -> None:
    setattr(owner, name, wrap(getattr(owner, name)))
