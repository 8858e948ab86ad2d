"""docs/quota.md: its commands are run as they stand, and print what it says they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conformance.etcd_process import running_cluster

PAGE = Path(__file__).parent.parent.parent / "docs" / "quota.md"
BLOCKS = re.compile(r"```sh\n(.*?)```\n```(?:json|text)\n(.*?)```", re.DOTALL)
VARYING = re.compile(r'("(?:cluster_id|member_id|raft_term)"):"\d+"')


def test_the_commands_print_what_the_page_says() -> None:
    blocks = BLOCKS.findall(PAGE.read_text())
    assert len(blocks) == 6
    with running_cluster("kvstore") as cluster:
        endpoint = cluster.endpoints[0]
        here = Path(sys.executable).parent
        environment = {
            **os.environ,
            "E": f"http://{endpoint}",
            "KVCTL_ENDPOINTS": endpoint,
            "PATH": f"{here}:{os.environ['PATH']}",
        }
        for command, expected in blocks:
            done = subprocess.run(
                ["bash", "-uc", command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
                env=environment,
            )
            printed = VARYING.sub(r'\1:"*"', done.stdout)
            assert printed.rstrip("\n") == expected.rstrip("\n"), command
