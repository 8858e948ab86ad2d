"""Endpoints from SRV records, answered by a DNS server of our own on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from kvstore.cli.discovery import discover
from kvstore.cli.failures import CommandFailed
from kvstore.cli.main import main

RECORDS = {
    "_etcd-client._tcp.example.test.": ["10 5 2379 b.example.test.", "0 5 2379 a.example.test."],
    "_etcd-client-ssl-east._tcp.example.test.": ["0 0 4001 e.example.test."],
    "_etcd-client-east._tcp.example.test.": ["0 0 4001 f.example.test."],
    "_etcd-client._tcp.nobody.test.": ["0 0 1 127.0.0.1."],
}


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                data, sender = sock.recvfrom(4096)
                if not data:
                    return
                query = dns.message.from_wire(data)
                reply = dns.message.make_response(query)
                name = query.question[0].name.to_text()
                if name in RECORDS:
                    reply.answer.append(dns.rrset.from_text(name, 60, "IN", "SRV", *RECORDS[name]))
                else:
                    reply.set_rcode(dns.rcode.NXDOMAIN)
                sock.sendto(reply.to_wire(), sender)

        thread = threading.Thread(target=serve)
        thread.start()
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = sock.getsockname()[1]
        monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
        yield
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stop:
            stop.sendto(b"", sock.getsockname())
        thread.join()


def test_endpoints_in_the_order_of_their_priority() -> None:
    found = discover("example.test", "", insecure=True)
    assert found == ("http://a.example.test:2379", "http://b.example.test:2379")


def test_those_with_tls_come_first_and_may_be_the_only_ones(capsys: pytest.CaptureFixture[str]) -> None:
    both = ("https://e.example.test:4001", "http://f.example.test:4001")
    assert discover("example.test", "east", insecure=True) == both
    assert capsys.readouterr().err == ""
    assert discover("example.test", "east", insecure=False) == both[:1]
    assert capsys.readouterr().err == ('ignoring discovered insecure endpoint "http://f.example.test:4001"\n')


def test_a_domain_without_records_is_told() -> None:
    with pytest.raises(CommandFailed, match=r"no endpoint in DNS .*_etcd-client\._tcp\.nothing\.test"):
        discover("nothing.test", "", insecure=True)


def test_a_command_asks_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["-d", "nobody.test"], ["--discovery-srv=nobody.test", "--endpoints=127.0.0.1:9"]):
        assert main([*flags, "get", "a"]) == 1
        assert capsys.readouterr().err.startswith("Error: cannot reach http://127.0.0.1:1 ")


def test_what_is_left_out_leaves_the_given_endpoints(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["-d", "example.test", "--insecure-discovery=false", "--endpoints=127.0.0.1:1"]
    assert main([*flags, "get", "a"]) == 1
    *ignored, told = capsys.readouterr().err.splitlines()
    assert len(ignored) == 2
    assert told.startswith("Error: cannot reach 127.0.0.1:1 ")
