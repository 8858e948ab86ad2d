"""When a member compacts by itself."""

from kvstore.replication.auto_compaction import AutoCompaction


def test_off_never_does() -> None:
    off = AutoCompaction("off", 0, now=0.0)
    assert all(off.tick(now, 1000) is None for now in range(0, 100_000, 1000))


def test_revision_keeps_the_newest_every_five_minutes() -> None:
    auto = AutoCompaction("revision", 100, now=0.0)
    assert auto.tick(299.0, 5000) is None
    assert auto.tick(300.0, 5000) == 4900
    assert auto.tick(301.0, 6000) is None
    assert auto.tick(600.0, 50) is None  # nothing to give up


def test_periodic_keeps_what_was_written_within_the_retention() -> None:
    auto = AutoCompaction("periodic", 600.0, now=0.0)
    targets = [
        (now, target) for now in range(0, 2000, 10) if (target := auto.tick(float(now), now + 1)) is not None
    ]
    assert [now for now, _ in targets] == [600, 1200, 1800]
    for now, target in targets:
        assert now - 600 - 60 <= target - 1 <= now - 600  # sampled every tenth of the retention


def test_a_long_retention_compacts_every_hour() -> None:
    auto = AutoCompaction("periodic", 10 * 3600.0, now=0.0)
    hours = [now // 3600 for now in range(0, 15 * 3600, 60) if auto.tick(float(now), now + 1) is not None]
    assert hours == [10, 11, 12, 13, 14]
