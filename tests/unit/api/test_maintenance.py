"""etcdserverpb.Maintenance: what of it needs no member."""

from __future__ import annotations

from kvstore.api.maintenance import is_learner
from raft import ConfState
from raft.membership import NOWHERE


def test_who_has_no_vote_is_a_learner() -> None:
    conf = ConfState(voters=(1, 2), voters_outgoing=(3,), learners=(4,), learners_next=(3,))
    assert [is_learner(conf, each) for each in (1, 2, 3, 4)] == [False, False, False, True]
    assert is_learner(NOWHERE, 5)  # added, and the log has not come yet
