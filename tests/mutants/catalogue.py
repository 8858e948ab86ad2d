"""Every seeded bug, by family: those of the core, and those of what stands on it."""

from __future__ import annotations

from types import ModuleType

from tests.mutants import configurations, elections, logs, reads, states
from tests.mutants.patches import Mutant


def _of(module: ModuleType) -> list[Mutant]:
    """In the order they are written in."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    return [value for value in own if callable(value) and not value.__name__.startswith("_")]


FAMILIES: dict[str, list[Mutant]] = {
    "elections, terms, votes": _of(elections),
    "log, commit, replication": _of(logs),
    "reads": _of(reads),
    "membership, snapshots": _of(configurations),
    "applying, compaction, watches, leases": _of(states),
}
OF_MEMBERS = frozenset(mutant.__name__ for mutant in _of(states))
"""Found by schedules of whole members; the others by those of the core."""

ALL: list[Mutant] = [mutant for family in FAMILIES.values() for mutant in family]

RARE = frozenset(
    """
    lower_term_not_answered who_cannot_stand_never_forgets_its_leader transfer_puts_off_the_check
    learner_does_not_vote overwritten_entry_counted lost_append_never_resent
    stale_acknowledgement_counted lost_snapshot_waited_for nudge_without_probe read_before_own_commit
    refused_read_served snapshot_keeps_the_tail configuration_not_rolled_back commit_by_the_new_half
    elected_by_the_new_half configuration_forgotten_at_restart snapshot_with_the_newest_configuration
    snapshot_without_its_configuration removed_before_it_is_committed log_kept_where_state_is_ahead
    """.split()
)
"""Those that take more schedules than every test run has time for: `make mutants` finds them too."""
