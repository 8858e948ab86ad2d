"""Golden scripts: commands and exactly what they print. GOLDEN_REWRITE=1 writes them anew; review the diff.

Each block is a command, a line of dashes, its output, and an empty line. `quiet` before a command leaves its
output out of the script.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raft import Change, ChangeKind
from tests.unit.raft.stage import Stage

SCRIPTS = sorted((Path(__file__).parent / "golden").glob("*.txt"))
RULE = "----"


def run_command(stage: Stage | None, words: list[str]) -> Stage:
    """Carries out one command; the first of a script is `cluster SIZE [no-pre-vote] [no-check-quorum]`."""
    verb, *rest = words
    if verb == "cluster":
        return Stage(
            int(rest[0]), pre_vote="no-pre-vote" not in rest, check_quorum="no-check-quorum" not in rest
        )
    assert stage is not None, "a script begins with `cluster`"
    if verb == "deliver":
        stage.deliver()
    elif verb == "drop":
        stage.network = [m for m in stage.network if rest and m.to != int(rest[0][1:])]
    elif verb == "heal":
        stage.isolated.clear()
    elif verb == "status":
        _status(stage)
    else:
        _node_command(stage, verb, int(rest[0][1:]), rest[1:])
    return stage


CHANGES = {"+": ChangeKind.ADD_VOTER, "~": ChangeKind.ADD_LEARNER, "-": ChangeKind.REMOVE}


def _change(word: str) -> Change:
    """+n4 a voter, ~n4 a learner, -n4 gone."""
    return Change(CHANGES[word[0]], int(word[2:]))


def _node_command(stage: Stage, verb: str, node: int, rest: list[str]) -> None:
    if verb == "tick":
        for _ in range(int(rest[0])):
            stage.step(node, "tick")
    elif verb == "campaign":
        stage.step(node, "campaign")
    elif verb == "propose":
        stage.propose(node, *rest)
    elif verb == "read":
        stage.step(node, "read_index", int(rest[0]))
    elif verb == "transfer":
        stage.step(node, "transfer_leadership", int(rest[0][1:]))
    elif verb == "change":
        stage.step(node, "propose_config", [_change(word) for word in rest])
    elif verb == "gone":
        stage.step(node, "report_gone", int(rest[0][1:]))
    elif verb == "isolate":
        stage.isolated.add(node)
    elif verb in ("crash", "start", "hold", "release"):
        getattr(stage, verb)(node)
    elif verb == "compact":
        stage.compact(node, int(rest[0]))
    else:
        raise AssertionError(f"no command {verb!r}")


def _status(stage: Stage) -> None:
    for node, raw in sorted(stage.nodes.items()):
        status = raw.status()
        log = " ".join(str(entry) for entry in raw.raft.log._entries)
        line = f"n{node}@{status.term} {status.role.name.lower()} leader={status.leader_id}"
        stage.tell(f"{line} commit={status.commit} base={raw.raft.log.base} log=[{log}]")
        for peer, progress in status.progress.items():
            if peer != node:
                stage.tell(f"   n{peer} {progress.state.name.lower()} {progress.match}→{progress.next}")


def commands(text: str) -> list[str]:
    """The command lines of a script: the first line of each block, and its comments."""
    found, expecting = [], True
    for line in text.splitlines():
        if expecting and line:
            found.append(line)
            expecting = line.startswith("#")
        elif not line:
            expecting = True
    return found


def play(text: str) -> str:
    stage: Stage | None = None
    blocks = []
    for command in commands(text):
        if command.startswith("#"):
            blocks.append(command)
            continue
        words = command.split()
        quiet = words[0] == "quiet"
        stage = run_command(stage, words[1:] if quiet else words)
        lines = stage.take_lines()
        blocks.append("\n".join([command, RULE, *([] if quiet else lines)]))
    return "\n\n".join(blocks).replace("#\n\n", "#\n") + "\n"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.stem))
def test_script(path: Path) -> None:
    text = path.read_text()
    played = play(text)
    if os.environ.get("GOLDEN_REWRITE"):
        path.write_text(played)
    assert played == path.read_text()


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 8
