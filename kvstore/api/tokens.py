"""Tokens: what a client shows instead of its password from then on.

simple   random letters and the index of the log entry that made every member know it. Ends when it was not used
         on this member for --auth-token-ttl, with a restart of the member, or with the password.
jwt      signed, so that nobody has to remember it: who, the auth revision at which the password was right, and
         until when. Ends then, or with the password.

Either way a token is no more than an Identity (kvstore/state/auth.py), and whether that holds is state's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from kvstore import errors
from kvstore.state.auth import AuthStore, Identity

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTER_COUNT = 16
SWEEP_EVERY_S = 1.0
VERIFIED_MAX = 10_000
TTL_S = 300.0
_FAMILIES = ("RS", "PS", "ES", "HS")
METHODS = (*(f"{family}{size}" for family in _FAMILIES for size in (256, 384, 512)), "EdDSA")


class TokenAhead(errors.InvalidAuthToken):
    """It was made by an entry, or at an auth revision, that this member has not come to yet."""


class SimpleTokens:
    """The clock beside AuthStore.tokens, and what takes them out again."""

    def __init__(
        self,
        auth: AuthStore,
        *,
        applied_index: Callable[[], int],
        ttl_s: float,
        now: Callable[[], float],
        random: Random,
    ) -> None:
        """random: of a kind that cannot be guessed, but in a simulation."""
        self._auth = auth
        self._applied_index = applied_index
        self._ttl_s = ttl_s
        self._now = now
        self._random = random
        self._deadlines: dict[str, float] = {}
        self._sweep_at = 0.0

    def letters(self) -> str:
        return "".join(self._random.choice(LETTERS) for _ in range(LETTER_COUNT))

    def identity(self, token: str) -> Identity:
        """Whose it is; its time begins anew. Raises InvalidAuthToken."""
        identity = self._auth.tokens.get(token)
        if identity is None:
            _, _, index = token.rpartition(".")
            if index.isdecimal() and len(index) < 20 and int(index) > self._applied_index():
                raise TokenAhead
            raise errors.InvalidAuthToken
        now = self._now()
        if self._deadlines.get(token, now + 1) <= now or not self._auth.holds(identity):
            raise errors.InvalidAuthToken
        self._deadlines[token] = now + self._ttl_s
        return identity

    def tick(self) -> None:
        """Starts the time of those granted since, and takes out those whose time is over."""
        now, tokens, deadlines = self._now(), self._auth.tokens, self._deadlines
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_EVERY_S
        for token in [each for each, deadline in deadlines.items() if deadline <= now or each not in tokens]:
            tokens.pop(token, None)
            del deadlines[token]
        for token in tokens:
            deadlines.setdefault(token, now + self._ttl_s)


class JwtTokens:
    def __init__(
        self,
        auth: AuthStore,
        *,
        method: str,
        verify_key: Any,
        sign_key: Any,
        ttl_s: float,
        wall_s: Callable[[], float],
    ) -> None:
        """sign_key None: tokens are made elsewhere, this member only reads them. wall_s: seconds since 1970."""
        self._auth = auth
        self._method = method
        self._verify_key = verify_key
        self._sign_key = sign_key
        self._ttl_s = ttl_s
        self._wall_s = wall_s
        self._verified: dict[str, tuple[Identity, float]] = {}

    @property
    def signs(self) -> bool:
        return self._sign_key is not None

    def sign(self, identity: Identity) -> str:
        """Takes a millisecond with a long RSA key: not for the loop's own thread."""
        import jwt

        claims = {
            "username": identity.user,
            "revision": identity.revision,
            "exp": int(self._wall_s() + self._ttl_s),
        }
        return jwt.encode(claims, self._sign_key, self._method)

    def identity(self, token: str) -> Identity:
        """Raises InvalidAuthToken, and AuthStoreOld where the user changed since it was made."""
        known = self._verified.get(token)
        if known is None:
            known = self._verify(token)
            if len(self._verified) >= VERIFIED_MAX:
                self._verified.clear()
            self._verified[token] = known
        identity, ends_at = known
        if ends_at <= self._wall_s():
            del self._verified[token]
            raise errors.InvalidAuthToken
        if identity.revision > self._auth.revision:
            raise TokenAhead
        if not self._auth.holds(identity):
            raise errors.AuthStoreOld
        return identity

    def _verify(self, token: str) -> tuple[Identity, float]:
        import jwt

        try:
            claims = jwt.decode(token, self._verify_key, [self._method], options={"verify_exp": False})
        except jwt.PyJWTError:
            raise errors.InvalidAuthToken from None
        user, revision, ends_at = claims.get("username"), claims.get("revision"), claims.get("exp")
        if not isinstance(user, str) or not isinstance(revision, int | float) or revision < 0:
            raise errors.InvalidAuthToken
        if not isinstance(ends_at, int | float):
            raise errors.InvalidAuthToken  # one that never ends is none of ours
        return Identity(user, int(revision)), float(ends_at)

    def tick(self) -> None:
        """Nothing is remembered that would have to be forgotten in time."""


Tokens = SimpleTokens | JwtTokens


@dataclass(frozen=True)
class TokenOptions:
    """--auth-token as it was given: "simple", or "jwt,sign-method=…,pub-key=FILE,priv-key=FILE,ttl=DURATION"."""

    kind: str
    method: str = ""
    public_file: str = ""
    private_file: str = ""
    ttl_s: float = TTL_S


def parse_options(text: str, parse_duration: Callable[[str], float]) -> TokenOptions:
    """Raises ValueError that says what is wrong."""
    kind, *rest = text.split(",")
    given: dict[str, str] = {}
    for part in rest:
        name, equals, value = part.partition("=")
        if not equals or name in given or name not in ("sign-method", "pub-key", "priv-key", "ttl"):
            raise ValueError(f"invalid token option {part!r}")
        given[name] = value
    if kind == "simple":
        if given:
            raise ValueError("simple takes no options; --auth-token-ttl says how long a token lasts")
        return TokenOptions("simple")
    if kind != "jwt":
        raise ValueError("must be simple, or jwt with its options")
    method = given.get("sign-method", "")
    if method not in METHODS:
        raise ValueError(f"sign-method must be one of {', '.join(METHODS)}")
    public_file, private_file = given.get("pub-key", ""), given.get("priv-key", "")
    if not private_file and (method.startswith("HS") or not public_file):
        raise ValueError(
            "priv-key is missing" if method.startswith("HS") else "pub-key or priv-key is missing"
        )
    ttl_s = parse_duration(given["ttl"]) if "ttl" in given else TTL_S
    if ttl_s <= 0:
        raise ValueError("ttl must be positive")
    return TokenOptions("jwt", method, public_file, private_file, ttl_s)


def open_jwt(options: TokenOptions, auth: AuthStore, *, wall_s: Callable[[], float]) -> JwtTokens:
    """Reads the keys. Raises ValueError for keys that do not fit, OSError. PyJWT is loaded here and not before: with
    it comes all of `cryptography`, which a member without such tokens has no use for."""
    import jwt

    public, private = _content(options.public_file), _content(options.private_file)
    if options.method.startswith("HS"):
        bytes_min = int(options.method[2:]) // 8
        if len(private) < bytes_min:
            raise ValueError(f"{options.private_file}: {options.method} needs at least {bytes_min} bytes")
        return JwtTokens(
            auth,
            method=options.method,
            verify_key=private,
            sign_key=private,
            ttl_s=options.ttl_s,
            wall_s=wall_s,
        )
    algorithm = jwt.get_algorithm_by_name(options.method)
    try:
        sign_key: Any = algorithm.prepare_key(private) if private else None
        verify_key: Any = algorithm.prepare_key(public) if public else sign_key.public_key()
        if sign_key is not None:
            probe = algorithm.sign(b"probe", sign_key)
            if not algorithm.verify(b"probe", verify_key, probe):
                raise ValueError("pub-key and priv-key do not belong together")
    except (jwt.PyJWTError, AttributeError, TypeError, ValueError) as problem:
        files = ", ".join(each for each in (options.public_file, options.private_file) if each)
        raise ValueError(f"{options.method} with {files}: {problem}") from None
    return JwtTokens(
        auth,
        method=options.method,
        verify_key=verify_key,
        sign_key=sign_key,
        ttl_s=options.ttl_s,
        wall_s=wall_s,
    )


def _content(path: str) -> bytes:
    if not path:
        return b""
    with open(path, "rb") as file:
        return file.read()
