"""A small share of the search with every run, and seeded bugs that it finds; the whole of it is
python -m tests.exhaustive --depth 14 --states-max 5000000 --walks 2000.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raft import RawNode
from raft.log import RaftLog
from raft.progress import Progress
from raft.reads import LeaderReads
from tests.exhaustive.scopes import IDENTITY, SCOPES
from tests.exhaustive.search import Outcome, Search, walk
from tests.exhaustive.snapshot import KNOWN, decode, encode
from tests.exhaustive.tables import Tables
from tests.exhaustive.world import World, raw_nodes
from tests.mutants.elections import (
    stale_term_obeyed,
    term_not_persisted,
    vote_lost_on_step_down,
    vote_not_persisted,
)
from tests.mutants.logs import (
    conflict_not_truncated,
    match_goes_back,
    older_term_committed_by_counting,
    prev_not_checked,
    self_counted_before_persist,
)
from tests.mutants.patches import (
    Patches,
    mutated,
)
from tests.mutants.reads import (
    read_without_a_round,
)

STATES_MAX = 20_000


@pytest.mark.parametrize("name", sorted(SCOPES))
def test_nothing_is_found_without_a_bug(name: str) -> None:
    outcome = Search(SCOPES[name], depth=14, states_max=6_000).run()
    assert outcome.violation == "", "\n".join([outcome.violation, *outcome.path])
    assert outcome.states >= 5_000
    walk(SCOPES[name], walks=3, depth=120, seed=1, report=lambda outcome, frontier: None, outcome=outcome)
    assert outcome.violation == "", "\n".join([outcome.violation, *outcome.path])
    assert outcome.walks == 3


@pytest.mark.parametrize(
    ("mutant", "scope", "steps"),
    [
        (vote_not_persisted, "core", 2),
        (vote_lost_on_step_down, "core", 3),
        (term_not_persisted, "core", 1),
        (self_counted_before_persist, "disks", 8),
        (conflict_not_truncated, "commits", 6),
        (older_term_committed_by_counting, "commits", 9),
        (stale_term_obeyed, "commits", 7),
        (match_goes_back, "members", 6),
        (prev_not_checked, "members", 7),
        (read_without_a_round, "reads", 6),
    ],
)
def test_the_bug_is_found(mutant: Callable[[], Patches], scope: str, steps: int) -> None:
    with mutated(mutant):
        outcome = Search(SCOPES[scope], depth=steps, states_max=STATES_MAX).run()
    assert outcome.violation, f"{mutant.__name__} survives {outcome.states} states"
    assert any(line.startswith(f"{steps:3}  ") or steps < 2 for line in outcome.path), outcome.path


def test_a_path_is_told_in_the_names_of_its_beginning() -> None:
    with mutated(vote_not_persisted):
        outcome = Search(SCOPES["core"], depth=4, states_max=100).run()
    assert outcome.path[0].startswith("  1  n1@0 hears nothing and campaigns")
    assert " -> n3 VoteRequest" in outcome.path[1] or " -> n2 VoteRequest" in outcome.path[1]


def test_every_field_of_the_core_is_known_here() -> None:
    """A field that a snapshot of a node leaves out would make two different states one."""
    world = World(SCOPES["core"])
    raw = raw_nodes(world, world.initial())[0]
    assert set(vars(raw)) == KNOWN["RawNode"]
    assert set(vars(raw.raft)) == KNOWN["Raft"]
    assert set(vars(raw.raft.reads)) == KNOWN["LeaderReads"]
    assert set(RaftLog.__slots__) == KNOWN["RaftLog"]
    assert set(Progress.__slots__) == KNOWN["Progress"]
    assert isinstance(raw.raft.reads, LeaderReads) and isinstance(raw, RawNode)


@pytest.mark.parametrize("name", ["core", "disks", "members", "snapshots"])
def test_a_node_comes_back_as_it_was(name: str) -> None:
    search = Search(SCOPES[name], depth=14, states_max=2_000)
    search.run()
    world = search.world
    for encoded in world.tables.nodes:
        again = encode(decode(encoded, world.machine.configs[encoded[0]]), IDENTITY)
        assert again == encoded


def test_renaming_and_renaming_back_changes_nothing() -> None:
    search = Search(SCOPES["core"], depth=6, states_max=2_000)
    search.run()
    world = search.world
    for node, images in enumerate(world.tables.node_images):
        assert images[0] == node
        assert world.tables.orbits[node] == min(images)
        for image in images:
            assert sorted(world.tables.node_images[image]) == sorted(images)


def test_symmetry_leaves_no_state_out() -> None:
    """Every state that is reached without renaming is reached by a name with it, and the other way round."""

    def reached(*, renaming: bool) -> int:
        world = World(SCOPES["core"])
        canonical = Tables.canonical
        level, seen = {world.initial()}, {canonical(world.tables, world.initial())[0]}
        for _ in range(4):
            following = set()
            for state in level:
                for action in world.actions(state):
                    after = world.after(state, action)
                    if after is not None:
                        following.add(canonical(world.tables, after)[0] if renaming else after)
            level = following
            seen |= {canonical(world.tables, each)[0] for each in level}
        return len(seen)

    assert reached(renaming=True) == reached(renaming=False)


def test_the_command_writes_what_it_counted(tmp_path: Path) -> None:
    file = tmp_path / "counted.json"
    command = [sys.executable, "-m", "tests.exhaustive", "--scope", "core", "--states-max", "1000"]
    done = subprocess.run([*command, "--json", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 scopes, 1,000 distinct states, ")
    counted = json.loads(file.read_text())
    assert counted["states"] == 1000 and counted["violations"] == 0
    assert Outcome(**counted["scopes"][0]).scope == "core"
