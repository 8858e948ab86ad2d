"""Crash states of the write-ahead log: every prefix of its writes, with any part of what was not synced."""
