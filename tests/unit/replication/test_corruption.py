"""Who differs, and the checksum in slices."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore import errors
from kvstore.replication.corruption import NOBODY, differing
from kvstore.state.kv_hash import HashTask, KvHash
from tests.unit.state.harness import Replica


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    return Replica(str(tmp_path))


def hashes(*values: int, points: tuple[int, ...] = ()) -> dict[int, KvHash]:
    at = points or (5,) * len(values)
    return {n + 1: KvHash(value, point, 9) for n, (value, point) in enumerate(zip(values, at, strict=True))}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, []),
        (hashes(7), []),
        (hashes(7, 7, 7), []),
        (hashes(7, 8, 7), [2]),
        (hashes(8, 7, 7), [1]),
        (hashes(7, 8), [NOBODY]),
        (hashes(6, 7, 8), [NOBODY]),
        (hashes(7, 7, 7, 8, 9), [4, 5]),
        (hashes(7, 8, 7, points=(5, 4, 5)), []),  # compacted elsewhere: not comparable
        (hashes(7, 8, 8, points=(4, 5, 5)), []),
        (hashes(6, 7, 8, 7, points=(4, 5, 5, 5)), [3]),
    ],
)
def test_who_differs(found: dict[int, KvHash], expected: list[int]) -> None:
    assert differing(found) == expected


def test_slices_give_what_the_whole_gives(replica: Replica) -> None:
    for number in range(50):
        replica.put(b"k%d" % (number % 7), b"v%d" % number)
    whole = HashTask(replica.machine.keyspace).finish()
    assert whole[0] == replica.machine.hash_kv()[0]
    for size in (1, 3, 49, 50, 1000):
        task = HashTask(replica.machine.keyspace)
        steps = 1
        while (result := task.step(size)) is None:
            steps += 1
        assert result == whole
        assert steps == -(-50 // size)


def test_a_compaction_in_between_begins_anew(replica: Replica) -> None:
    for number in range(20):
        replica.put(b"k", b"v%d" % number)
    task, late = HashTask(replica.machine.keyspace), HashTask(replica.machine.keyspace, 5)
    assert task.step(3) is None
    assert late.step(1) is None
    replica.compact(10)
    assert task.finish() == HashTask(replica.machine.keyspace, task.revision).finish()
    with pytest.raises(errors.Compacted):
        late.step()
    with pytest.raises(errors.FutureRevision):
        HashTask(replica.machine.keyspace, 1000)
