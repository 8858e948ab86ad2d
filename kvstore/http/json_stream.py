"""A body that grows, cut into the JSON objects it is made of: one after the other, or one a line.

Pure. Each byte is looked at once, however the body arrives in pieces. Only objects are cut out, which is all a
request can be; whether one is well formed inside is for json_mapping.parse to say.
"""

from __future__ import annotations

import re

from kvstore.http.json_mapping import BadRequest

_BLANK = b" \t\r\n"
_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')


class TooLarge(ValueError):
    """One object is larger than any message may be."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"a request is larger than {bytes_max} bytes")


class JsonObjects:
    """feed() returns the objects that became whole; end() says whether the body ended between two of them."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._at = 0  # where to look on
        self._depth = 0
        self._in_string = False

    def feed(self, data: bytes) -> list[bytes]:
        """Raises BadRequest where something other than an object begins, TooLarge."""
        self._buffer += data
        objects: list[bytes] = []
        while self._look(objects):
            pass
        if len(self._buffer) > self._bytes_max:
            raise TooLarge(self._bytes_max)
        return objects

    def end(self) -> None:
        """Raises BadRequest where the body ends within an object."""
        if self._buffer:
            raise BadRequest("invalid JSON: the body ends within an object")

    def _look(self, objects: list[bytes]) -> bool:
        """Takes one step; False where there is nothing more to see yet."""
        buffer = self._buffer
        if not self._depth:
            self._begin()
            return bool(self._depth)
        if self._in_string:
            found = _INSIDE.search(buffer, self._at)
            if found is None:
                self._at = len(buffer)
                return False
            if found[0] == b'"':
                self._in_string = False
                self._at = found.end()
            elif found.end() < len(buffer):
                self._at = found.end() + 1  # past the escaped character
            else:
                self._at = found.start()
                return False
            return True
        found = _OUTSIDE.search(buffer, self._at)
        if found is None:
            self._at = len(buffer)
            return False
        self._at = found.end()
        if found[0] == b'"':
            self._in_string = True
            return True
        self._depth += 1 if found[0] in b"{[" else -1
        if not self._depth:
            if self._at > self._bytes_max:
                raise TooLarge(self._bytes_max)
            objects.append(bytes(buffer[: self._at]))
            del buffer[: self._at]
            self._at = 0
        return True

    def _begin(self) -> None:
        """Skips what may stand between two objects."""
        buffer, start = self._buffer, 0
        while start < len(buffer) and buffer[start] in _BLANK:
            start += 1
        del buffer[:start]
        if not buffer:
            return
        if buffer[:1] != b"{":
            raise BadRequest(f"invalid JSON: a request begins with {{, not with {chr(buffer[0])!r}")
        self._depth = self._at = 1
