"""kvstore/replication/reads.py: a read never takes the answer of a round that began before it."""

from kvstore import errors
from kvstore.replication.reads import ReadRounds


class Log:
    def __init__(self) -> None:
        self.done: list[str] = []

    def reader(self, name: str) -> "Reader":
        return Reader(self, name)


class Reader:
    def __init__(self, log: Log, name: str) -> None:
        self.log, self.name = log, name

    def __call__(self, problem: errors.StoreError | None) -> None:
        self.log.done.append(self.name if problem is None else f"{self.name}!")


def settle(rounds: ReadRounds, applied: int) -> None:
    for done in rounds.ready(applied):
        done(None)


def test_a_read_during_a_round_waits_for_the_next() -> None:
    rounds, log = ReadRounds(7.0, 0.5, 100), Log()
    rounds.add(log.reader("a"), 0.0)
    assert rounds.start(0.0) == 101
    rounds.add(log.reader("b"), 0.0)
    rounds.answered(101, 5)
    settle(rounds, 4)
    assert log.done == []
    settle(rounds, 5)
    assert log.done == ["a"]
    assert rounds.start(0.0) == 102
    rounds.answered(102, 5)
    settle(rounds, 5)
    assert log.done == ["a", "b"]


def test_a_failed_round_starts_again_under_a_new_context() -> None:
    rounds, log = ReadRounds(7.0, 0.5, 0), Log()
    rounds.add(log.reader("a"), 0.0)
    assert rounds.start(0.0) == 1
    assert rounds.failed(1)
    assert not rounds.failed(1)
    assert rounds.start(0.1) == 2
    rounds.answered(1, 3)
    settle(rounds, 9)
    assert log.done == []
    rounds.answered(2, 3)
    settle(rounds, 9)
    assert log.done == ["a"]


def test_a_lost_round_is_asked_again_and_a_read_times_out_once() -> None:
    rounds, log = ReadRounds(1.0, 0.5, 0), Log()
    rounds.add(log.reader("a"), 0.0)
    rounds.start(0.0)
    assert rounds.overdue(0.4) == []
    assert rounds.start(0.4) is None
    assert rounds.overdue(0.5) == []
    assert rounds.start(0.5) == 2
    assert len(rounds.overdue(1.0)) == 1
    assert rounds.overdue(1.0) == []
    rounds.answered(2, 1)
    settle(rounds, 9)
    assert log.done == []


def test_nothing_to_read_starts_nothing() -> None:
    assert ReadRounds(1.0, 0.5, 0).start(0.0) is None
