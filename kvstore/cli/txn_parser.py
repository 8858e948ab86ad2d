"""The text of a transaction: comparisons, operations if they hold, operations if not; a blank line ends each.

    version("greeting") = "0"        target("key") operator "operand"
                                     targets: version, create, mod, value, lease (hexadecimal), or ver c m val
    put greeting hello               put, get and del with the flags they have on the command line

    get greeting

Pure: lines in, a request out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import click

from kvstore.cli import kv
from kvstore.cli.failures import INVALID_INPUT, CommandFailed
from kvstore.cli.text import parse_int, unquote
from kvstore.client.compare import Comparable, Compare
from kvstore.pb import etcdserverpb_pb2 as pb

COMPARES = "compares:"
SUCCESS = "success requests (get, put, del):"
FAILURE = "failure requests (get, put, del):"

_TARGETS = {
    "ver": "version",
    "version": "version",
    "c": "create",
    "create": "create",
    "m": "mod",
    "mod": "mod",
    "val": "value",
    "value": "value",
    "lease": "lease",
}
_LITERAL = r'"(?:[^"\\]|\\.)*"|`[^`]*`'
_REST = re.compile(rf"\s*(?P<key>{_LITERAL})\)\s*(?P<operator>\S+)\s*(?P<operand>{_LITERAL})")
_WORD = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^'\"\s]\S*")


def read_txn(lines: Iterator[str], prompt: Callable[[str], None] = lambda text: None) -> pb.TxnRequest:
    """Reads the three blocks. lines: each with its line end. prompt: told what is to come, before it is read.
    Raises CommandFailed for what cannot be read, and where the text ends before its third blank line."""
    prompt(COMPARES)
    compares = [parse_compare(line) for line in _block(lines)]
    prompt(SUCCESS)
    success = [parse_operation(line) for line in _block(lines)]
    prompt(FAILURE)
    failure = [parse_operation(line) for line in _block(lines)]
    return pb.TxnRequest(compare=compares, success=success, failure=failure)


def parse_compare(line: str) -> pb.Compare:
    target, parenthesis, rest = line.partition("(")
    if not parenthesis:
        raise _invalid(f"malformed comparison: {line}")
    match = _REST.match(rest)
    if match is None:
        raise _invalid(f'malformed comparison: {line}; expected target("key") operator "operand"')
    if target not in _TARGETS:
        raise _invalid(f"malformed comparison: {line} (unknown target {target})")
    key, operand = _literal(match["key"], line), _literal(match["operand"], line)
    left, right = _sides(_TARGETS[target], key, operand, line)
    match match["operator"]:
        case "=":
            condition = left == right
        case "!=":
            condition = left != right
        case ">":
            condition = left > right
        case "<":
            condition = left < right
        case operator:
            raise _invalid(f"malformed comparison: {line} (unknown operator {operator})")
    return condition.message


def parse_operation(line: str) -> pb.RequestOp:
    words = split_words(line)
    if len(words) < 2:
        raise _invalid(f"invalid txn compare request: {line}")
    verb, arguments = words[0], words[1:]
    if verb == "get":
        flags = _flags(kv.get, arguments, line)
        chosen = {name: flags[name] for name in kv.GET_FLAGS}
        return pb.RequestOp(request_range=kv.range_request(**chosen))
    if verb == "put":
        put = kv.put_request(**_flags(kv.put, arguments, line), standard_input=False)
        return pb.RequestOp(request_put=put)
    if verb == "del":
        return pb.RequestOp(request_delete_range=kv.delete_request(**_flags(kv.delete, arguments, line)))
    raise _invalid(f"invalid txn request: {line}")


def split_words(line: str) -> list[str]:
    """Words between spaces; "..." with Go's escapes and '...' as it stands are one word each. A quote that
    is never closed is skipped."""
    words = []
    for match in _WORD.finditer(line):
        word = match[0]
        if word[0] == '"':
            word = _literal(word, line).decode("utf-8", "surrogateescape")
        elif word[0] == "'":
            word = word[1:-1]
        words.append(word)
    return words


def _block(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.endswith("\n"):
            break
        text = line[:-1].removesuffix("\r")
        if not text:
            return
        yield text
    raise _invalid("EOF")


def _sides(target: str, key: bytes, operand: bytes, line: str) -> tuple[Comparable, bytes | int]:
    if target == "value":
        return Compare.value(key), operand
    try:
        number = parse_int(operand.decode("utf-8", "surrogateescape"), 16 if target == "lease" else 10)
    except ValueError:
        raise _invalid(f"invalid txn compare request: {line}") from None
    makers = {
        "version": Compare.version,
        "create": Compare.create_revision,
        "mod": Compare.mod_revision,
        "lease": Compare.lease,
    }
    return makers[target](key), number


def _literal(word: str, line: str) -> bytes:
    if word[0] == "`":
        return word[1:-1].encode("utf-8", "surrogateescape")
    try:
        return unquote(word)
    except ValueError as problem:
        raise _invalid(f"malformed comparison: {line} ({problem})") from None


def _flags(command: click.Command, arguments: list[str], line: str) -> dict[str, Any]:
    """The arguments as the command itself would read them, without the flags common to all."""
    try:
        context = command.make_context(command.name, arguments, resilient_parsing=False)
    except (click.ClickException, click.exceptions.Exit):
        raise _invalid(f"invalid txn request: {line}") from None
    with context:
        return dict(context.params)


def _invalid(message: str) -> CommandFailed:
    return CommandFailed(message, INVALID_INPUT)
