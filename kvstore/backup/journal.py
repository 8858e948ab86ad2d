"""How far a live migration is, in a file: so that it goes on after an interruption instead of from the start.

Without a path it is kept in memory alone.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import asdict, dataclass, field


class BadJournal(ValueError):
    """The file is not one, or of other clusters. One line."""


@dataclass
class _Entry:
    source: str  # cluster ids, in hexadecimal
    target: str
    revision: int = 0  # of the source: what is copied, and then what was followed last
    next_key: str = ""  # base64; where copying goes on
    copied: bool = False


@dataclass
class Journal:
    path: str
    source: int
    target: int
    resumed: bool = field(init=False, default=False)
    _entry: _Entry = field(init=False)

    def __post_init__(self) -> None:
        """Reads the file where there is one. Raises BadJournal."""
        self._entry = _Entry(f"{self.source:x}", f"{self.target:x}")
        if not self.path or not os.path.exists(self.path):
            return
        try:
            with open(self.path, encoding="utf-8") as file:
                found = _Entry(**json.load(file))
            base64.b64decode(found.next_key, validate=True)
        except (ValueError, TypeError) as problem:
            raise BadJournal(f"{self.path} is not a migration's state: {problem}") from None
        if (found.source, found.target) != (self._entry.source, self._entry.target):
            raise BadJournal(
                f"{self.path} is of a migration from cluster {found.source} to {found.target}, "
                f"not from {self._entry.source} to {self._entry.target}"
            )
        self._entry, self.resumed = found, True

    @property
    def revision(self) -> int:
        return self._entry.revision

    @property
    def next_key(self) -> bytes:
        return base64.b64decode(self._entry.next_key)

    @property
    def copied(self) -> bool:
        return self._entry.copied

    def begin_copy(self, revision: int) -> None:
        """0: of whatever the source's revision will be."""
        self._entry.revision, self._entry.next_key, self._entry.copied = revision, "", False
        self._save()

    def reached(self, key: bytes) -> None:
        self._entry.next_key = base64.b64encode(key).decode()
        self._save()

    def end_copy(self) -> None:
        self._entry.next_key, self._entry.copied = "", True
        self._save()

    def followed(self, revision: int) -> None:
        if revision > self._entry.revision:
            self._entry.revision = revision
            self._save()

    def _save(self) -> None:
        """Whole or not at all; not synced each time, as what a crash of the machine loses is done again."""
        if not self.path:
            return
        part = f"{self.path}.part"
        with open(part, "w", encoding="utf-8") as file:
            json.dump(asdict(self._entry), file)
        os.replace(part, self.path)
