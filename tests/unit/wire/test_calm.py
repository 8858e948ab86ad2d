from __future__ import annotations

from kvstore.wire.calm import ADDRESSES_MAX, Calm


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
