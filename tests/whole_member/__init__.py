"""A deterministic simulator of whole members, disk to service: python -m tests.whole_member --help."""
