"""python -m tests.exhaustive [--scope NAME ...] [--depth D] [--states-max N] [--walks W] [--jobs J] [--json FILE]

Searches every state of a small world of the real raft/ code, breadth first: three nodes, a few terms and entries,
messages in any order and as many lost as may be. After it, random walks through a wider one. Scopes:

    core       from birth, a message twice, a crash           leases     pre-vote, check-quorum and a read
    disks      the end of each write is a step of its own     members    one change of the configuration
    commits    an entry a message, four terms (figure 3.7)    snapshots  one compaction, a crash
    reads      a read

All but core and disks begin where a leader has won. --states-max is for all scopes together. Exit status 1 at a
violation, with the nearest path to it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from dataclasses import asdict
from multiprocessing.sharedctypes import SynchronizedArray

from tests.exhaustive.scopes import SCOPES
from tests.exhaustive.search import Outcome, Search, walk

COUNTS = 4  # a scope: states, depth, frontier, walks. After all of them: states left, scopes not begun
Job = tuple[int, str, int, int, int, int]

_progress: SynchronizedArray[int] | None = None


def _share(progress: SynchronizedArray[int]) -> None:
    global _progress
    _progress = progress


def _take_share() -> int:
    assert _progress is not None
    with _progress.get_lock():
        share = _progress[-2] // _progress[-1]
        _progress[-2] -= share
        _progress[-1] -= 1
    return share


def _give_back(states: int) -> None:
    assert _progress is not None
    with _progress.get_lock():
        _progress[-2] += states


def _run(job: Job) -> Outcome:
    place, name, depth, walks, walk_depth, seed = job
    share = _take_share()

    def report(outcome: Outcome, frontier: int) -> None:
        if _progress is not None:
            row = [outcome.states, outcome.depth, frontier, outcome.walks]
            _progress[place * COUNTS : (place + 1) * COUNTS] = row

    outcome = Search(SCOPES[name], depth=depth, states_max=share, report=report).run()
    _give_back(share - outcome.states)
    if walks and not outcome.violation:
        walk(SCOPES[name], walks=walks, depth=walk_depth, seed=seed, report=report, outcome=outcome)
    report(outcome, 0)
    return outcome


def _bar(progress: SynchronizedArray[int], goal: int, seconds: float) -> str:
    rows = [progress[at : at + COUNTS] for at in range(0, len(progress) - 2, COUNTS)]
    states, depth = sum(row[0] for row in rows), max(row[1] for row in rows)
    frontier, walks = sum(row[2] for row in rows), sum(row[3] for row in rows)
    done = min(20, 20 * states // max(1, goal))
    return (
        f"\r[{'#' * done}{' ' * (20 - done)}] {states:,} states, {states / max(seconds, 0.1):,.0f} a second, "
        f"depth {depth}, frontier {frontier:,}, {walks:,} walks "
    )


def _print(outcome: Outcome) -> None:
    end = ", nothing beyond" if outcome.complete else ""
    print(
        f"{outcome.scope:<10} {outcome.states:>10,} states, all to depth {outcome.depth}{end}; "
        f"{outcome.transitions:,} transitions, {outcome.node_states:,} node states, "
        f"{outcome.walks:,} walks of {outcome.walk_steps:,} steps, {outcome.seconds:.0f} s, "
        f"{'1 violation' if outcome.violation else 'no violation'}"
    )
    if outcome.violation:
        print("\n".join([f"VIOLATION: {outcome.violation}", *outcome.path]))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.exhaustive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scope", nargs="+", choices=sorted(SCOPES), default=list(SCOPES))
    parser.add_argument("--depth", type=int, default=14)
    parser.add_argument("--states-max", type=int, default=5_000_000, help="of all scopes together")
    parser.add_argument("--walks", type=int, default=0, help="random ones in each scope afterwards")
    parser.add_argument("--walk-depth", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1, help="of the walks")
    parser.add_argument("--jobs", type=int, default=1, help="scopes at a time")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    started = time.monotonic()
    jobs: list[Job] = [
        (place, name, options.depth, options.walks, options.walk_depth, options.seed)
        for place, name in enumerate(options.scope)
    ]
    context = multiprocessing.get_context("fork")
    progress = context.Array("q", [0] * COUNTS * len(jobs) + [options.states_max, len(jobs)])
    outcomes: list[Outcome] = []
    with context.Pool(max(1, options.jobs), _share, (progress,), maxtasksperchild=1) as pool:
        for result in [pool.apply_async(_run, (job,)) for job in jobs]:
            while not result.ready():
                result.wait(0.5)
                if sys.stderr.isatty():
                    print(
                        _bar(progress, options.states_max, time.monotonic() - started),
                        end="",
                        file=sys.stderr,
                    )
            outcomes.append(result.get())
            if sys.stderr.isatty():
                print(file=sys.stderr)
            _print(outcomes[-1])
    seconds = time.monotonic() - started
    states, violations = sum(each.states for each in outcomes), sum(bool(each.violation) for each in outcomes)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(
        f"{len(outcomes)} scopes, {states:,} distinct states, {states / seconds:,.0f} a second, "
        f"{memory:,} MiB at most in one process, {violations} violations in {seconds:.1f} s"
    )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(
                {
                    "scopes": [asdict(each) for each in outcomes],
                    "states": states,
                    "violations": violations,
                    "seconds": round(seconds, 1),
                },
                file,
                indent=1,
            )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
