"""`pip install .` installs Python, as pyproject.toml says. With KVSTORE_COMPILE=1 the modules that a request goes
through are compiled by mypyc, from the same source; nothing else changes. It needs a C compiler, Python's headers
and mypy with what the types are taken from (`pip install '.[dev]'`): docs/decisions/0006-compiled.md.
"""

from __future__ import annotations

import os
import sys
from glob import glob

from setuptools import Extension, setup

PATTERNS = {
    "kvstorage": [f"kvstore/state/{name}.py" for name in ("long_keys", "records")],
    "kvstore": [
        "raft/*.py",
        "kvstore/rpc.py",
        *(f"kvstore/{room}/*.py" for room in ("wire", "replication", "state")),
        *(f"kvstore/api/{name}.py" for name in ("context", "kv", "lease", "readiness", "watch")),
    ],
}
"""What one library each is made of: the storage process of a member needs two modules, and with one library for all
would have it all in memory."""
SELDOM_RUN = [  # what they do in a day is done in no time, and their code would be in memory all day
    "raft/trace.py",
    *(
        f"kvstore/replication/{name}.py"
        for name in ("corruption", "member_changes", "snapshots", "space_alarm")
    ),
    *(f"kvstore/state/{name}.py" for name in ("auth_commands", "quota_commands", "snapshot")),
]
LEFT_AS_THEY_ARE = {
    "raft/invariants.py": "inherits from a builtin exception's class that mypyc knows no layout of",
    "kvstore/state/storage_process.py": "a process of its own, small by what it does not load",
}


def wanted(library: str) -> list[str]:
    """The files to compile."""
    found = [path for pattern in PATTERNS[library] for path in sorted(glob(pattern))]
    left = {*LEFT_AS_THEY_ARE, *SELDOM_RUN, *(PATTERNS["kvstorage"] if library != "kvstorage" else ())}
    return [path for path in found if path not in left and "__init__" not in path]


def extensions() -> list[Extension]:
    try:
        from mypyc.build import mypycify
    except ImportError as missing:
        sys.exit(
            f"KVSTORE_COMPILE=1 needs mypy beside setuptools ({missing}); without it nothing is compiled"
        )
    os.environ.setdefault("CFLAGS", "-g0")
    return [
        extension
        for library in PATTERNS
        for extension in mypycify(
            ["--config-file", "pyproject.toml", *wanted(library)],
            opt_level="2",
            debug_level="0",
            group_name=library,
            multi_file=True,
        )
    ]


setup(ext_modules=extensions() if os.environ.get("KVSTORE_COMPILE") == "1" else [])
