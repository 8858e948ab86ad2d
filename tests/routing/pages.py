"""A page's commands, run as one session of a shell, as a reader would."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

BLOCKS = re.compile(r"```sh\n(.*?)```\n(?:```(?:json|text)\n(.*?)```)?", re.DOTALL)
MARK = "=== next block ==="


def blocks(page: Path) -> list[tuple[str, str]]:
    """(commands, what they print)."""
    return BLOCKS.findall(page.read_text())


def run_page(
    page: Path, folder: Path, environment: Mapping[str, str], ports: Mapping[str, str], timeout_s: float
) -> list[str]:
    """What each block printed on stdout. ports: the page's to those that are free here; they are the page's again
    in what is returned. `kvctl` is this environment's."""
    script = f"echo '{MARK}'\n".join(commands for commands, _ in blocks(page))
    for there, here in ports.items():
        script = re.sub(rf"\b{there}\b", here, script)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["bash", "-u"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=True,
        env={**os.environ, **environment, "PATH": path},
    )
    try:
        printed, complaints = shell.communicate(script, timeout=timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):  # what a page that failed has left in the background
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    assert printed.count(MARK) == len(blocks(page)) - 1, f"{printed}{complaints}"
    for there, here in ports.items():
        printed = re.sub(rf"\b{here}\b", there, printed)
    return printed.split(f"{MARK}\n")
