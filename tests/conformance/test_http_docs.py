"""docs/http.md: its commands are run as they stand, and print what it says they print."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.conformance.etcd_process import running_cluster

PAGE = Path(__file__).parent.parent.parent / "docs" / "http.md"
BLOCKS = re.compile(r"```sh\n(.*?)```\n(?:```(?:json|text)\n(.*?)```)?", re.DOTALL)
VARYING = re.compile(r'("(?:cluster_id|member_id|raft_term)"):"\d+"')


def test_the_commands_print_what_the_page_says() -> None:
    blocks = BLOCKS.findall(PAGE.read_text())
    assert len(blocks) > 8
    with running_cluster("kvstore") as cluster:
        first, *rest = blocks
        assert first == ("E=http://127.0.0.1:2379\n", "")
        environment = {**os.environ, "E": f"http://{cluster.endpoints[0]}"}
        for command, expected in rest:
            done = subprocess.run(
                ["bash", "-uc", command], capture_output=True, text=True, timeout=20, env=environment
            )
            printed = VARYING.sub(r'\1:"*"', done.stdout)
            assert printed.rstrip("\n") == expected.rstrip("\n"), command
