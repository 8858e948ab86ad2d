"""The server: `kvstore`, with etcd's flags, readiness lines and exit statuses.

0 after --help and --version; 2 for a command line that cannot be read; 1 for a start that failed and for a
member that had to stop; ended by the signal itself after SIGTERM or SIGINT, as etcd ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from kvstore import config, log
from kvstore.version import COMPILED, ETCD_VERSION, VERSION


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if any(word in ("-h", "-help", "--help") for word in words):
        print(usage())
        return 0
    if any(word in ("-version", "--version") for word in words):
        print(version_lines())
        return 0
    try:
        settings = config.load(words, os.environ)
    except config.FlagError as problem:
        print(f"{problem}\nkvstore --help lists the flags.", file=sys.stderr)
        return 2
    except config.ConfigError as problem:
        log.configure("info", "json")
        log.fatal("failed to start", error=str(problem))
        log.close()
        return 1
    return _serve(settings)


def _serve(settings: config.Config) -> int:
    from kvstore.member import MemberFailed, run  # after the flags are known good: --help starts no machinery

    log.configure(settings.log_level, settings.log_format)
    for name in settings.ignored:
        log.warn("flag has no meaning here and is ignored", flag=name)
    try:
        ended_by = run(settings)
    except MemberFailed as problem:
        log.fatal("failed to start" if problem.starting else "member stopped", error=str(problem))
        log.close()
        return 1
    log.close()
    if ended_by and os.getpid() != 1:
        signal.signal(ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), ended_by)
    return 0


def version_lines() -> str:
    import platform

    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return "\n".join(
        (
            f"etcd Version: {ETCD_VERSION}",
            f"Git SHA: kvstore-{VERSION}",
            f"Go Version: none (Python {platform.python_version()}{', compiled' if COMPILED else ''})",
            f"Go OS/Arch: {platform.system().lower()}/{machine}",
        )
    )


def usage() -> str:
    lines = [
        "kvstore: a coordination store that speaks etcd's v3 protocol.",
        "",
        "Usage:",
        "  kvstore [flags]      start a member; without flags, one on http://localhost:2379",
        "  kvstore --version",
        "",
        "One member:",
        "  kvstore --data-dir /var/lib/kvstore",
        "One of three:",
        "  kvstore --name n1 --data-dir n1 \\",
        "    --listen-client-urls http://10.0.0.1:2379 --listen-peer-urls http://10.0.0.1:2380 \\",
        "    --initial-advertise-peer-urls http://10.0.0.1:2380 \\",
        "    --initial-cluster n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380,n3=http://10.0.0.3:2380",
        "",
        "Flags (--flag=v, --flag v or -flag v; or ETCD_FLAG / KVSTORE_FLAG in the environment):",
    ]
    for name, flag in config.FLAGS.items():
        default = f" (default {flag.default})" if flag.default else ""
        lines.append(f"  --{name:<35}{flag.help}{default}")
    lines.append("")
    lines.append(
        "Any other flag of etcd's is accepted with a warning, or refused where ignoring it is unsafe."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
