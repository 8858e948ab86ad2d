"""A member as it was before members told one another which commands they know, with kvstore's own flags:
python -m tests.cluster.older. It says nothing of itself, keeps nothing that others say, and knows no quota.
"""

from __future__ import annotations

import sys
from typing import Any

from kvstore import __main__ as program
from kvstore import member
from kvstore.commands import NEEDS_LEVEL
from kvstore.pb.internal_pb2 import MemberRecord
from kvstore.state.apply import Applier

_made, _publish = Applier.__init__, Applier._member_publish


def made(self: Applier, *arguments: Any) -> None:
    _made(self, *arguments)
    for kind in NEEDS_LEVEL:
        del self._effects[kind], self._unalarmed[kind]


def publish(self: Applier, payload: bytes) -> bytes:
    told = MemberRecord.FromString(payload)
    told.level = 0
    return _publish(self, told.SerializeToString())


if __name__ == "__main__":
    Applier.__init__, Applier._member_publish = made, publish  # type: ignore[assignment, method-assign]
    member.LEVEL = 0  # type: ignore[attr-defined]
    sys.exit(program.main())
