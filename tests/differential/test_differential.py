"""A share of `python -m tests.differential`: 5,000 generated calls, answered alike by etcd and by us."""

from tests.differential.run import find_difference, running_pair

CALLS = 5_000


def test_generated_calls_are_answered_as_etcd_answers_them() -> None:
    with running_pair() as pair:
        seed = 1
        while pair.calls.total() < CALLS:
            assert find_difference(pair, seed, 20) == ""
            seed += 1
        assert set(pair.calls) >= {
            "Range",
            "Put",
            "DeleteRange",
            "Txn",
            "Compact",
            "Watch",
            "LeaseTimeToLive",
        }
        assert len(pair.codes) >= 8, pair.codes
