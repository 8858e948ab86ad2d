"""A small-scope exhaustive search over the real raft/ code: python -m tests.exhaustive --help."""
