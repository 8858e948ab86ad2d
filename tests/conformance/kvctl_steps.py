"""What both programs are given: lists of commands, run in order, each on what the ones before it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    arguments: Sequence[str]
    stdin: bytes = b""

    def __str__(self) -> str:
        return " ".join(word or "''" for word in self.arguments)


def step(*arguments: str, stdin: bytes = b"") -> Step:
    return Step(arguments, stdin)


TXNS = [
    b'value("a") = "1"\nversion("b") > "0"\n\nput a 1\nget b\ndel c\n\nput a 2\nget b\ndel b --prev-kv\n\n',
    b'version("t") = "0"\n\nput t "two words"\nput u ""x\n\nget t\n\n',
    b'version("t") > "0"\nmod("t") > "1"\ncreate("t") != "1"\nvalue("t") < "z"\n\n'
    b'get t --keys-only\nget "" --prefix --limit=2 --order=DESCEND\nput t "a\\tb\\x41" --prev-kv\ndel u\n\n\n',
    b'ver("t") = "2"\nc("t") > "0"\nm("t") > "0"\nval("t") = "a\\tbA"\n\nget t\n\n\n',
    b"\n\n\n",
    b'version("l") = "1"\n\nget l\n\nget l --rev=1 --consistency=s\n\n',
    b'version("l") = "2"\n\nget l\n\nget l t\n\n',
    b"\nput `x` 1\n\n\n",
]

BAD_TXNS = [
    b"",
    b"\n",
    b"\nget a",
    b"bad\n\n\n\n",
    b'nosuch("a") = "1"\n\n\n\n',
    b"create(a) > 0\n\n\n\n",
    b'version("a") >1\n\n\n\n',
    b'mod("a") = "x"\n\n\n\n',
    b"\nbad a\n\n\n",
    b"\nput a\n\n\n",
    b"\nput\n\n\n",
    b"\nput a b --nosuch\n\n\n",
    b"\nput a b --lease=1f\n\n\n",
    b"\nput a 1\nput a 2\n\n\n",
    b"\nget a b --prefix\n\n\n",
    b"\nput a 1 --ignore-value\n\n\n",
]

STEPS = [
    step("put", "a", "1"),
    step("put", "a", "2", "--prev-kv"),
    step("put", "a", stdin=b"from\nstdin\n"),
    step("put", "a", "--ignore-value"),
    step("put", "a", "--ignore-lease", "3"),
    step("put", "nobody", "--ignore-value"),
    step("put", "b", "x\ty\x01é\u00ad\u2028<&>", "--prev-kv"),
    step("put", "l", "leased", "--lease=7b"),
    step("put", "l", "--lease", "7b", "--ignore-value", "--prev-kv"),
    step("put", "--", "-k", "-v"),
    step("put", "k", "--", "-5"),
    step("put", "a", "b", "c"),
    step("put", "a", "1", "--lease", "zz"),
    step("put", "a", "1", "--lease", "ffff"),
    step("put", "a", "1", "--ignore-value"),
    step("put"),
    step("put", "", "1"),
    step("put", "a"),
    step("get", "", "--prefix"),
    step("get", "a"),
    step("get", "a", "c", "--limit", "1"),
    step("get", "a", "b", "c"),
    step("get", "nobody"),
    step("get", "a", "--count-only"),
    step("get", "", "--prefix", "--keys-only"),
    step("get", "", "--from-key", "--keys-only"),
    step("get", "b", "--from-key"),
    step("get", "a", "--print-value-only"),
    step("get", "a", "--keys-only", "--print-value-only"),
    step("get", "b", "--hex"),
    step("--hex", "get", "b", "--hex=false"),
    step("get", "l", "--consistency", "s"),
    step("get", "a", "--rev", "3"),
    step("get", "", "--prefix=true", "--sort-by", "modify", "--order", "descend"),
    step("get", "", "--prefix", "--sort-by", "VALUE"),
    step("get", "", "--prefix", "--sort-by=version", "--order=ASCEND"),
    step("get", "", "--prefix", "--sort-by=create", "--limit=2"),
    step("get", "", "--prefix", "--order", "DESCEND"),
    step("get"),
    step("get", ""),
    step("get", "a", "b", "--prefix"),
    step("get", "a", "b", "--from-key"),
    step("get", "a", "--prefix", "--from-key"),
    step("get", "a", "--consistency", "x"),
    step("get", "a", "--order", "x"),
    step("get", "a", "--sort-by", "x"),
    step("get", "a", "--keys-only", "--count-only"),
    step("get", "a", "--rev", "999"),
    step("get", "a", "--command-timeout", "1m0.5s"),
    *(step("txn", stdin=text) for text in TXNS),
    *(step("txn", "-i", stdin=text) for text in TXNS[:2]),
    *(step("txn", stdin=text) for text in BAD_TXNS),
    step("txn", "x", stdin=b"\n\n\n"),
    step("lease", "list"),
    step("lease", "timetolive", "ffff"),
    step("lease", "keep-alive", "7b", "--once"),
    step("lease", "keep-alive", "--once", "ffff"),
    step("lease", "keep-alive", "ffff"),
    step("lease", "revoke", "ffff"),
    step("lease", "revoke", "zz"),
    step("lease", "revoke"),
    step("lease", "grant"),
    step("lease", "grant", "x"),
    step("lease", "grant", "99999999999"),
    step("lease", "timetolive"),
    step("member", "list"),
    step("alarm", "list"),
    step("alarm", "list", "x"),
    step("watch"),
    step("watch", "--prefix", "a", "b"),
    step("watch", "b", "a"),
    step("del", "k"),
    step("del", "k"),
    step("del", "a", "b", "--prev-kv"),
    step("del"),
    step("del", "a", "b", "c"),
    step("del", "a", "--prefix", "--from-key"),
    step("del", "", "--prefix", "--prev-kv"),
    step("compaction"),
    step("compaction", "x"),
    step("compaction", "999"),
]

LAST_STEPS = [
    step("put", "a", "1"),
    step("compaction", "5"),
    step("compaction", "5"),
    step("compaction", "6", "--physical"),
    step("get", "a", "--rev", "2"),
    step("watch", "a", "--rev", "2"),
]

# Sizes on disk differ between two servers that hold the same, so these run against one.
ENDPOINT_STEPS = [
    step("endpoint", "status"),
    step("endpoint", "status", "--cluster"),
    step("endpoint", "hashkv"),
    step("endpoint", "hashkv", "--rev", "4"),
    step("endpoint", "hashkv", "--rev", "999999"),
    step("member", "list"),
]


def auth_steps(tag: str) -> list[Step]:
    """Users and roles, their names with tag in them so that several runs share a server."""
    user, role, other = f"u-{tag}", f"r-{tag}", f"s-{tag}"
    return [
        step("role", "add", role),
        step("role", "add", other),
        step("role", "grant-permission", role, "read", "a"),
        step("role", "grant-permission", role, "readwrite", "b", "c"),
        step("role", "grant-permission", role, "WRITE", "d\x01é", "--prefix"),
        step("role", "grant-permission", role, "Read", "e", "--from-key"),
        step("role", "grant-permission", role, "write", "f", "f5"),
        step("role", "grant-permission", role, "read", "", "--prefix"),
        step("role", "get", role),
        step("role", "get", other),
        step("role", "list"),
        step("user", "add", f"{user}:pw"),
        step("user", "add", f"{user}:x", "--new-user-password", "pw"),
        step("user", "add", f"{user}-cn", "--no-password"),
        step("user", "add", f"{user}-in", "--interactive=false", stdin=b"secret\n"),
        step("user", "passwd", user, "--interactive=false", stdin=b"secret"),
        step("user", "grant-role", user, role),
        step("user", "grant-role", user, other),
        step("user", "get", user),
        step("user", "get", user, "--detail"),
        step("user", "list"),
        step("user", "revoke-role", user, other),
        step("user", "get", f"{user}-cn"),
        step("user", "delete", f"{user}-cn"),
        step("role", "revoke-permission", role, "a"),
        step("role", "revoke-permission", role, "b", "c"),
        step("role", "revoke-permission", role, "d\x01é", "--prefix"),
        step("role", "revoke-permission", role, "e", "--from-key"),
        step("role", "revoke-permission", role, "", "--prefix"),
        step("role", "get", role),
        step("role", "delete", other),
        step("auth", "status"),
    ]


def one_of_each(steps: Sequence[Step]) -> list[Step]:
    """The first of each verb with each of its flags: enough where only the format differs."""
    kept: dict[tuple[str, ...], Step] = {}
    for each in steps:
        flags = [word for word in each.arguments[2:] if word.startswith("--")]
        kept.setdefault((*each.arguments[:2], *flags), each)
    return list(kept.values())


BAD_AUTH_STEPS = [
    step("role", "add"),
    step("role", "add", "r-simple"),
    step("role", "delete"),
    step("role", "delete", "nobody"),
    step("role", "get"),
    step("role", "get", "nobody"),
    step("role", "list", "x"),
    step("role", "grant-permission", "r-simple", "read"),
    step("role", "grant-permission", "r-simple", "rw", "a"),
    step("role", "grant-permission", "r-simple", "read", "a", "b", "--prefix"),
    step("role", "grant-permission", "r-simple", "read", "a", "b", "--from-key"),
    step("role", "grant-permission", "r-simple", "read", "a", "--prefix", "--from-key"),
    step("role", "grant-permission", "nobody", "read", "a"),
    step("role", "revoke-permission", "r-simple"),
    step("role", "revoke-permission", "r-simple", "nothing"),
    step("role", "revoke-permission", "r-simple", "a", "b", "--prefix"),
    step("user", "add"),
    step("user", "add", ":pw"),
    step("user", "add", "u-simple:pw"),
    step("user", "add", "dave"),
    step("user", "add", "", "--no-password"),
    step("user", "delete"),
    step("user", "delete", "nobody"),
    step("user", "get"),
    step("user", "get", "nobody"),
    step("user", "list", "x"),
    step("user", "passwd"),
    step("user", "passwd", "nobody", "--interactive=false", stdin=b"x"),
    step("user", "passwd", "dave"),
    step("user", "grant-role", "u-simple"),
    step("user", "grant-role", "u-simple", "nobody"),
    step("user", "grant-role", "nobody", "r-simple"),
    step("user", "revoke-role", "u-simple"),
    step("user", "revoke-role", "u-simple", "root"),
    step("auth", "status", "x"),
    step("auth", "enable", "x"),
    step("auth", "enable"),
    step("auth", "disable", "x"),
    step("auth", "disable"),
]

# Every kind of answer once, as bytes.
PROTOBUF_STEPS = [
    step("put", "p", "1"),
    step("put", "p", "2", "--prev-kv", "--lease=7b"),
    step("get", "p"),
    step("txn", stdin=b'version("p") > "0"\n\nput p 3\nget p\n\n\n'),
    step("del", "p", "--prev-kv"),
    step("lease", "list"),
    step("lease", "timetolive", "7b", "--keys"),
    step("lease", "keep-alive", "--once", "7b"),
]

PROTOBUF_READS = [
    step("member", "list"),
    step("alarm", "list"),
    step("endpoint", "status"),
    step("endpoint", "hashkv"),
    step("endpoint", "health"),
    step("get", "p", "--print-value-only"),
]

# On a member that has no space left.
ALARM_STEPS = [
    step("alarm", "list"),
    step("alarm", "list", "-w", "json"),
    step("alarm", "list", "-w", "fields"),
    step("endpoint", "health"),
    step("put", "a", "b"),
    step("alarm", "disarm", "-w", "json"),
    step("alarm", "disarm"),
]
