"""The real disk's calls: short writes are finished, full disks are told, locks lock."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from kvstore.replication.disk import RealDisk


@pytest.fixture
def handle(tmp_path: Path) -> int:
    return RealDisk().open(str(tmp_path / "file"), create=True)


@pytest.mark.parametrize("durably", [False, True])
def test_a_short_write_is_finished(handle: int, durably: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    calls: list[int] = []

    def short(fd: int, buffers: Sequence[bytes], offset: int, flags: int = 0) -> int:
        calls.append(offset)
        return real(fd, [b"".join(buffers)[:7]], offset, flags)

    monkeypatch.setattr(os, "pwritev", short)
    disk = RealDisk()
    write = disk.write_durably if durably else disk.write
    write(handle, [b"0123456789", b"abcdefghij"], offset=3)
    assert calls == [3, 10, 17]
    assert disk.read(handle, offset=0, size=100) == b"\0\0\0" + b"0123456789abcdefghij"


def test_a_write_that_makes_no_progress_fails(handle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    with pytest.raises(OSError, match="no progress"):
        RealDisk().write(handle, [b"data"], offset=0)


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.open("/dev/full", os.O_RDWR)
    with pytest.raises(OSError) as caught:
        RealDisk().write(full, [b"data"], offset=0)
    assert caught.value.errno == errno.ENOSPC
    os.close(full)


def test_many_buffers_are_written(handle: int) -> None:
    RealDisk().write_durably(handle, [b"%04d" % i for i in range(3000)], offset=0)
    assert RealDisk().read(handle, offset=4 * 2999, size=10) == b"2999"


def test_preallocated_space_reads_as_zeros(handle: int, tmp_path: Path) -> None:
    disk = RealDisk()
    disk.preallocate(handle, 10_000)
    assert disk.size(str(tmp_path / "file")) == 10_000
    assert disk.read(handle, offset=0, size=20_000) == bytes(10_000)
    disk.truncate(handle, 10)
    assert disk.size(str(tmp_path / "file")) == 10


def test_a_directory_is_locked_once(tmp_path: Path) -> None:
    disk = RealDisk()
    directory = str(tmp_path / "private")
    disk.make_directory(directory)
    assert os.stat(directory).st_mode & 0o777 == 0o700
    first = disk.lock(directory)
    with pytest.raises(BlockingIOError):
        disk.lock(directory)
    disk.close(first)
    disk.close(disk.lock(directory))
