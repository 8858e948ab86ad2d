"""One store carried through a file into another, without processes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from kvstore.backup.export_process import run
from kvstore.backup.restore import Choices, Restored, configuration, restore
from kvstore.state.backend import DATABASE
from kvstore.state.machine import StateMachine
from tests.unit.state.harness import MAP_BYTES, Replica, open_machine

AS_IT_WAS = Choices(bump_revisions=0, mark_compacted=False, skip_hash_check=True)


def export(replica: Replica, path: Path) -> Path:
    """What the process beside a member writes, once LMDB holds all that was applied."""
    with tempfile.TemporaryDirectory() as folder:
        size = run(["snapshot", _copy(replica, folder), str(MAP_BYTES), str(path)])
    assert size == path.stat().st_size
    return path


def hashed(replica: Replica) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return run(["hash", _copy(replica, folder), str(MAP_BYTES)])


def _copy(replica: Replica, folder: str) -> str:
    """The process opens the file itself; one process cannot open it twice."""
    replica.machine.flush()
    return str(shutil.copy(Path(replica.directory) / DATABASE, folder))


def restored(path: Path, target: Path, choices: Choices = AS_IT_WAS) -> tuple[Restored, StateMachine]:
    config = configuration(
        name="default",
        data_dir=str(target),
        initial_cluster="",
        token="t",
        peer_urls="http://127.0.0.1:2380",
    )
    made = restore(str(path), config, choices)
    return made, open_machine(str(target / "member" / "db"))
