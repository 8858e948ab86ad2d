"""What a node may be after a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.spec.model import Disk, Log, Node, Seen, SpecViolation

if TYPE_CHECKING:
    from tests.spec.spec import SpecChecker


def recovered(spec: SpecChecker, old: Node, seen: Seen, applied: int, stored: tuple[int, int]) -> Node:
    """Some prefix of the writes under way is there, the last of them perhaps in part; or the log begins
    where the state machine, which is ahead of it, has come."""
    disk = old.disk.copy()
    for taken in [*old.writing, None]:
        candidates = [disk]
        if taken is not None and taken.snapshot is None:
            for count in range(1, len(taken.entries) + 1):
                torn = disk.copy()
                torn.write(taken, count)
                candidates.append(torn)
        for each in candidates:
            if (each.term, each.vote) != stored:
                continue
            log = _recovered_log(spec, old, each, seen, applied)
            if log is not None:
                new = Node(old.id, log, Disk(log.copy(), each.term, each.vote), old.origin)
                new.term = max(each.term, log.last_term)
                new.vote = each.vote if new.term == each.term else 0
                new.handed, new.handed_state = (log.last, log.last_term), (each.term, each.vote)
                return new
        if taken is not None:
            disk.write(taken)
    raise SpecViolation(f"spec: n{old.id} restarts with {seen}, which its disk cannot hold")


def _recovered_log(spec: SpecChecker, old: Node, disk: Disk, seen: Seen, applied: int) -> Log | None:
    log = disk.log
    if seen.last == seen.base == applied and (
        log.last < applied or log.term_at(applied) not in (None, seen.last_term)
    ):
        if applied > old.given or spec.committed_term(applied) != seen.last_term:
            return None
        log = Log([(applied, spec.config_at(applied))], applied, seen.last_term)
    elif (log.last, log.last_term) != (seen.last, seen.last_term) or seen.base < log.base:
        return None
    term = max(disk.term, log.last_term)
    if (term, disk.vote if term == disk.term else 0) != (seen.term, seen.vote):
        return None
    log = log.copy()
    if seen.base > log.base:
        log.compact(seen.base)
    return log
