"""The project's image, built without any registry of images: on a base of Debian packages under the name that the
Dockerfile asks for, from wheels that were fetched before. Both are kept in .cache, and made again when what they are
made of has changed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
from pathlib import Path

from tests.cluster.harness import need
from tests.containers.engine import Engine

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".cache" / "containers"
BASE = "python:3.11-slim-bookworm"
HAPROXY = "haproxy:2.8"
IMAGE = "kvstore"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates,haproxy"
EXTRAS = ("dns", "docker", "template")


def build_all(engine: Engine) -> None:
    """BASE, HAPROXY and IMAGE."""
    fetching = threading.Thread(target=wheels)
    fetching.start()
    archive = base_archive()
    with archive.open("rb") as content:
        docker = [need("docker"), "import", "-", BASE]
        subprocess.run(docker, stdin=content, env=engine.environment, check=True, timeout=120)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(
            f'FROM {BASE}\nCMD ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]\n'
        )
        engine.docker("build", "--network=none", "--tag", HAPROXY, folder)
    fetching.join()
    with tempfile.TemporaryDirectory() as folder:
        build(engine, Path(folder))


def build(engine: Engine, folder: Path) -> None:
    """With the project's own Dockerfile, as its head says it is done without a network."""
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("kvstore", "raft", "deploy"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copytree(wheels(), folder / "wheels")
    options = ["--build-arg=PIP_NO_INDEX=1", "--build-arg=PIP_FIND_LINKS=/src/wheels"]
    engine.docker("build", "--network=none", *options, "--tag", IMAGE, str(folder), timeout_s=240.0)


def base_archive() -> Path:
    """A file system in which what the Dockerfile expects of its base is where it is there."""
    archive = CACHE / f"base-{_digest(PACKAGES)}.tar"
    if archive.exists():
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        root = Path(folder) / "root"
        command = [need("debootstrap"), "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
        _run(command, timeout_s=300.0)
        for name in ("python", "python3"):
            (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
        for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        for waste in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / waste, ignore_errors=True)
        unfinished = Path(folder) / "base.tar"
        _run(["tar", "--one-file-system", "-C", str(root), "-cf", str(unfinished), "."], timeout_s=120.0)
        unfinished.rename(archive)
    return archive


def wheels() -> Path:
    """All that the image needs of PyPI."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in EXTRAS:
        needed += project["project"]["optional-dependencies"][extra]
    folder = CACHE / f"wheels-{_digest(*needed)}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as unfinished:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
            _run([*pip, "--dest", f"{unfinished}/wheels", *needed], timeout_s=300.0)
            (Path(unfinished) / "wheels").rename(folder)
    return folder


def _run(command: list[str], timeout_s: float) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"{' '.join(command[:3])}: {done.stdout[-1500:]}{done.stderr[-1500:]}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
