"""From "ready" to the first answer, hop by hop, for each proxy. Every time is one that a program wrote into its own
line, or the clock of the one who asks (same machine, same clock)."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from kvstore.demo.processes import Program
from kvstore.demo.proxies import Proxy
from kvstore.readiness.console import parse_line

HOPS = ("announce acknowledged", "watch event at the router", "proxy configured", "first answer")


async def said(program: Program, pattern: str, start: int = 0) -> float:
    """When the program says it had written the first line with this in it, Unix time."""
    line = (await program.wait_line(f"Z .*{pattern}|Z {pattern}", start=start)).string
    parsed = parse_line(line)
    assert parsed is not None
    return parsed[0]


@dataclass(slots=True)
class Hops:
    """Milliseconds since ready, by proxy: one list for each of HOPS."""

    took_ms: dict[str, list[list[float]]] = field(default_factory=dict)

    async def note(
        self,
        announcer: Program,
        name: str,
        address: str,
        answered_at: Mapping[str, float],
        proxies: list[Proxy],
    ) -> None:
        """One instance, which has answered through each proxy."""
        ready_at = await said(announcer, "ready after")
        announced_at = await said(announcer, "announced ")
        for proxy in proxies:
            seen_at = configured_at = await said(proxy.router, rf" \+{name}\b")
            if proxy.configured:
                configured_at = await said(proxy.router, proxy.configured % re.escape(address))
            times = (announced_at, seen_at, configured_at, answered_at[proxy.name])
            columns = self.took_ms.setdefault(proxy.name, [[] for _ in HOPS])
            for column, at in zip(columns, times):
                column.append((at - ready_at) * 1e3)

    def rows(self) -> list[tuple[str, ...]]:
        """Of a table: proxy, and the median of each hop."""
        return [
            (name, *(f"{statistics.median(column):.1f} ms" for column in columns))
            for name, columns in self.took_ms.items()
        ]
