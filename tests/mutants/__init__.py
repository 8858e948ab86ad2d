"""Seeded bugs: what shows that the checks can fail. catalogue.py lists them; python -m tests.mutants counts how many
schedules it takes to find each.
"""
