"""The shape of the tree: dependencies point one way, cores stay pure, generated code is fresh."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

# What each room may import of the others. Only member.py and the tests know everybody.
COMMON = {
    "kvstore.commands",
    "kvstore.errors",
    "kvstore.rpc",
    "kvstore.pb",
    "kvstore.version",
    "kvstore.log",
    "kvstore.meters",
}
ALLOWED = {
    "raft": {"raft"},
    "kvstore/tls": {"kvstore.tls", "kvstore.log"},
    "kvstore/wire": COMMON | {"kvstore.wire"},
    "kvstore/state": COMMON | {"kvstore.state"},
    "kvstore/replication": COMMON | {"kvstore.replication", "kvstore.state", "raft"},
    "kvstore/etcd_db": {"kvstore.etcd_db", "kvstore.pb"},
    "kvstore/backup": COMMON
    | {
        "kvstore.backup",
        "kvstore.client",
        "kvstore.etcd_db",
        "kvstore.state",
        "kvstore.replication",
        "kvstore.config",
        "kvstore.data_dir",
        "kvstore.identity",
        "raft",
    },
    "kvstore/api": COMMON
    | {
        "kvstore.api",
        "kvstore.replication",
        "kvstore.state",
        "kvstore.config",
        "kvstore.backup.exporter",
        "raft",
    },
    "kvstore/metrics": COMMON
    | {
        "kvstore.metrics",
        "kvstore.http",
        "kvstore.api",
        "kvstore.replication",
        "kvstore.state",
        "kvstore.wire",
    },
    "kvstore/http": COMMON | {"kvstore.http", "kvstore.api", "kvstore.state", "kvstore.tls"},
    "kvstore/client": {
        "kvstore.client",
        "kvstore.errors",
        "kvstore.pb",
        "kvstore.rpc",
        "kvstore.version",
        # HTTP/2 as numbers and gRPC's framing, which are the same at both ends; nothing of the server.
        "kvstore.wire.frames",
        "kvstore.wire.literals",
        "kvstore.wire.messages",
    },
    "kvstore/readiness": {"kvstore.readiness", "kvstore.client", "kvstore.pb", "kvstore.errors"},
    "kvstore/routing": {
        "kvstore.routing",
        "kvstore.readiness",
        "kvstore.client",
        "kvstore.pb",
        "kvstore.errors",
    },
    "kvstore/cli": {
        "kvstore.cli",
        "kvstore.backup",
        "kvstore.etcd_db",
        "kvstore.client",
        "kvstore.readiness",
        "kvstore.routing",
        "kvstore.pb",
        "kvstore.errors",
        "kvstore.version",
    },
}
# Modules that own a clock, a thread, a socket or a disk: the pure cores may not reach them.
IMPURE = {"asyncio", "time", "os", "socket", "ssl", "threading", "subprocess", "select", "uuid", "secrets"}
PURE = [
    "raft",
    "kvstore/commands.py",
    "kvstore/identity.py",
    "kvstore/replication/outbox.py",
    "kvstore/replication/reads.py",
    "kvstore/replication/driver.py",
    "kvstore/replication/lease_keeper.py",
    "kvstore/replication/wal_format.py",
    "kvstore/replication/codec.py",
    "kvstore/wire/connection.py",
    "kvstore/client/http2.py",
    "kvstore/client/calls.py",
    "kvstore/client/replies.py",
    "kvstore/client/endpoints.py",
    "kvstore/client/watch_state.py",
    "kvstore/tls/settings.py",
    "kvstore/tls/ciphers.py",
    "kvstore/tls/certificates.py",
    "kvstore/state/mvcc.py",
    "kvstore/state/watch_hub.py",
    "kvstore/state/lessor.py",
    "kvstore/readiness/docker.py",
    "kvstore/readiness/docker_labels.py",
    "kvstore/state/lease_marks.py",
    "kvstore/state/quotas.py",
    "kvstore/state/quota_commands.py",
    "kvstore/api/rates.py",
    "kvstore/readiness/health.py",
    "kvstore/readiness/traefik_schema.py",
    "kvstore/routing/haproxy_plan.py",
    "kvstore/routing/view.py",
    "kvstore/routing/zones.py",
    "benchmarks/routed/rows.py",
    "benchmarks/routed/hops.py",
    "kvstore/routing/xds/kinds.py",
    "kvstore/routing/xds/endpoints.py",
    "kvstore/routing/xds/resources.py",
    "kvstore/routing/xds/catalogue.py",
    "kvstore/routing/xds/pace.py",
    "kvstore/routing/xds/sotw.py",
    "kvstore/routing/xds/delta.py",
    "kvstore/routing/xds/wire.py",
    "kvstore/routing/xds/bootstrap.py",
    "kvstore/routing/balance.py",
    "kvstore/routing/ejection.py",
    "kvstore/routing/frames.py",
    "kvstore/routing/retry.py",
]


def modules(folder: str) -> list[Path]:
    path = ROOT / folder
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


def imports(path: Path) -> list[str]:
    """Every module a file imports, those inside functions too."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            base = node.module or ""
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def ours(name: str) -> bool:
    return name.split(".")[0] in ("kvstore", "raft")


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_dependencies_point_one_way(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(room)
        for name in imports(path)
        if ours(name) and not any(name == a or name.startswith(a + ".") for a in ALLOWED[room])
    ]
    assert wrong == []


@pytest.mark.parametrize("core", PURE)
def test_cores_are_pure(core: str) -> None:
    files = modules(core)
    assert files, f"{core} is not there"
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if name.split(".")[0] in IMPURE or (name.split(".")[0] == "random" and name != "random.Random")
    ]
    assert wrong == []


def test_raft_needs_only_the_standard_library() -> None:
    names = {name.split(".")[0] for path in modules("raft") for name in imports(path)}
    assert names - {"raft"} <= set(sys.stdlib_module_names)


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "proto").rglob("*.proto"))
    assert protos
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iproto", f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--pyi_out={tmp_path}", *protos], cwd=ROOT, check=True)
    for made in sorted(tmp_path.rglob("*.py*")):
        kept = ROOT / made.relative_to(tmp_path)
        assert kept.read_text() == made.read_text(), f"{kept.name} is stale: run `make proto`"


def test_every_package_says_what_it_is() -> None:
    """A newcomer finds each room's purpose in its first line."""
    for path in [*modules("kvstore"), *modules("raft")]:
        if "pb" in path.parts and path.name != "__init__.py":
            continue
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no docstring"
