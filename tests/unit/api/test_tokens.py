"""Tokens: how long each kind lasts, and what ends it before that."""

from __future__ import annotations

from pathlib import Path
from random import Random

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from kvstore import errors
from kvstore.api.tokens import (
    METHODS,
    JwtTokens,
    SimpleTokens,
    TokenAhead,
    TokenOptions,
    open_jwt,
    parse_options,
)
from kvstore.config import parse_duration
from kvstore.pb.internal_pb2 import UserRecord
from kvstore.state.auth import AuthStore, Identity

WHO = Identity("u", 3)
SECRET = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def auth() -> AuthStore:
    auth = AuthStore()
    auth.enabled, auth.revision = True, 5
    auth.users["u"] = UserRecord(changed_revision=3)
    return auth


# Simple


@pytest.fixture
def simple(auth: AuthStore, clock: Clock) -> SimpleTokens:
    auth.tokens["abc.7"] = WHO
    return SimpleTokens(auth, applied_index=lambda: 10, ttl_s=300, now=clock, random=Random(1))


def test_a_token_in_use_lasts(simple: SimpleTokens, auth: AuthStore, clock: Clock) -> None:
    simple.tick()
    for _ in range(5):
        clock.now += 299
        assert simple.identity("abc.7") == WHO
        simple.tick()
    clock.now += 300
    with pytest.raises(errors.InvalidAuthToken):
        simple.identity("abc.7")
    assert auth.tokens, "it is over before anybody sweeps"
    simple.tick()
    assert auth.tokens == {}


def test_one_that_is_never_used_is_swept(simple: SimpleTokens, auth: AuthStore, clock: Clock) -> None:
    simple.tick()
    clock.now += 299
    simple.tick()
    assert auth.tokens
    clock.now += 1
    simple.tick()
    assert auth.tokens == {}


def test_other_users_changes_end_no_token(simple: SimpleTokens, auth: AuthStore) -> None:
    auth.revision += 1
    auth.users["v"] = UserRecord(changed_revision=6)
    assert simple.identity("abc.7") == WHO
    auth.users["u"].changed_revision = 6
    with pytest.raises(errors.InvalidAuthToken):
        simple.identity("abc.7")


def test_what_is_no_token(simple: SimpleTokens) -> None:
    for text in ("", "abc", "abc.", "abc.10", ".", "abc.-1", "abc.99999999999999999999999", "abc.\u0663"):
        with pytest.raises(errors.InvalidAuthToken) as refused:
            simple.identity(text)
        assert not isinstance(refused.value, TokenAhead), text
    with pytest.raises(TokenAhead):
        simple.identity("abc.11")


def test_letters_are_etcds_and_never_the_same(simple: SimpleTokens) -> None:
    drawn = {simple.letters() for _ in range(100)}
    assert len(drawn) == 100
    assert all(len(each) == 16 and each.isalpha() and each.isascii() for each in drawn)


# JWT


def write_keys(directory: Path, method: str) -> TokenOptions:
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if method.startswith("ES"):
        private = ec.generate_private_key(ec.SECP256R1())
    else:
        private = rsa.generate_private_key(65537, 2048)
    secret, public = directory / f"{method}.key", directory / f"{method}.pub"
    secret.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return TokenOptions("jwt", method, str(public), str(secret), 60)


@pytest.fixture
def options(tmp_path: Path) -> TokenOptions:
    (tmp_path / "secret").write_bytes(SECRET)
    return TokenOptions("jwt", "HS256", "", str(tmp_path / "secret"), 60)


def opened(options: TokenOptions, auth: AuthStore, clock: Clock) -> JwtTokens:
    return open_jwt(options, auth, wall_s=clock)


@pytest.mark.parametrize("method", ["RS256", "PS256", "ES256"])
def test_signed_by_one_and_read_by_whoever_has_the_public_key(
    tmp_path: Path, auth: AuthStore, clock: Clock, method: str
) -> None:
    options = write_keys(tmp_path, method)
    signer = opened(options, auth, clock)
    reader = opened(TokenOptions("jwt", method, options.public_file), auth, clock)
    token = signer.sign(WHO)
    assert signer.identity(token) == reader.identity(token) == WHO
    assert signer.signs and not reader.signs
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims == {"username": "u", "revision": 3, "exp": 1060}


def test_a_signed_token_ends_in_time_or_with_the_password(
    options: TokenOptions, auth: AuthStore, clock: Clock
) -> None:
    tokens = opened(options, auth, clock)
    token = tokens.sign(WHO)
    assert tokens.identity(token) == WHO
    auth.revision = 9
    assert tokens.identity(token) == WHO, "somebody else changed"
    auth.users["u"].changed_revision = 9
    with pytest.raises(errors.AuthStoreOld):
        tokens.identity(token)
    token = tokens.sign(Identity("u", 9))
    auth.ended_revision = 10
    with pytest.raises(errors.AuthStoreOld):
        tokens.identity(token)
    auth.ended_revision = 0
    assert tokens.identity(token)
    clock.now += 60
    for _ in range(2):
        with pytest.raises(errors.InvalidAuthToken):
            tokens.identity(token)
    with pytest.raises(TokenAhead):
        tokens.identity(tokens.sign(Identity("u", 10)))


def test_forgeries(options: TokenOptions, auth: AuthStore, clock: Clock) -> None:
    tokens = opened(options, auth, clock)
    claims: dict[str, object] = {"username": "u", "revision": 4, "exp": 2000}
    head, body, signature = tokens.sign(WHO).split(".")
    other_body = jwt.encode({**claims, "username": "root"}, SECRET, "HS256").split(".")[1]
    forged = [
        jwt.encode(claims, b"another" * 10, "HS256"),
        jwt.encode(claims, SECRET, "HS512"),
        jwt.encode(claims, None, "none"),  # type: ignore[arg-type]
        f"{head}.{other_body}.{signature}",
        f"{head}.{body}.",
        "no token",
        *(
            jwt.encode({k: v for k, v in claims.items() if k != name}, SECRET, "HS256")
            for name in ("username", "revision", "exp")
        ),
        jwt.encode({**claims, "username": 7}, SECRET, "HS256"),
        jwt.encode({**claims, "revision": "4"}, SECRET, "HS256"),
    ]
    assert tokens.identity(jwt.encode(claims, SECRET, "HS256")) == Identity("u", 4)
    for token in forged:
        with pytest.raises(errors.InvalidAuthToken):
            tokens.identity(token)


# --auth-token


def test_options() -> None:
    assert parse_options("simple", parse_duration) == TokenOptions("simple")
    text = "jwt,pub-key=/p,priv-key=/k,sign-method=ES384,ttl=10m"
    assert parse_options(text, parse_duration) == TokenOptions("jwt", "ES384", "/p", "/k", 600)
    assert parse_options("jwt,priv-key=/k,sign-method=HS256", parse_duration).ttl_s == 300
    assert "EdDSA" in METHODS and len(METHODS) == 13


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "simple,ttl=5m",
        "jwt",
        "jwt,sign-method=none,priv-key=/k",
        "jwt,sign-method=RS256",
        "jwt,sign-method=HS256,pub-key=/p",
        "jwt,sign-method=RS256,pub-key=/p,pub-key=/q",
        "jwt,sign-method=RS256,pub-key=/p,colour=red",
        "jwt,sign-method=RS256,pub-key=/p,ttl=soon",
        "jwt,sign-method=RS256,pub-key=/p,ttl=0",
    ],
)
def test_options_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(ValueError):
        parse_options(text, parse_duration)


def test_keys_that_do_not_fit(tmp_path: Path, auth: AuthStore, clock: Clock) -> None:
    (tmp_path / "other").mkdir()
    one, other = write_keys(tmp_path, "RS256"), write_keys(tmp_path / "other", "RS256")
    curve = write_keys(tmp_path, "ES256")
    (tmp_path / "junk").write_text("junk")
    mixed = TokenOptions("jwt", "RS256", one.public_file, other.private_file)
    for options in (
        mixed,
        TokenOptions("jwt", "RS256", curve.public_file, curve.private_file),
        TokenOptions("jwt", "RS256", str(tmp_path / "junk")),
        TokenOptions("jwt", "ES256", one.public_file),
    ):
        with pytest.raises(ValueError, match=options.method):
            opened(options, auth, clock)
    with pytest.raises(OSError, match="nowhere"):
        opened(TokenOptions("jwt", "RS256", str(tmp_path / "nowhere")), auth, clock)


def test_a_short_secret_is_no_secret(tmp_path: Path, auth: AuthStore, clock: Clock) -> None:
    (tmp_path / "short").write_bytes(b"short")
    with pytest.raises(ValueError, match="at least 32 bytes"):
        opened(TokenOptions("jwt", "HS256", "", str(tmp_path / "short")), auth, clock)
