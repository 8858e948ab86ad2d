"""The log's format, its recovery from damage, and its place on a real disk."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.replication.disk import RealDisk
from kvstore.replication.wal import Batch, Recovered, Wal, WalCorrupt, WalError
from kvstore.replication.wal_format import (
    FRAME_MAGIC,
    HEADER,
    PREAMBLE,
    Boot,
    Damage,
    Record,
    Segment,
    WalMetadata,
    decode_frame,
    decode_records,
    encode_frame,
    encode_preamble,
    encode_record,
    salt_of,
)
from raft.types import ConfState, Entry, EntryKind, HardState, SnapshotMeta
from tests.unit.replication.simulated_disk import SimulatedDisk
from tests.unit.replication.wal_runs import CONF, DIRECTORY, METADATA, Model, agrees, execute, plan

SEGMENT_1 = f"{DIRECTORY}/{1:016x}.wal"
u64 = st.integers(0, 2**64 - 1)
ids = st.lists(st.integers(1, 2**64 - 1), max_size=4).map(tuple)
confs = st.builds(ConfState, ids, ids, ids, ids, st.booleans())
records = st.one_of(
    st.builds(Entry, u64, u64, st.binary(max_size=300), st.sampled_from(EntryKind)),
    st.builds(HardState, u64, u64, u64),
    st.builds(SnapshotMeta, u64, u64, confs),
    st.builds(WalMetadata, u64, u64, u64, u64),
    st.builds(Segment, u64, u64, u64, u64, st.integers(0, 2**32 - 1)),
    st.builds(Boot, u64),
    confs,
)


def batch_of(*entries: Entry, hard_state: HardState | None = None) -> Batch:
    batch = Batch()
    batch.add(hard_state, None, list(entries))
    return batch


def reopen(disk: SimulatedDisk) -> Recovered:
    wal, found = Wal.open(DIRECTORY, disk, 4096)
    wal.close()
    return found


def test_the_format_is_what_it_was() -> None:
    """The golden bytes: a change here needs a new segment magic and a way to read the old one."""
    frame, size, chain = encode_frame(
        encode_record(Entry(7, 3, b"data", EntryKind.CONFIG)), number=9, chain=0x1234, salt=salt_of(METADATA)
    )
    assert (
        encode_preamble(2, 0xABCD).hex() == "4b565357414c0001" + "0000000000000002" + "0000abcd" + "df8ce932"
    )
    assert b"".join(frame).hex() == (
        "f54b5666" + "0000001a" + "0000000000000009" + "00bdd910" + "141d3692"
        "07" + "00000015" + "0000000000000007" + "0000000000000003" + "01" + "64617461" + "000000000000"
    )
    assert (size, chain) == (56, 0x00BDD910)
    disk = SimulatedDisk()
    wal = Wal.create(DIRECTORY, METADATA, CONF, disk, 1024)
    batch = batch_of(Entry(1, 1, b"first"), hard_state=HardState(1, 2, 0))
    batch.add(None, SnapshotMeta(5, 1, CONF), [Entry(6, 1, b"x" * 600)])
    wal.append(batch)
    wal.append(batch_of(Entry(7, 1, b"y" * 600)))
    wal.close()
    assert disk.list(DIRECTORY) == [f"{sequence:016x}.wal" for sequence in range(1, 5)]
    log = b"".join(disk.contents(f"{DIRECTORY}/{name}") for name in disk.list(DIRECTORY))
    assert hashlib.sha256(log).hexdigest()[:16] == "920e9522dac66ea9"


@given(st.lists(records, max_size=8))
def test_records_come_back_as_they_were(written: list[Record]) -> None:
    payload = b"".join(map(encode_record, written))
    buffers, size, chain = encode_frame(payload, number=1, chain=5, salt=6)
    data = b"".join(buffers)
    assert len(data) == size
    frame = decode_frame(data, 0, number=1, chain=5, salt=6)
    assert (frame.records, frame.end, frame.chain) == (written, size, chain)


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_any_bytes_are_records_or_damage(data: bytes) -> None:
    try:
        decode_records(data)
    except Damage:
        return


@pytest.mark.parametrize("record_type", range(9))
def test_a_huge_length_is_damage_and_allocates_nothing(record_type: int) -> None:
    with pytest.raises(Damage, match="4294967295 bytes"):
        decode_records(bytes([record_type]) + b"\xff\xff\xff\xff" + b"tail")
    head = HEADER.pack(FRAME_MAGIC, 2**32 - 1, 1, 0, 0)[:-4]
    with pytest.raises(Damage, match="does not fit"):
        decode_frame(head + zlib.crc32(head, 0).to_bytes(4, "big"), 0, number=1, chain=0, salt=0)


@pytest.mark.parametrize("seed", range(30))
def test_a_whole_run_is_found_again(seed: int) -> None:
    disk, promised = SimulatedDisk(), list[Model]()
    execute(disk, plan(seed, 60), promised)
    assert agrees(reopen(disk), promised[0])


def test_every_start_is_counted() -> None:
    disk = SimulatedDisk()
    Wal.create(DIRECTORY, METADATA, CONF, disk, 4096).close()
    assert [reopen(disk).incarnation for _ in range(3)] == [2, 3, 4]


def test_there_is_one_log_in_a_directory() -> None:
    disk = SimulatedDisk()
    assert not Wal.exists(DIRECTORY, disk)
    Wal.create(DIRECTORY, METADATA, CONF, disk, 4096).close()
    assert Wal.exists(DIRECTORY, disk)
    with pytest.raises(WalError, match="there is a write-ahead log in /wal already"):
        Wal.create(DIRECTORY, METADATA, CONF, disk, 4096)


def test_a_frame_larger_than_a_segment_has_a_segment_to_itself() -> None:
    disk = SimulatedDisk()
    wal = Wal.create(DIRECTORY, METADATA, CONF, disk, 4096)
    entries = [Entry(1, 1, b"small"), Entry(2, 1, b"x" * 100_000), Entry(3, 1, b"small")]
    for entry in entries:
        wal.append(batch_of(entry))
    wal.close()
    assert reopen(disk).entries == entries


def test_release_keeps_every_segment_with_an_entry_above() -> None:
    disk = SimulatedDisk()
    wal = Wal.create(DIRECTORY, METADATA, CONF, disk, 4096)
    for index in range(1, 31):
        wal.append(batch_of(Entry(index, 1, b"x" * 500)))
        wal.append(batch_of(hard_state=HardState(1, 1, index)))
    whole = len(disk.list(DIRECTORY))
    assert wal.release(0) == 0
    wal.close()
    wal, _ = Wal.open(DIRECTORY, disk, 4096)
    assert wal.release(0) == 0
    assert 0 < wal.release(20) < whole - 1
    wal.close()
    found = reopen(disk)
    assert found.base_index <= 20
    assert [e.index for e in found.entries] == list(range(found.base_index + 1, 31))
    assert found.base_term == 1


def test_entries_that_were_replaced_before_a_release_do_not_come_back() -> None:
    """1..9@1, then 5..9@2 in a later segment: once the first segment is gone, 5@2 begins the log."""
    disk = SimulatedDisk()
    wal = Wal.create(DIRECTORY, METADATA, CONF, disk, 4096)
    wal.append(batch_of(*[Entry(i, 1, b"x" * 300) for i in range(1, 10)]))
    wal.append(batch_of(*[Entry(i, 2, b"y" * 400) for i in range(5, 10)], hard_state=HardState(2, 0, 9)))
    assert wal.release(9) == 1
    wal.close()
    found = reopen(disk)
    assert (found.base_index, found.base_term) == (5, 2)
    assert found.entries == [Entry(i, 2, b"y" * 400) for i in range(6, 10)]


# Damage


def small_log() -> tuple[SimulatedDisk, Model]:
    disk, promised = SimulatedDisk(), list[Model]()
    execute(disk, plan(11, 14), promised, segment_bytes=1024)
    return disk, promised[0]


def test_a_flipped_bit_anywhere_is_detected_or_harmless() -> None:
    """Every byte of a closed log. Where the log opens all the same, it says just what it said before: unused
    space behind the last frame, and the last seal, which is there to be lost."""
    disk, model = small_log()
    detected = harmless = 0
    for name in disk.list(DIRECTORY):
        path = f"{DIRECTORY}/{name}"
        used = len(disk.contents(path).rstrip(b"\x00"))
        for offset in range(disk.size(path)):
            damaged = disk.copy()
            damaged.flip(path, offset, random.Random(offset).randrange(8))
            try:
                _, found = Wal.open(DIRECTORY, damaged, 1024)
            except WalCorrupt as corrupt:
                detected += 1
                assert corrupt.path == path, f"flip at {path}:{offset} blamed on {corrupt}"
                continue
            harmless += 1
            assert agrees(found, model), f"flip at {path}:{offset} changed what was found"
            last = name == disk.list(DIRECTORY)[-1]
            assert offset >= used - (HEADER.size if last else 0), f"flip at {path}:{offset} was not detected"
    assert detected > 1000
    assert harmless > 0


def test_damage_to_the_last_frame_is_a_tear_until_it_is_sealed() -> None:
    for sealed in (False, True):
        disk = SimulatedDisk()
        wal = Wal.create(DIRECTORY, METADATA, CONF, disk, 4096)
        wal.append(batch_of(Entry(1, 1, b"first")))
        wal.append(batch_of(Entry(2, 1, b"second" + b"tail" * 100)))
        if sealed:
            wal.seal()
        disk = disk.copy()
        disk.flip(SEGMENT_1, disk.contents(SEGMENT_1).index(b"second"))
        if sealed:
            with pytest.raises(WalCorrupt, match=r"the frame at byte \d+ was written after it"):
                Wal.open(DIRECTORY, disk, 4096)
        else:
            assert reopen(disk).entries == [Entry(1, 1, b"first")]
            assert b"tail" not in disk.contents(SEGMENT_1)


def test_a_value_that_looks_like_a_frame_cannot_make_a_tear_look_like_damage() -> None:
    disk = SimulatedDisk()
    wal = Wal.create(DIRECTORY, METADATA, CONF, disk, 4096)
    fake = b"".join(encode_frame(b"", number=1000, chain=0, salt=0)[0])
    wal.append(batch_of(Entry(1, 1, b"first")))
    wal.append(batch_of(*[Entry(2, 1, bytes(pad) + fake * 3) for pad in range(1)]))
    disk = disk.copy()
    at = disk.contents(SEGMENT_1).index(fake)
    disk.flip(SEGMENT_1, at - 30)
    assert reopen(disk).entries == [Entry(1, 1, b"first")]


@pytest.mark.parametrize("missing", [0, 1, -2])
def test_a_missing_segment_is_noticed(missing: int) -> None:
    disk, promised = SimulatedDisk(), list[Model]()
    execute(disk, [step for step in plan(4, 60) if not step.release], promised)
    names = disk.list(DIRECTORY)
    assert len(names) > 4
    disk.unlink(f"{DIRECTORY}/{names[missing]}")
    if missing == 0:
        found = reopen(disk)  # as after a release; the driver compares base_index with what state holds
        assert found.base_index > 0
        return
    with pytest.raises(WalCorrupt, match=r"segment \d+ follows segment \d+"):
        Wal.open(DIRECTORY, disk, 4096)


def test_a_segment_from_another_copy_of_the_log_is_noticed() -> None:
    """Two copies that went on by themselves: every number and state of them agrees, but not what was written."""
    disks = []
    for data in (b"x", b"y"):
        disk = SimulatedDisk()
        wal = Wal.create(DIRECTORY, METADATA, CONF, disk, 4096)
        for index in range(1, 10):
            wal.append(batch_of(Entry(index, 1, data * 500)))
        wal.close()
        disks.append(disk)
    mixed, other = disks
    handle = mixed.open(f"{DIRECTORY}/{2:016x}.wal", create=True)
    mixed.write(handle, [other.contents(f"{DIRECTORY}/{2:016x}.wal")], offset=0)
    with pytest.raises(WalCorrupt, match="the segment does not go on from the one before"):
        Wal.open(DIRECTORY, mixed, 4096)


def test_a_segment_that_was_cut_short_is_noticed() -> None:
    disk = SimulatedDisk()
    Wal.create(DIRECTORY, METADATA, CONF, disk, 4096).close()
    disk.truncate(disk.open(SEGMENT_1), 4000)
    with pytest.raises(WalCorrupt, match="segment 1 of 4096 bytes, found 1 of 4000"):
        Wal.open(DIRECTORY, disk, 4096)


def test_an_empty_directory_is_no_log() -> None:
    with pytest.raises(WalCorrupt, match="/wal at byte 0: there is no segment"):
        Wal.open(DIRECTORY, SimulatedDisk(), 4096)


@pytest.mark.parametrize("seed", range(40))
def test_a_log_that_any_bytes_were_put_into_opens_or_is_corrupt(seed: int) -> None:
    rng = random.Random(seed)
    disk, model = small_log()
    name = rng.choice(disk.list(DIRECTORY))
    handle = disk.open(f"{DIRECTORY}/{name}")
    disk.write(handle, [rng.randbytes(rng.randint(1, 100))], offset=rng.randrange(PREAMBLE.size, 1000))
    try:
        _, found = Wal.open(DIRECTORY, disk, 1024)
    except WalCorrupt:
        return
    assert agrees(found, model)


# The real disk

WRITER = """
import sys
from kvstore.replication.disk import RealDisk
from kvstore.replication.wal import Batch, Wal
from raft.types import Entry, HardState
wal, found = Wal.open(sys.argv[1], RealDisk(), 65536)
index = found.last_index
while True:
    index += 1
    batch = Batch()
    batch.add(HardState(index, 1, index - 1), None, [Entry(index, index, b"%d" % index * 20)])
    wal.append(batch)
    sys.stdout.write(f"{index}\\n")
    sys.stdout.flush()
"""


def test_a_process_that_is_killed_loses_nothing_it_reported(tmp_path: Path) -> None:
    directory = str(tmp_path / "wal")
    Wal.create(directory, METADATA, CONF, RealDisk(), 65536).close()
    for round_ in range(3):
        arguments = [sys.executable, "-c", WRITER, directory]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=os.getcwd()) as process:
            assert process.stdout is not None
            acknowledged = 0
            for _ in range(150 + 37 * round_):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                if line.endswith(b"\n"):
                    acknowledged = int(line)
        wal, found = Wal.open(directory, RealDisk(), 65536)
        wal.close()
        assert found.last_index in (acknowledged, acknowledged + 1)
        assert found.hard_state.term == found.last_index
        assert all(entry.data == b"%d" % entry.index * 20 for entry in found.entries)
        assert found.base_index == 0
    assert len(os.listdir(directory)) > 1
    assert all(os.stat(os.path.join(directory, name)).st_mode & 0o077 == 0 for name in os.listdir(directory))
    assert os.stat(directory).st_mode & 0o077 == 0
