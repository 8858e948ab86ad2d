from __future__ import annotations

import random

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest

from kvstore.readiness.instance import Instance, State
from kvstore.routing.dns_zone import Zone


def instance(address: str, *, state: State = State.READY, weight: int = 100) -> Instance:
    return Instance(
        service="web",
        id=address.replace("[", "").replace("]", ""),
        address=address,
        state=state,
        weight=weight,
    )


@pytest.fixture
def zone() -> Zone:
    made = Zone("kv.internal", ["web", "Idle", "a.b"], ttl_s=1, random=random.Random(1))
    made.services["web"].reconcile(
        [
            instance("10.0.0.1:8080"),
            instance("10.0.0.2:8081", weight=50),
            instance("10.0.0.3:8080", state=State.DRAINING),
            instance("10.0.0.4:8080", weight=0),
            instance("[2001:db8::1]:8080"),
            instance("backend.example.com:443"),
        ]
    )
    return made


def ask(zone: Zone, name: str, kind: str, *, tcp: bool = False, edns: int = -1) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=edns, payload=4096 if edns >= 0 else None)
    reply = zone.answer(query.to_wire(), tcp=tcp)
    assert reply is not None
    answer = dns.message.from_wire(reply)
    assert answer.id == query.id
    assert query.is_response(answer)
    return answer


def texts(reply: dns.message.Message) -> list[str]:
    return sorted(record.to_text() for rrset in reply.answer for record in rrset)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.kv.internal", "A", ["10.0.0.1", "10.0.0.2"]),
        ("WEB.KV.Internal", "A", ["10.0.0.1", "10.0.0.2"]),
        ("web.kv.internal", "AAAA", ["2001:db8::1"]),
        ("web.kv.internal", "ANY", ["10.0.0.1", "10.0.0.2", "2001:db8::1"]),
        ("web.kv.internal", "TXT", []),
        ("idle.kv.internal", "A", []),
        ("a.b.kv.internal", "A", []),
        ("10-0-0-2.web.kv.internal", "A", ["10.0.0.2"]),
        ("2001-db8--1.web.kv.internal", "AAAA", ["2001:db8::1"]),
        ("_idle._tcp.kv.internal", "SRV", []),
        (
            "_web._tcp.kv.internal",
            "SRV",
            [
                "0 100 443 backend.example.com.",
                "0 100 8080 10-0-0-1.web.kv.internal.",
                "0 100 8080 2001-db8--1.web.kv.internal.",
                "0 50 8081 10-0-0-2.web.kv.internal.",
            ],
        ),
        ("kv.internal", "NS", ["ns.kv.internal."]),
    ],
)
def test_what_is_ready(zone: Zone, name: str, kind: str, expected: list[str]) -> None:
    reply = ask(zone, name, kind)
    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.flags & dns.flags.AA
    assert texts(reply) == expected
    assert [rrset.rdtype for rrset in reply.authority] == ([] if expected else [dns.rdatatype.SOA])


def test_an_srv_brings_its_addresses(zone: Zone) -> None:
    reply = ask(zone, "_web._tcp.kv.internal", "SRV", edns=0)
    found = {rrset.name.to_text(): rrset[0].to_text() for rrset in reply.additional}
    assert found == {
        "10-0-0-1.web.kv.internal.": "10.0.0.1",
        "10-0-0-2.web.kv.internal.": "10.0.0.2",
        "2001-db8--1.web.kv.internal.": "2001:db8::1",
    }


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nothing.kv.internal", dns.rcode.NXDOMAIN),
        ("10-0-0-3.web.kv.internal", dns.rcode.NXDOMAIN),
        ("_web._udp.kv.internal", dns.rcode.NXDOMAIN),
        ("example.com", dns.rcode.REFUSED),
    ],
)
def test_what_is_not_there(zone: Zone, name: str, code: int) -> None:
    assert ask(zone, name, "A").rcode() == code


def test_the_order_changes_and_the_set_follows(zone: Zone) -> None:
    orders = {tuple(one.to_text() for one in ask(zone, "web.kv.internal", "A").answer[0]) for _ in range(50)}
    assert len(orders) == 2
    serial = ask(zone, "kv.internal", "SOA").answer[0][0].serial
    zone.services["web"].reconcile([instance("10.0.0.9:80")])
    assert texts(ask(zone, "web.kv.internal", "A")) == ["10.0.0.9"]
    assert ask(zone, "kv.internal", "SOA").answer[0][0].serial == serial + 1


def test_what_does_not_fit_is_asked_again_over_tcp(zone: Zone) -> None:
    zone.services["web"].reconcile([instance(f"10.0.1.{n}:80") for n in range(200)])
    short = ask(zone, "web.kv.internal", "A")
    assert short.flags & dns.flags.TC
    assert not short.answer
    assert ask(zone, "web.kv.internal", "A", edns=0).flags & dns.flags.TC
    whole = ask(zone, "web.kv.internal", "A", tcp=True)
    assert not whole.flags & dns.flags.TC
    assert len(texts(whole)) == 200


def test_what_is_no_question_gets_no_answer_or_an_error(zone: Zone) -> None:
    query = dns.message.make_query("web.kv.internal", "A")
    assert zone.answer(b"short", tcp=False) is None
    assert zone.answer(dns.message.make_response(query).to_wire(), tcp=False) is None
    for end in range(12, len(query.to_wire())):
        reply = zone.answer(query.to_wire()[:end], tcp=False)
        assert reply is not None
        assert dns.message.from_wire(reply).rcode() == dns.rcode.FORMERR
    query.set_opcode(dns.opcode.UPDATE)
    reply = zone.answer(query.to_wire(), tcp=False)
    assert reply is not None
    assert dns.message.from_wire(reply).rcode() in (dns.rcode.NOTIMP, dns.rcode.FORMERR)
    source = random.Random(2)
    for _ in range(2_000):  # and nothing kills it
        zone.answer(source.randbytes(source.randrange(80)), tcp=bool(source.randrange(2)))


def test_a_zone_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a name for a zone"):
        Zone("a..b", ["web"], ttl_s=0, random=random.Random(1))
