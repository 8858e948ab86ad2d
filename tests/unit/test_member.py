"""kvstore/member.py: whose fault an error is."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kvstore.commands import UnknownCommand
from kvstore.member import MemberProcess
from raft import ConfState, InstallSnapshot, SnapshotMeta


class Stopped(Exception):
    """What fail() does here instead of ending the process."""


class Failing(MemberProcess):
    """A member whose state cannot take a snapshot, and nothing else of it."""

    def __init__(self) -> None:
        self.snapshots = cast(Any, self)

    def received(self, message: InstallSnapshot, path: str) -> None:
        raise ValueError(f"half of {path} is installed")

    def fail(self, reason: str) -> None:
        raise Stopped(reason)


def test_a_snapshot_that_cannot_be_installed_ends_the_member() -> None:
    """It is installed within the call that tells of it. Raised from there, the error would be the transfer's, and the
    member would go on with half of a state."""
    message = InstallSnapshot(2, 1, 1, SnapshotMeta(7, 1, ConfState((1, 2))))
    with pytest.raises(Stopped, match="half of snap/in is installed"):
        Failing()._snapshot_received(2, message, "snap/in")


def test_a_command_of_a_newer_version_ends_the_member_and_says_what_to_do() -> None:
    """Not as an internal error, with a traceback: nothing is wrong but the version."""

    def apply() -> None:
        raise UnknownCommand(250, 17)

    with pytest.raises(Stopped, match=r"^entry 17 of the log .* Start this member with the version"):
        Failing()._guarded_call(apply)
