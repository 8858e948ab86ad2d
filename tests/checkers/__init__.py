"""Checkers of recorded histories: what clients asked and were told, against what happened, revision by revision."""
