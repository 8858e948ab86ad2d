"""A deterministic simulator over the real raft/ code: python -m tests.simulation --help."""
