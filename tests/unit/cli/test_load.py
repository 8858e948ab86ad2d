"""The pace of `kvctl check`, and what it makes of the answers."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from kvstore.cli.check import PERF, judge
from kvstore.cli.load import Load, Outcome, Ticket


def test_tickets_keep_an_even_pace_until_the_time_is_up() -> None:
    ticket = Ticket(Load(clients=1, puts_per_second=10, duration_s=0.35), now=100.0)
    at = [ticket.next_at(100.0) for _ in range(5)]
    assert [None if each is None else round(each, 3) for each in at] == [100.0, 100.1, 100.2, 100.3, None]


def test_a_late_ticket_is_for_now_and_the_next_ones_catch_up() -> None:
    ticket = Ticket(Load(clients=1, puts_per_second=10, duration_s=60), now=0.0)
    assert [ticket.next_at(0.25) for _ in range(4)] == pytest.approx([0.25, 0.25, 0.25, 0.3])


def test_tickets_end_with_the_number_of_puts() -> None:
    ticket = Ticket(Load(clients=1, puts=3), now=0.0)
    assert [ticket.next_at(5.0) for _ in range(4)] == [5.0, 5.0, 5.0, None]


def test_an_outcome_in_figures() -> None:
    outcome = Outcome(elapsed_s=2.0, latencies_s=[0.1, 0.3], errors=Counter())
    assert outcome.puts_per_second == 1.0
    assert outcome.slowest_s == 0.3
    assert math.isclose(outcome.deviation_s, 0.1)
    assert Outcome().puts_per_second == Outcome().deviation_s == Outcome().slowest_s == 0


def outcome(*, rate: float = 150, slowest_s: float = 0.01, spread_s: float = 0.0, errors: int = 0) -> Outcome:
    """Sixty seconds of it: all as slow as slowest_s, but for half of them faster by twice spread_s."""
    count = int(rate * 60)
    latencies_s = [slowest_s, slowest_s - 2 * spread_s] * (count // 2)
    return Outcome(60.0, latencies_s, Counter({"etcdserver: request timed out": errors} if errors else {}))


GOOD = (
    "PASS: Throughput is 151 writes/s\nPASS: Slowest request took 0.010000s\n"
    "PASS: Stddev is 0.000000s\nPASS\n"
)


@pytest.mark.parametrize(
    ("seen", "printed"),
    [
        (outcome(), GOOD),
        (outcome(rate=135), GOOD.replace("PASS: Throughput is 151", "FAIL: Throughput too low: 136")),
        (
            outcome(slowest_s=0.6),
            GOOD.replace("PASS: Slowest request took 0.01", "Slowest request took too long: 0.60"),
        ),
        (
            outcome(slowest_s=0.4, spread_s=0.15),
            GOOD.replace("0.010000", "0.400000").replace("PASS: Stddev is 0.00", "Stddev too high: 0.15"),
        ),
        (
            outcome(errors=3),
            "FAIL: too many errors\nFAIL: ERROR(etcdserver: request timed out) -> 3\n" + GOOD,
        ),
    ],
)
def test_the_verdict(capsys: pytest.CaptureFixture[str], seen: Outcome, printed: str) -> None:
    fit = printed == GOOD
    assert judge(seen, PERF["s"]) is fit
    expected = printed if fit else printed.removesuffix("PASS\n") + "FAIL\n"
    assert capsys.readouterr().out == expected
