"""Who may speak to the HTTP side: the Host a request must name, and the origins a browser may come from.

The list of hosts is the defence against DNS rebinding (CVE-2018-5702) and holds without TLS only, because a
certificate names its hosts itself. Both lists allow everything where they hold "*", which is the default of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ANY = "*"
METHODS = "POST, GET, OPTIONS, PUT, DELETE"
HEADERS = "accept, content-type, authorization"


class AccessControl:
    def __init__(self, *, origins: Sequence[str], hosts: Sequence[str]) -> None:
        self._origins = frozenset(origins) or {ANY}
        self._hosts = frozenset(hosts) or {ANY}

    def host_allowed(self, host: str) -> bool:
        """host as a request's Host header gives it."""
        return ANY in self._hosts or hostname(host) in self._hosts

    def origin_allowed(self, origin: str) -> bool:
        return ANY in self._origins or origin in self._origins

    def cors_headers(self, origin: str) -> Mapping[str, str]:
        """What a reply to a page from this origin ("" where none is named) carries; nothing where refused."""
        if ANY in self._origins:
            allowed = ANY
        elif origin and origin in self._origins:
            allowed = origin
        else:
            return {}
        headers = {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Origin": allowed,
            "Access-Control-Allow-Headers": HEADERS,
        }
        if allowed != ANY:
            headers["Vary"] = "Origin"
        return headers


def hostname(host: str) -> str:
    """Without the port, and without an IPv6 address's brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def host_refusal(host: str) -> str:
    name = hostname(host)
    return (
        f'The Host header names "{name}", which is not among the hosts this member answers for.\n'
        "Without TLS this is what protects it from DNS rebinding (CVE-2018-5702). Use TLS, or allow the host:\n"
        f"  --host-whitelist={name}\n"
    )
