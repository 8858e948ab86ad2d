"""A Docker engine of our own, in a folder of its own, and nothing of it left at the end.

Containers have the host's network or one that a test makes, and ports published on 127.0.0.1 alone: the engine touches
no packet filter (--iptables=false) and has no bridge until it is asked for one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.harness import need, wait_for

START_TIMEOUT_S = 60.0


class Engine:
    """live-restore: containers go on while the engine is restarted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/d.sock"
        self._docker = need("docker")
        self._dockerd = need("dockerd")
        self._process: subprocess.Popen[bytes] | None = None
        # The classic builder: it can do without a plugin, and without a network.
        self.environment = {**os.environ, "DOCKER_HOST": self.url, "DOCKER_BUILDKIT": "0"}
        self.environment["DOCKER_CONFIG"] = str(folder / "config")

    def start(self) -> None:
        """Returns when it answers."""
        folder = self.folder
        command = [self._dockerd, "--iptables=false", "--ip6tables=false", "--bridge=none", "--live-restore"]
        command += [f"--data-root={folder}/root", f"--exec-root={folder}/exec", f"--pidfile={folder}/d.pid"]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, f"--host={self.url}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._answers, f"the engine answers:\n{self.log_tail()}", START_TIMEOUT_S)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"dockerd ended:\n{self.log_tail()}"
        command = [self._docker, "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=30).returncode == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None

    def docker(self, *words: str, timeout_s: float = 60.0, folder: Path | None = None) -> str:
        """What it printed on stdout, stripped; it must succeed."""
        done = self.tried(*words, timeout_s=timeout_s, folder=folder)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}{done.stdout[-2000:]}"
        return done.stdout.strip()

    def tried(
        self, *words: str, timeout_s: float = 60.0, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._docker, *words],
            env=self.environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def log_tail(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace")[-1500:] if path.exists() else ""

    def clear(self) -> None:
        """No containers, networks and volumes any more."""
        if ids := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", "--volumes", *ids)
        self.docker("network", "prune", "--force")
        self.docker("volume", "prune", "--force")

    def end(self) -> None:
        try:
            if self._process is not None:
                self.clear()
        finally:
            try:
                self.stop()
            finally:
                self._unmount()

    def _unmount(self) -> None:
        """What an engine that was ended in a bad moment leaves mounted."""
        lines = Path("/proc/self/mounts").read_text().splitlines()
        below = [line.split()[1] for line in lines if line.split()[1].startswith(f"{self.folder}/")]
        for path in sorted(below, reverse=True):
            subprocess.run(["umount", path], check=False, timeout=30)


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    folder = Path(tempfile.mkdtemp(prefix="kvd-"))  # short: the paths of its sockets are limited
    engine = Engine(folder)
    try:
        engine.start()
        yield engine
    finally:
        engine.end()
        for _ in range(5):  # shims that are just ending still write there
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.2)
