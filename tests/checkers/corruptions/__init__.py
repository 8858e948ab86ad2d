"""Ways to falsify a valid history at a random place, each of which a checker must find.

A corruption takes a random source and a history and returns a falsified copy, or None where the history has no
place for it. It changes nothing of what it was given. Each is wrong wherever it is done: what could also have
happened (the last event of a watch that ended with its member, say, is allowed to be missing) is left alone.
"""

from tests.checkers.corruptions import of_leases, of_operations, of_watches
from tests.checkers.corruptions.places import ALL, Corruption

__all__ = ["ALL", "Corruption", "of_leases", "of_operations", "of_watches"]
