"""Any proxy that reads its configuration from a file: rendered, checked, put in its place in one step, then told.

    set ─► render ─► the same as in place? ─ yes ─► nothing
                          │ no
                          ▼
           check of the new file ─► rename over the old one ─► check of what is in place ─► reload
                │ fails: logged, nothing is touched        fails │ the old file comes back

A check whose command names the file as {} is done before it is put in place; one that does not can only look at
what is there. Whatever fails is tried again, ever more slowly, and the proxy goes on with what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from kvstore.readiness.instance import Instance, split_address

RETRY_S, RETRY_MAX_S = 1.0, 30.0
OUTPUT_CHARACTERS_MAX = 2000

log = logging.getLogger(__name__)


class TemplateFailed(Exception):
    """The template cannot be read, or not rendered; why, and where."""


@dataclass(frozen=True, slots=True)
class Settings:
    """check, reload: shell commands, "" for none. debounce_s: changes that come so close together are one."""

    template: str
    output: str
    service: str
    check: str = ""
    reload: str = ""
    debounce_s: float = 0.05
    timeout_s: float = 10.0


def load(path: str) -> jinja2.Template:
    """Raises TemplateFailed."""
    folder, name = os.path.split(os.path.abspath(path))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["host"] = lambda address: split_address(address)[0]
    environment.filters["port"] = lambda address: split_address(address)[1]
    try:
        return environment.get_template(name)
    except jinja2.TemplateNotFound:
        raise TemplateFailed(f"{path}: no such file") from None
    except jinja2.TemplateSyntaxError as problem:
        raise TemplateFailed(f"{path}, line {problem.lineno}: {problem.message}") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise TemplateFailed(f"{path}: {problem}") from None


def render(template: jinja2.Template, service: str, serving: Sequence[Instance]) -> str:
    """instances: those that are ready, draining: those that drain. Raises TemplateFailed."""
    ready = [one for one in serving if one.is_ready]
    draining = [one for one in serving if not one.is_ready]
    try:
        return template.render(service=service, instances=ready, draining=draining)
    except Exception as problem:  # a template may do anything; whatever it raises is its own fault
        raise TemplateFailed(f"{template.name}: {problem}") from None


class TemplateDriver:
    """A Driver. reconcile() notes the set, run() brings the file to it, until it is cancelled."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._template = load(settings.template)
        self._serving: Sequence[Instance] | None = None
        self._wake = asyncio.Event()
        self._owes_reload = False  # the file is in place, and the proxy has not been told

    def reconcile(self, instances: Sequence[Instance]) -> None:
        self._serving = instances
        self._wake.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s, not_before = RETRY_S, 0.0
        is_settled = True
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if is_settled else pause_s):
                    await self._wake.wait()
            # The first change after a quiet time goes at once; those that follow it closely are one.
            await asyncio.sleep(max(0.0, not_before - loop.time()))
            not_before = loop.time() + self._settings.debounce_s
            self._wake.clear()
            assert self._serving is not None, "it is woken by the first set"
            is_settled = await self._converge(self._serving)
            pause_s = RETRY_S if is_settled else min(pause_s * 2, RETRY_MAX_S)

    async def _converge(self, serving: Sequence[Instance]) -> bool:
        try:
            content = render(self._template, self._settings.service, serving).encode()
            if content != _read(self._settings.output):
                if not await self._put_in_place(content):
                    return False
                self._owes_reload = True
        except (TemplateFailed, OSError) as problem:
            log.warning("%s; the file is left as it is", problem)
            return False
        if self._owes_reload and self._settings.reload:
            if not await self._shell(self._settings.reload, "reload"):
                return False
            log.info("reloaded")
        self._owes_reload = False
        return True

    async def _put_in_place(self, content: bytes) -> bool:
        settings = self._settings
        fresh = _write_beside(settings.output, content)
        try:
            before_it = "{}" in settings.check
            if before_it and not await self._shell(settings.check.replace("{}", shlex.quote(fresh)), "check"):
                return False
            old = _read(settings.output)
            os.replace(fresh, settings.output)
            if settings.check and not before_it:
                is_good = False
                try:
                    is_good = await self._shell(settings.check, "check")
                finally:  # also when it is stopped meanwhile
                    if not is_good:
                        _take_back(settings.output, old)
                if not is_good:
                    return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)
        log.info("wrote %s", settings.output)
        return True

    async def _shell(self, command: str, what: str) -> bool:
        process = await asyncio.create_subprocess_shell(
            command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                output, _ = await process.communicate()
        except TimeoutError:
            log.warning("%s %r has not ended within %g s", what, command, self._settings.timeout_s)
            return False
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
        if process.returncode == 0:
            return True
        text = " / ".join(output.decode(errors="replace").split("\n")).strip(" /")[-OUTPUT_CHARACTERS_MAX:]
        log.warning("%s %r failed with status %d: %s", what, command, process.returncode, text)
        return False


def _take_back(path: str, old: bytes | None) -> None:
    if old is None:
        os.unlink(path)
    else:
        os.replace(_write_beside(path, old), path)


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _write_beside(path: str, content: bytes) -> str:
    """A file in the same folder, with the mode of the one it is to replace."""
    folder, name = os.path.split(os.path.abspath(path))
    descriptor, fresh = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    mode = 0o644
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(fresh, mode)
    return fresh
