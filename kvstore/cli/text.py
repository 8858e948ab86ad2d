"""Values as etcdctl reads and writes them, which is as Go does. Pure."""

from __future__ import annotations

import math
import re

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_ESCAPES = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    '"': r"\"",
    "\\": r"\\",
}
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}


def parse_duration_s(text: str) -> float:
    """ "1m0.5s" to 60.5. Raises ValueError."""
    problem = ValueError(f"time: invalid duration {quote(text)}")
    unsigned = text.removeprefix("+")
    if unsigned == "0":
        return 0.0
    total_s, position = 0.0, 0
    for part in _DURATION_PART.finditer(unsigned):
        if part.start() != position:
            raise problem
        total_s += float(part[1]) * _UNITS_S[part[2]]
        position = part.end()
    if not unsigned or position != len(unsigned):
        raise problem
    return total_s


def format_duration(seconds: float) -> str:
    """0.0027 to "2.7ms": three decimal orders a unit, no trailing zeros."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds == 0:
        return "0s"
    for limit, unit in ((1_000, "ns"), (1_000_000, "µs"), (1_000_000_000, "ms")):
        if nanoseconds < limit:
            return _plain(nanoseconds * 1000, limit) + unit
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return head + _plain(rest, 10**9) + "s"


def parse_int(text: str, base: int = 10) -> int:
    """A signed 64-bit number. Raises ValueError with Go's text."""
    digits = "0-9" if base == 10 else "0-9a-fA-F"
    if not re.fullmatch(f"[+-]?[{digits}]+", text):
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    number = int(text, base)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return number


def parse_bool(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


def quote(text: str | bytes) -> str:
    """A Go string literal. Bytes that are not UTF-8 come out as \\x.., unprintable characters as \\u...."""
    characters = text if isinstance(text, str) else text.decode("utf-8", "surrogateescape")
    return '"' + "".join(_quoted(character) for character in characters) + '"'


def unquote(literal: str) -> bytes:
    """The bytes of a Go string literal in double quotes. Raises ValueError."""
    if len(literal) < 2 or literal[0] != '"' or literal[-1] != '"':
        raise ValueError(f"{literal} is not a quoted string")
    out = bytearray()
    position, end = 1, len(literal) - 1
    while position < end:
        if literal[position] != "\\":
            out += literal[position].encode("utf-8", "surrogateescape")
            position += 1
            continue
        match = _ESCAPE.match(literal, position, end)
        if match is None:
            raise ValueError(f"{literal} has a bad escape")
        out += _unescaped(match[0])
        position = match.end()
    return bytes(out)


def hexadecimal(data: bytes) -> bytes:
    """b"a1" to rb"\\x61\\x31"."""
    return "".join(f"\\x{byte:02x}" for byte in data).encode()


def human_bytes(count: int) -> str:
    """24576 to "25 kB": decimal units, one decimal below 10."""
    if count < 10:
        return f"{count} B"
    power = min(int(math.log(count, 1000) + 1e-12), 6)
    value = math.floor(count / 1000**power * 10 + 0.5) / 10
    unit = ("B", "kB", "MB", "GB", "TB", "PB", "EB")[power]
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


_ESCAPE = re.compile(r"\\(?:[abfnrtv\\\"]|x[0-9a-fA-F]{2}|[0-3][0-7]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})")
_NAMED = {name[1]: character for character, name in _ESCAPES.items()}


def _unescaped(escape: str) -> bytes:
    kind = escape[1]
    if kind == "x":
        return bytes((int(escape[2:], 16),))
    if kind in "uU":
        number = int(escape[2:], 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise ValueError(f"{escape} is not a character")
        return chr(number).encode()
    return _NAMED[kind].encode() if kind in _NAMED else bytes((int(escape[1:], 8),))


def _quoted(character: str) -> str:
    escape = _ESCAPES.get(character)
    if escape is not None:
        return escape
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that did not decode
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable():
        return character
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _plain(numerator: int, denominator: int) -> str:
    whole, rest = divmod(numerator, denominator)
    decimals = f"{rest:0{len(str(denominator)) - 1}d}".rstrip("0")
    return f"{whole}.{decimals}" if decimals else str(whole)
