"""The storage process's stand-in: real LMDB in this process, commits that take simulated time, power that fails.

A frame given to submit() is committed after a delay. When the power fails before that, it is committed or not,
whole in either case, as LMDB promises; nobody hears of it then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from random import Random

from kvstore.state.backend import DATABASE, CallSoon, Committed, Failed
from kvstore.state.reader import Reader
from kvstore.state.storage_process import commit, open_environment, open_tables

MAP_BYTES = 64 << 20


class SimulatedBackend:
    """kvstore.state.backend.Backend."""

    def __init__(
        self,
        path: str,
        *,
        committed: Committed,
        later: Callable[[Callable[[], None]], None],
        random: Random,
    ) -> None:
        self._env = open_environment(path, map_bytes=MAP_BYTES, sync=False)
        self._tables = open_tables(self._env, create=True)
        self._committed = committed
        self._later = later
        self._random = random
        self._frame: bytes | None = None
        self._closed = False
        self.reader = Reader(self._env, self._tables)

    def submit(self, frame: bytes) -> None:
        assert self._frame is None, "a frame is under way already"
        self._frame = frame
        self._later(self._finish)

    def poll(self) -> None:
        """A commit is reported by its own event."""

    def drain(self) -> None:
        self._finish()

    def close(self) -> None:
        """As the storage process: what is under way is still committed."""
        if self._closed:
            return
        if self._frame is not None:
            commit(self._env, self._tables, memoryview(self._frame))
        self._let_go()

    def lose_power(self) -> None:
        if self._frame is not None and self._random.random() < 0.5:
            commit(self._env, self._tables, memoryview(self._frame))
        self._let_go()

    def _finish(self) -> None:
        frame, self._frame = self._frame, None
        if frame is not None and not self._closed:
            self._committed(commit(self._env, self._tables, memoryview(frame)))

    def _let_go(self) -> None:
        self._closed = True
        self._frame = None
        self.reader.close()
        self._env.close()


class Storage:
    """Opens backends for one life of a member, and remembers the last for the day the power fails."""

    def __init__(self, *, later: Callable[[Callable[[], None]], None], random: Random) -> None:
        self._later = later
        self._random = random
        self._backend: SimulatedBackend | None = None

    def open(
        self,
        directory: str,
        *,
        in_process: bool,
        map_bytes: int,
        sync: bool,
        inherit_fds: Sequence[int],
        call_soon: CallSoon,
        committed: Committed,
        failed: Failed,
    ) -> SimulatedBackend:
        self._backend = SimulatedBackend(
            os.path.join(directory, DATABASE), committed=committed, later=self._later, random=self._random
        )
        return self._backend

    def lose_power(self) -> None:
        if self._backend is not None:
            self._backend.lose_power()
