"""kvctl announce as process 1, in a process namespace of its own: what the kernel and a container expect of it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from kvstore.demo.processes import Program
from tests.routing.programs import KVCTL, Bench, required, until
from tests.routing.test_announce import stored

IN_A_NAMESPACE = ["--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"]
# Leaves an orphan behind that ends at once, tells how many zombies there are, and ends as it is told to.
COMMAND = """
trap 'echo stopping; exit 3' TERM
trap 'cat /proc/[0-9]*/stat | grep -c " Z "; echo counted' USR1
sh -c 'sleep 0.01 &'
echo running
while :; do sleep 0.01; done
"""


@pytest.fixture
def unshare() -> str:
    program = required("unshare", "unshare")
    tried = subprocess.run([program, *IN_A_NAMESPACE, "true"], capture_output=True, text=True, timeout=20)
    if tried.returncode != 0:
        if os.environ.get("CI"):
            pytest.fail(f"no namespace for processes, and CI is set: {tried.stderr}", pytrace=False)
        pytest.skip(f"no namespace for processes: {tried.stderr}")
    return program


async def start(own: Bench, unshare: str, *command: str) -> tuple[Program, int]:
    """unshare, and the process that is number 1 inside, by its number out here."""
    words = [unshare, *IN_A_NAMESPACE, *KVCTL, "announce", own.service, "--address=:1", "--check=none", "--"]
    outer = await own.programs.start("one", [*words, *command], {"KVCTL_ENDPOINTS": own.endpoint})
    await outer.wait_line("announced ")
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    return outer, int(children[0])


async def test_it_reaps_passes_signals_on_withdraws_first_and_ends_as_its_command(
    own: Bench, unshare: str
) -> None:
    outer, one = await start(own, unshare, "sh", "-c", COMMAND)
    await outer.wait_line("^running")

    async def nothing_is_left() -> bool:
        seen = len(outer.lines)
        os.kill(one, signal.SIGUSR1)
        await outer.wait_line("^counted", start=seen)
        return "0" in outer.lines[seen:]

    await until("the orphan is reaped", nothing_is_left)
    os.kill(one, signal.SIGTERM)
    assert await outer.ended() == 3
    told = [line for line in outer.lines if line.endswith("withdrawn") or line == "stopping"]
    assert told[0].endswith("withdrawn")
    assert told[1] == "stopping"
    assert await stored(own) == {}


async def test_a_command_that_a_signal_ends_gives_128_and_its_number(own: Bench, unshare: str) -> None:
    outer, one = await start(own, unshare, "sh", "-c", "while :; do sleep 0.01; done")
    os.kill(one, signal.SIGHUP)
    assert await outer.ended() == 128 + signal.SIGHUP
    assert await stored(own) == {}
