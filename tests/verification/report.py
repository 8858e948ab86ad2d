"""docs/verification.md's figures, from docs/verification.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict

DOCS = Path(__file__).parent.parent.parent / "docs"
RECORD = DOCS / "verification.json"
PAGE = DOCS / "verification.md"
BEGIN, END = "<!-- figures: written by python -m tests.verification --record -->", "<!-- end of figures -->"
YEAR_S = 365.25 * 86_400


class Run(TypedDict):
    """One check, once. count is in the check's own unit: schedules, states, or most schedules a bug."""

    check: str
    commit: str
    date: str
    first_seed: int
    count: int
    seconds: int
    failed: bool
    counts: dict[str, Any]


def recorded() -> list[Run]:
    runs: list[Run] = json.loads(RECORD.read_text()) if RECORD.exists() else []
    return runs


def write_report(runs: list[Run]) -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{figures(runs)}\n\n{END}{after}")


def figures(runs: list[Run]) -> str:
    """Sums over the runs of each check; of those without seeds the latest run."""
    rows = ["| check | counted | found | runs |", "|---|---|---|---|"]
    for name, tell in TELL.items():
        own = [run for run in runs if run["check"] == name and run["counts"]]
        if own:
            found = sum(run["counts"].get("violations", 0) for run in own)
            last = own[-1]
            told = f"{len(own)}, the last at {last['commit']} on {last['date']}"
            rows.append(f"| {name} | {tell([run['counts'] for run in own])} | {found} violations | {told} |")
    mutants = [run["counts"] for run in runs if run["check"] == "mutants" and run["counts"]]
    if mutants:
        rows += ["", *_seeded_bugs(mutants[-1])]
    return "\n".join(rows)


def _simulation(all_counts: list[dict[str, Any]]) -> str:
    total = {key: sum(counts[key] for counts in all_counts) for key in ("schedules", "events", "leaderships")}
    years = sum(counts["simulated_s"] for counts in all_counts) / YEAR_S
    rarest = min(
        sum(counts["situations"][point] for counts in all_counts) for point in all_counts[0]["situations"]
    )
    return (
        f"{total['schedules']:,} schedules, {total['events']:,} events, {total['leaderships']:,} leaderships, "
        f"{years:.2f} simulated cluster-years; {len(all_counts[0]['situations'])} situations, the rarest {rarest} times"
    )


def _crash(all_counts: list[dict[str, Any]]) -> str:
    return f"{sum(counts['states'] for counts in all_counts):,} crash states"


def _exhaustive(all_counts: list[dict[str, Any]]) -> str:
    return f"{all_counts[-1]['states']:,} distinct states in {len(all_counts[-1]['scopes'])} scopes"


def _mutants(all_counts: list[dict[str, Any]]) -> str:
    last = all_counts[-1]
    return (
        f"{last['found']} of {last['bugs']} seeded bugs found, median {last['median_schedules']:g} schedules, "
        f"most {last['most_schedules']:,}"
    )


def _whole_member(all_counts: list[dict[str, Any]]) -> str:
    keys = [key for key, value in all_counts[0].items() if isinstance(value, int) and key != "first_seed"]
    return ", ".join(f"{sum(counts[key] for counts in all_counts):,} {key.replace('_', ' ')}" for key in keys)


TELL = {
    "simulation": _simulation,
    "whole_member": _whole_member,
    "mutants": _mutants,
    "exhaustive": _exhaustive,
    "crash": _crash,
}


def _seeded_bugs(counts: dict[str, Any]) -> list[str]:
    from tests.mutants.catalogue import FAMILIES

    lines = ["| seeded bug | row | schedules until found |", "|---|---|---|"]
    for family, mutants in FAMILIES.items():
        lines.append(f"| **{family}** | | |")
        for mutant in mutants:
            row, _, what = (mutant.__doc__ or "").partition(": ")
            seeds = counts["schedules"].get(mutant.__name__)
            lines.append(f"| {' '.join(what.split())} | {row} | {seeds if seeds else 'survives'} |")
    return lines
