"""Which endpoint to ask next. Pure: it is told what happened and when, and does no I/O.

The policy: stay with the endpoint that answered last; go on to the others in their order; an endpoint that
failed is asked last until its rest is over, and its rest doubles with each failure. Nobody is ever left out:
with every endpoint resting, the one whose rest ends first is tried first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_PORT = 2379
REST_FIRST_S = 1.0
REST_LONGEST_S = 30.0


@dataclass(frozen=True)
class Endpoint:
    """name: as it was given, for messages and lookups. target: host:port. secure: whether its scheme asks for
    TLS; None without a scheme, which leaves it to the client's settings, as in etcdctl."""

    name: str
    target: str
    secure: bool | None = None


@dataclass(slots=True)
class _Record:
    failure_count: int = 0
    rests_until: float = 0.0


class EndpointChoice:
    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        if not endpoints:
            raise ValueError("at least one endpoint is needed")
        self._endpoints = list(endpoints)
        self._records = {endpoint: _Record() for endpoint in endpoints}
        self._pinned = self._endpoints[0]

    @property
    def endpoints(self) -> list[Endpoint]:
        return list(self._endpoints)

    @property
    def pinned(self) -> Endpoint:
        return self._pinned

    def order(self, now: float) -> list[Endpoint]:
        """Every endpoint once, the one to ask first at the head. now: monotonic seconds."""
        start = self._endpoints.index(self._pinned)
        turned = self._endpoints[start:] + self._endpoints[:start]
        return sorted(
            turned, key=lambda endpoint: self._rest_end(endpoint, now)
        )  # stable: turned breaks ties

    def answered(self, endpoint: Endpoint) -> None:
        """It served a request (an error of the request's own counts as service)."""
        self._pinned = endpoint
        record = self._records[endpoint]
        record.failure_count, record.rests_until = 0, 0.0

    def failed(self, endpoint: Endpoint, now: float) -> None:
        """It could not be reached, or could not serve."""
        record = self._records[endpoint]
        rest = min(REST_FIRST_S * 2**record.failure_count, REST_LONGEST_S)
        record.failure_count = min(record.failure_count + 1, 16)
        record.rests_until = now + rest

    def _rest_end(self, endpoint: Endpoint, now: float) -> float:
        end = self._records[endpoint].rests_until
        return end if end > now else 0.0


def parse_endpoints(text: str | Sequence[str]) -> list[Endpoint]:
    """Accepts "host:port", "http://host:port", "https://host:port", one, several, or several in one string
    with commas between. A missing port is 2379. Repeated endpoints count once."""
    words = text.split(",") if isinstance(text, str) else [part for item in text for part in item.split(",")]
    found = [_parse(word.strip()) for word in words if word.strip()]
    if not found:
        raise ValueError(f"no endpoint in {text!r}")
    return list(dict.fromkeys(found))


def _parse(word: str) -> Endpoint:
    scheme, separator, rest = word.partition("://")
    if not separator:
        scheme, rest = "", word
    if scheme in ("unix", "unixs"):
        return Endpoint(word, f"unix:{rest}", scheme == "unixs")
    if scheme not in ("", "http", "https"):
        raise ValueError(f"endpoint {word!r}: the scheme {scheme!r} is not http or https")
    host, port = _split_port(rest.split("/", 1)[0])
    if not host:
        raise ValueError(f"endpoint {word!r} has no host")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"endpoint {word!r}: {port!r} is not a port")
    return Endpoint(word, f"{host}:{port}", scheme == "https" if scheme else None)


def _split_port(address: str) -> tuple[str, str]:
    """A bare IPv6 address is taken for a host without a port, as brackets are what a port after one needs."""
    if address.startswith("["):
        host, bracket, rest = address.partition("]")
        return host + bracket, rest.removeprefix(":") or str(DEFAULT_PORT)
    if address.count(":") > 1:
        return f"[{address}]", str(DEFAULT_PORT)
    host, colon, port = address.partition(":")
    return host, port if colon else str(DEFAULT_PORT)
