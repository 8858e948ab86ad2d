"""The specification finds seeded bugs with every other check of the simulator switched off, and accuses nobody
without one. The schedules of tests/simulation run under it too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from unittest.mock import patch

import pytest

from raft.invariants import ClusterHistory
from tests.mutants.elections import (
    self_vote_counted_before_persist,
    stale_term_obeyed,
    term_not_persisted,
    vote_lost_on_step_down,
    vote_not_persisted,
    vote_without_log_check,
)
from tests.mutants.logs import (
    append_acknowledged_before_persist,
    commit_beyond_the_message,
    committed_skipped,
    conflict_not_truncated,
    older_term_committed_by_counting,
)
from tests.mutants.patches import (
    Patches,
    mutated,
)
from tests.mutants.reads import (
    read_round_reused,
    read_without_a_round,
)
from tests.simulation import cluster
from tests.simulation.node import SimNode
from tests.spec.model import Config, SpecViolation, overlap

SEEDS_MAX = 100
EVENTS = 1000


def nothing(*args: object, **kwargs: object) -> None:
    """A check that checks nothing."""


def seeds_to_kill(mutant: Callable[[], Patches], seeds_max: int = SEEDS_MAX) -> int | None:
    """How many schedules it takes until the specification, and nothing else, objects."""
    with ExitStack() as stack:
        stack.enter_context(mutated(mutant))
        for owner, name in (
            (cluster, "check_state"),
            (cluster, "check_delta"),
            (cluster.Schedule, "_check_lease"),
            (cluster.Schedule, "_check_read"),
            (ClusterHistory, "check"),
            (ClusterHistory, "became_leader"),
            (SimNode, "check_durable"),
        ):
            stack.enter_context(patch.object(owner, name, nothing))
        for seed in range(1, seeds_max + 1):
            if cluster.run_schedule(seed, events=EVENTS).violation.startswith("spec: "):
                return seed
    return None


@pytest.mark.parametrize(
    "mutant",
    [
        append_acknowledged_before_persist,
        commit_beyond_the_message,
        committed_skipped,
        conflict_not_truncated,
        older_term_committed_by_counting,
        read_round_reused,
        read_without_a_round,
        self_vote_counted_before_persist,
        stale_term_obeyed,
        term_not_persisted,
        vote_lost_on_step_down,
        vote_not_persisted,
        vote_without_log_check,
    ],
    ids=lambda mutant: str(mutant.__name__),
)
def test_the_specification_alone_finds_the_bug(mutant: Callable[[], Patches]) -> None:
    assert seeds_to_kill(mutant) is not None, f"{mutant.__name__} survives {SEEDS_MAX} schedules"


def test_a_violation_names_what_is_not_legal() -> None:
    told = r"spec: n\d@\d+ answers read \d+ of n\d without a quorum"
    with mutated(read_round_reused), pytest.raises(SpecViolation, match=told):
        for seed in range(1, SEEDS_MAX):
            cluster.Schedule(seed, events=EVENTS).run()


def test_majorities_that_meet_and_majorities_that_do_not() -> None:
    def config(*voters: int, outgoing: tuple[int, ...] = ()) -> Config:
        return Config(frozenset(voters), frozenset(outgoing))

    assert overlap(config(1, 2, 3), config(1, 2, 3, 4))
    assert not overlap(config(1, 2, 3), config(1, 2, 3, 4, 5))
    assert not overlap(config(1, 2, 3), config(3, 4, 5))
    assert overlap(config(1, 2, 3), config(3, 4, 5, outgoing=(1, 2, 3)))
    assert overlap(config(3, 4, 5, outgoing=(1, 2, 3)), config(3, 4, 5))
    assert not config().has_quorum({1})


def main() -> None:
    """python -m tests.spec.test_spec prints how many schedules the specification alone needs for each bug."""
    from tests.mutants.catalogue import ALL

    for mutant in ALL:
        print(f"{mutant.__name__:<40} {seeds_to_kill(mutant)}", flush=True)


if __name__ == "__main__":
    main()
