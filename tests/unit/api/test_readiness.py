"""How long a grace the log is asked for."""

from __future__ import annotations

import pytest

from kvstore.api.readiness import grace_in_log


@pytest.mark.parametrize(
    "grace_ms, took_s, asked",
    [
        (500, 0.0, 500),
        (500, 0.0032, 497),
        (500, 10.0, 250),  # the last entry waited for an election
        (1, 0.01, 1),
        (0, 0.01, 0),  # gone at once
    ],
)
def test_the_time_until_it_is_applied_counts(grace_ms: int, took_s: float, asked: int) -> None:
    assert grace_in_log(grace_ms, took_s) == asked
