"""Who a certificate speaks for: its names, and whether the settings let it in. Pure.

A certificate comes as SSLObject.getpeercert() gives it, a dict that is empty where nothing was verified. The
rules are those of Go's crypto/x509, which etcd's flags are worded in: a subject's CN is never a host name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kvstore.tls.settings import TlsSettings

Certificate = Mapping[str, Any]


def common_name(certificate: Certificate) -> str:
    """The subject's CN, the last where there are several; "" where there is none."""
    found = ""
    for attributes in certificate.get("subject", ()):
        for name, value in attributes:
            if name == "commonName":
                found = value
    return found


def dns_names(certificate: Certificate) -> list[str]:
    return [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]


def addresses(certificate: Certificate) -> list[str]:
    """In their canonical form."""
    found = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "IP Address"]
    return [str(ipaddress.ip_address(value.strip())) for value in found]


def speaks_for(certificate: Certificate, host: str) -> bool:
    """Whether host, a name or an address, is among the certificate's alternative names."""
    host = host.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(host)) in addresses(certificate)
    except ValueError:
        return any(_matches(pattern, host) for pattern in dns_names(certificate))


def _matches(pattern: str, host: str) -> bool:
    """A `*` stands for one whole label, the first (RFC 6125)."""
    pattern, host = pattern.lower().rstrip("."), host.lower().rstrip(".")
    if not pattern or not host:
        return False
    if not pattern.startswith("*."):
        return pattern == host
    first, dot, rest = host.partition(".")
    return bool(first and dot) and rest == pattern[2:]


def refusal(settings: TlsSettings, certificate: Certificate) -> str:
    """Why the settings' allowed names do not let this certificate in; "" where they do, or name nobody. As in
    etcd they hold for whoever is dialed, too, and only where a certificate was verified at all."""
    if settings.allowed_cns and common_name(certificate) not in settings.allowed_cns:
        why = f'its CN is "{common_name(certificate)}"'
    elif settings.allowed_hostnames and not any(
        speaks_for(certificate, host) for host in settings.allowed_hostnames
    ):
        names = [*dns_names(certificate), *addresses(certificate)]
        why = f"it is for {', '.join(names) or 'no host'}"
    else:
        return ""
    return f"client certificate authentication failed: {why}"


def revocation(revoked: frozenset[int], serials: Iterable[int]) -> str:
    """Why a chain with these serial numbers is refused; "" where none of them is revoked."""
    for serial in serials:
        if serial in revoked:
            return f"transport: certificate serial {serial:x} revoked"
    return ""


def address_refusal(certificate: Certificate, address: str) -> str | None:
    """etcd's rule for a member that dials in: with addresses in its SAN the certificate must be shown from one
    of them, or from a host that one of its DNS names leads to. None where only DNS can tell; see by_name()."""
    own, names = addresses(certificate), dns_names(certificate)
    if not own and not names:
        return ""
    if own and str(ipaddress.ip_address(address)) in own:
        return ""
    if names:
        return None
    listed = ", ".join(own)
    return f"x509: certificate is valid for {listed}, not {address}"


async def name_refusal(
    certificate: Certificate,
    address: str,
    *,
    names_of: Callable[[str], Any],
    addresses_of: Callable[[str], Any],
) -> str:
    """The part of the rule that asks DNS, backwards and then forwards. names_of(address) and addresses_of(name)
    are awaited; an OSError of theirs is an answer without names."""
    patterns = dns_names(certificate)
    for name in await _asked(names_of, address):
        if any(_ends(pattern, name) for pattern in patterns):
            return ""
    for name in patterns:
        if not name.startswith("*.") and address in await _asked(addresses_of, name):
            return ""
    return f'tls: "{address}" does not match any of DNSNames [{" ".join(patterns)}]'


def _ends(pattern: str, name: str) -> bool:
    name = name.removesuffix(".")
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


async def _asked(ask: Callable[[str], Any], question: str) -> list[str]:
    try:
        return list(await ask(question))
    except OSError:
        return []
