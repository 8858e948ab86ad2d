"""Announce: who decides that an instance is ready, and who says so to the store."""
