"""Bucket counters."""

from kvstore.meters import DISK_SECONDS, HealthMeter, Histogram, doubling


def test_bounds_double_and_are_labels() -> None:
    assert doubling(0.001, 4) == (0.001, 0.002, 0.004, 0.008)
    assert DISK_SECONDS[-1] == 8.192


def test_a_value_on_a_bound_belongs_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert (histogram.sum, histogram.count) == (14.0, 5)


def test_a_sample_stands_for_several() -> None:
    histogram = Histogram((1.0,))
    histogram.observe(0.5, 16)
    assert (histogram.counts, histogram.sum) == ([16, 0], 8.0)


def test_probes_are_remembered_by_check() -> None:
    meter = HealthMeter()
    for passed in (True, True, False):
        meter.checked("readyz", "disk", passed)
    meter.told(True)
    assert meter.checks == {("readyz", "disk"): [0, 2, 1]}
    assert (meter.successes, meter.failures) == (1, 0)
