"""What holds for all tests."""

import signal

import hypothesis

from kvstore.version import COMPILED

# How long an example takes is a matter of what else the machine does, not of whether it is right.
hypothesis.settings.register_profile("kvstore", deadline=None)
hypothesis.settings.load_profile("kvstore")

# A shell lets what it runs in the background ignore SIGINT, and programs inherit that: those that tests interrupt
# would not hear of it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Compiled code takes the classes it was compiled with and no stand-ins for them, and nothing can be put around its
# functions. What needs that is tested on the same source, interpreted.
collect_ignore = [
    *(
        "checkers",
        "exhaustive",
        "mutants",
        "spec",
        "whole_member",
        "cluster/test_tracing.py",
        "unit/benchmarks",
    ),
    *(
        f"unit/api/test_{name}.py"
        for name in ("access", "context", "guard", "kv", "lease", "quota", "range_stream", "snapshot")
    ),
    *(
        f"unit/replication/test_{name}.py"
        for name in (
            "lease_keeper",
            "member_changes",
            "peers_tls",
            "snapshot_transfer",
            "space_alarm",
            "wal_writer",
        )
    ),
]
if not COMPILED:
    collect_ignore.clear()
