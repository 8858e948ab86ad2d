"""The member's side of export_process.py: starts it, waits without blocking, and cleans up behind it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from dataclasses import dataclass, field

from kvstore.state.backend import DATABASE

PREFIX = "out-etcd-"
_LINE_MAX = 500


class ExportFailed(Exception):
    """One line."""


@dataclass
class Exporter:
    """database_dir: where LMDB is. directory: for files on their way; the member empties it at each start."""

    database_dir: str
    directory: str
    map_bytes: int
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def snapshot(self) -> tuple[int, int]:
        """Makes a snapshot of what is in LMDB now. Returns an open descriptor of the file, which has no name any
        more, so that nothing is left of it when that is closed; and its size. Raises ExportFailed."""
        path = os.path.join(self.directory, f"{PREFIX}{os.getpid()}-{next(self._numbers)}.db")
        try:
            size = await self._run("snapshot", path)
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as problem:
            raise ExportFailed(str(problem)) from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        return descriptor, size

    async def hash(self) -> int:
        """CRC-32C of everything. Raises ExportFailed."""
        return await self._run("hash")

    async def _run(self, kind: str, *rest: str) -> int:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kvstore.backup.export_process"),
            *(kind, os.path.join(self.database_dir, DATABASE), str(self.map_bytes), *rest),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        try:
            out, said = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            line = said.decode(errors="replace").strip().rpartition("\n")[2][:_LINE_MAX]
            raise ExportFailed(line or f"the export ended with status {process.returncode}")
        return int(out)
