"""Snapshots on their way: made beside a running writer, sent on a connection of their own, installed whole."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Protocol

from kvstore import log
from kvstore.replication.driver import Driver
from kvstore.replication.peers import PeerTransport
from kvstore.replication.recovery import decode_conf
from kvstore.replication.snapshot_transfer import SnapshotTransfers
from raft import InstallSnapshot, SnapshotMeta


class Machine(Protocol):
    def snapshot_to(self, path: str) -> tuple[int, int, int]: ...

    def snapshot_conf(self, path: str) -> bytes: ...

    def reopen_from(self, path: str) -> None: ...


class SnapshotExchange:
    def __init__(
        self, machine: Machine, transfers: SnapshotTransfers, peers: PeerTransport, directory: str
    ) -> None:
        """directory: where files live while they are on their way; emptied at each start of the member."""
        self._machine = machine
        self._transfers = transfers
        self._peers = peers
        self._directory = directory
        self._numbers = itertools.count(1)
        self._received: dict[int, str] = {}  # by snapshot index
        self._tasks: set[asyncio.Task[None]] = set()
        self.driver: Driver | None = None

    def send(self, message: InstallSnapshot) -> None:
        """Makes and sends one in the background; tells the driver how it went."""
        task = asyncio.get_running_loop().create_task(self._send(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, message: InstallSnapshot) -> None:
        loop, to = asyncio.get_running_loop(), message.to
        path = os.path.join(self._directory, f"out-{next(self._numbers)}.db")
        sent = False
        try:
            index, term, revision = await loop.run_in_executor(None, self._machine.snapshot_to, path)
            meta = SnapshotMeta(index, term, decode_conf(self._machine.snapshot_conf(path)))
            size = os.path.getsize(path)
            log.info("sending a snapshot", peer=f"{to:x}", index=index, revision=revision, bytes=size)
            whole = InstallSnapshot(message.sender, to, message.term, meta)
            hello = self._peers.hello(to, "snapshot")
            await self._transfers.send(self._peers.urls(to)[0], hello, whole, path)
            sent = True
            log.info("sent a snapshot", peer=f"{to:x}", index=index)
        except Exception as problem:  # the follower is asked again; whatever went wrong must be said
            log.warn("sending a snapshot failed", peer=f"{to:x}", error=repr(problem))
        finally:
            if os.path.exists(path):
                os.unlink(path)
        if self.driver is not None:
            self.driver.report_snapshot(to, sent)

    def received(self, message: InstallSnapshot, path: str) -> None:
        """All of it is on this disk: raft decides whether it is wanted."""
        assert self.driver is not None, "snapshots arrive after the member is built"
        log.info("received a snapshot", peer=f"{message.sender:x}", index=message.meta.index)
        self._received[message.meta.index] = path
        self.driver.received([message])
        # The driver installs it in the same turn or never: what is left is not wanted.
        asyncio.get_running_loop().call_later(5.0, self._forget, message.meta.index)

    def install(self, meta: SnapshotMeta) -> None:
        self._machine.reopen_from(self._received.pop(meta.index))
        log.info("installed a snapshot", index=meta.index)

    def _forget(self, index: int) -> None:
        path = self._received.pop(index, None)
        if path is not None and os.path.exists(path):
            os.unlink(path)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
