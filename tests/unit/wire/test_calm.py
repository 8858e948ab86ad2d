from __future__ import annotations

from kvstore.wire.calm import ADDRESSES_MAX, FAULTS_BURST, Calm


def test_the_address_of_a_flood_waits_and_no_other() -> None:
    calm = Calm(2.0)
    assert calm.wait_s("10.0.0.1", 100.0) == 0
    calm.flooded("10.0.0.1", 100.0)
    assert (calm.wait_s("10.0.0.1", 100.5), calm.wait_s("10.0.0.2", 100.5)) == (1.5, 0)
    calm.flooded("10.0.0.1", 101.0)  # from the last one on
    assert [calm.wait_s("10.0.0.1", now) for now in (102.5, 103.0, 104.0)] == [0.5, 0, 0]


def test_it_remembers_a_bounded_number_for_a_bounded_time() -> None:
    calm = Calm(2.0)
    for number in range(2 * ADDRESSES_MAX):
        calm.flooded(str(number), 100.0)
    assert len(calm._until) == ADDRESSES_MAX
    assert calm.wait_s(str(2 * ADDRESSES_MAX - 1), 101.0) == 1.0
    calm.flooded("a", 103.0)
    assert list(calm._until) == ["a"]


def test_faults_that_are_no_flood_count_where_they_come_often() -> None:
    calm = Calm(2.0)
    for _ in range(int(FAULTS_BURST)):
        calm.faulted("10.0.0.1", 100.0)
    assert calm.wait_s("10.0.0.1", 100.0) == 0
    calm.faulted("10.0.0.2", 100.0)  # another address has its own count
    calm.faulted("10.0.0.1", 100.0)
    assert (calm.wait_s("10.0.0.1", 100.0), calm.wait_s("10.0.0.2", 100.0)) == (2.0, 0)


def test_a_fault_now_and_then_never_counts() -> None:
    calm = Calm(2.0)
    for second in range(100):
        calm.faulted("10.0.0.1", float(second))
    assert calm.wait_s("10.0.0.1", 99.0) == 0


def test_the_faults_of_a_bounded_number_of_addresses_are_counted() -> None:
    calm = Calm(2.0)
    for number in range(2 * ADDRESSES_MAX):
        calm.faulted(str(number), 100.0)
    assert len(calm._faults) == ADDRESSES_MAX
    assert str(2 * ADDRESSES_MAX - 1) in calm._faults
