"""The floor's three members as processes."""

from __future__ import annotations

import sys
from pathlib import Path

from kvstore.demo.processes import Programs, free_ports

ROOT = Path(__file__).parent.parent.parent


async def start_floor(folder: Path, programs: Programs) -> str:
    """The leader's endpoint, once all three serve; they end with programs."""
    ports = free_ports(3)
    command = [sys.executable, "-m", "benchmarks.floor"]
    environment = {"PYTHONPATH": str(ROOT)}
    for port in ports[1:]:
        words = [*command, "follower", str(port), str(folder / f"{port}")]
        follower = await programs.start(f"floor-{port}", words, environment)
        await follower.wait_line("serving")
    others = ",".join(str(port) for port in ports[1:])
    words = [*command, "leader", str(ports[0]), str(folder / "leader"), others]
    leader = await programs.start("floor-leader", words, environment)
    await leader.wait_line("serving")
    return f"127.0.0.1:{ports[0]}"
