"""--discovery-srv: the endpoints that a domain's SRV records name, as etcd's clients look them up.

_etcd-client-ssl._tcp.DOMAIN gives https endpoints, _etcd-client._tcp.DOMAIN http ones; with a name they are
_etcd-client-ssl-NAME._tcp.DOMAIN and so on. Python resolves no SRV records by itself, so dnspython does; it is
an extra, as few need it.
"""

from __future__ import annotations

import click

from kvstore.cli.failures import CommandFailed


def discover(domain: str, name: str, *, insecure: bool) -> tuple[str, ...]:
    """insecure: take http endpoints too. Empty where there are only such. Raises CommandFailed."""
    try:
        from dns import exception, resolver
    except ImportError:
        raise CommandFailed("--discovery-srv needs dnspython: pip install 'kvstore[dns]'") from None

    found: list[str] = []
    problems: list[str] = []
    suffix = f"-{name}" if name else ""
    for scheme, service in (("https", "etcd-client-ssl"), ("http", "etcd-client")):
        record = f"_{service}{suffix}._tcp.{domain}"
        try:
            answers = resolver.resolve(record, "SRV")
        except exception.DNSException as problem:
            problems.append(f"{record}: {problem}")
            continue
        for each in sorted(answers, key=lambda answer: (answer.priority, -answer.weight, str(answer.target))):
            found.append(f"{scheme}://{str(each.target).removesuffix('.')}:{each.port}")
    if not found:
        raise CommandFailed(f"no endpoint in DNS ({'; '.join(problems)})")
    for endpoint in found:
        if not insecure and endpoint.startswith("http:"):
            click.echo(f'ignoring discovered insecure endpoint "{endpoint}"', err=True)
    return tuple(endpoint for endpoint in found if insecure or endpoint.startswith("https:"))
