"""Runs every deep check one after another and keeps the counts: docs/verification.md is made of them."""
