"""Who is ready, as DNS records: one zone, made of the view, answered from memory.

    SERVICE.zone             A, AAAA    the addresses that are ready, in an order drawn anew each time
    _SERVICE._tcp.zone       SRV        each with its weight and port, and its address in the same answer
    ADDRESS.SERVICE.zone     A, AAAA    what an SRV names: 10-0-0-5.web.zone, 2001-db8--1.web.zone
    zone                     SOA, NS

A service that is served and has nobody ready is a name without data; any other name of the zone does not exist, and
names outside of it are refused. An instance that announced a host name is in SRV alone: DNS has no list of names for
A. Pure: the order comes from the random source it was given.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from random import Random
from typing import TypeVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from kvstore.readiness.instance import Instance, split_address

IN, A, AAAA, SRV, SOA, NS, ANY = (
    dns.rdataclass.IN,
    dns.rdatatype.A,
    dns.rdatatype.AAAA,
    dns.rdatatype.SRV,
    dns.rdatatype.SOA,
    dns.rdatatype.NS,
    dns.rdatatype.ANY,
)
T = TypeVar("T")
PAYLOAD_BYTES = 1232  # what fits one packet on nearly every path: what DNS software agreed on in 2020
PLAIN_BYTES = 512
REFRESH_S, RETRY_S, EXPIRE_S = 60, 10, 3600
ADDED_MAX = 50  # addresses that are sent along with SRV records


class ServiceRecords:
    """One service: a driver (kvstore/routing/driver.py)."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self.instances: list[Instance] = []

    def reconcile(self, instances: Sequence[Instance]) -> None:
        self.instances = [one for one in instances if one.is_ready and one.weight > 0]
        self._zone.serial += 1


class Zone:
    def __init__(self, origin: str, services: Sequence[str], *, ttl_s: int, random: Random) -> None:
        """Raises ValueError where the zone's name is none."""
        try:
            self.origin = dns.name.from_text(origin)
        except dns.exception.DNSException as problem:
            raise ValueError(f"{origin!r} is not a name for a zone: {problem}") from None
        self.serial = 1
        self._ttl_s = ttl_s
        self._random = random
        self.services = {service.lower(): ServiceRecords(self) for service in services}

    def answer(self, packet: bytes, *, tcp: bool) -> bytes | None:
        """The reply's bytes; None for what is no question at all, and gets none."""
        try:
            query = dns.message.from_wire(packet)
        except dns.message.ShortHeader:
            return None
        except (dns.exception.DNSException, ValueError):
            return _malformed(packet)
        if query.flags & dns.flags.QR:
            return None  # an answer: two servers would answer each other for ever
        reply = dns.message.make_response(query, our_payload=PAYLOAD_BYTES)
        reply.set_rcode(self._fill(query, reply))
        return _encoded(reply, 65_535 if tcp else _room(query))

    def _fill(self, query: dns.message.Message, reply: dns.message.Message) -> dns.rcode.Rcode:
        if query.opcode() != dns.opcode.QUERY:
            return dns.rcode.NOTIMP
        if len(query.question) != 1:
            return dns.rcode.FORMERR
        question = query.question[0]
        if question.rdclass != IN or not question.name.is_subdomain(self.origin):
            return dns.rcode.REFUSED
        reply.flags |= dns.flags.AA
        exists = self._answer(question.name, question.rdtype, reply)
        if not reply.answer:
            reply.authority.append(self._soa())
        return dns.rcode.NOERROR if exists else dns.rcode.NXDOMAIN

    def _answer(self, name: dns.name.Name, kind: dns.rdatatype.RdataType, reply: dns.message.Message) -> bool:
        """Whether the name exists; what it has of that kind is in the reply."""
        if name == self.origin:
            if kind in (SOA, ANY):
                reply.answer.append(self._soa())
            if kind in (NS, ANY):
                reply.answer.append(_records(name, self._ttl_s, NS, [self._name("ns").to_text()]))
            return True
        asked = name.relativize(self.origin).to_text().lower()
        if asked in self.services:
            self._addresses(name, kind, self.services[asked].instances, reply.answer)
            return True
        if asked.startswith("_") and asked.endswith("._tcp") and asked[1:-5] in self.services:
            if kind in (SRV, ANY):
                self._located(name, asked[1:-5], reply)
            return True
        label, _, service = asked.partition(".")
        if service in self.services:
            same = [one for one in self.services[service].instances if _label(one) == label]
            self._addresses(name, kind, same[:1], reply.answer)
            return bool(same)
        return False

    def _addresses(
        self,
        name: dns.name.Name,
        kind: dns.rdatatype.RdataType,
        instances: Sequence[Instance],
        section: list[dns.rrset.RRset],
    ) -> None:
        for version, wanted in ((4, A), (6, AAAA)):
            if kind not in (wanted, ANY):
                continue
            hosts = {host for one in instances if (host := _host(one)) and _version(host) == version}
            if hosts:
                section.append(_records(name, self._ttl_s, wanted, self._shuffled(sorted(hosts))))

    def _located(self, name: dns.name.Name, service: str, reply: dns.message.Message) -> None:
        instances = self._shuffled(self.services[service].instances)
        records = []
        for one in instances:
            target = self._target(one, service)
            records.append(f"0 {one.weight} {split_address(one.address)[1]} {target.to_text()}")
            if _version(_host(one)) and len(reply.additional) < ADDED_MAX:
                for kind in (A, AAAA):
                    self._addresses(target, kind, [one], reply.additional)
        if records:
            reply.answer.append(_records(name, self._ttl_s, SRV, records))

    def _target(self, instance: Instance, service: str) -> dns.name.Name:
        if not _version(_host(instance)):
            return dns.name.from_text(_host(instance))
        return self._name(f"{_label(instance)}.{service}")

    def _name(self, below: str) -> dns.name.Name:
        return dns.name.from_text(below, self.origin)

    def _soa(self) -> dns.rrset.RRset:
        """The last number is how long a name that does not exist is remembered: as long as one that does."""
        names = f"{self._name('ns').to_text()} {self._name('hostmaster').to_text()}"
        text = f"{names} {self.serial & 0xFFFFFFFF} {REFRESH_S} {RETRY_S} {EXPIRE_S} {self._ttl_s}"
        return _records(self.origin, self._ttl_s, SOA, [text])

    def _shuffled(self, items: Sequence[T]) -> list[T]:
        return self._random.sample(items, len(items))


def _records(
    name: dns.name.Name, ttl_s: int, kind: dns.rdatatype.RdataType, texts: Sequence[str]
) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(name, ttl_s, IN, kind, list(texts))


def _host(instance: Instance) -> str:
    return split_address(instance.address)[0]


def _version(host: str) -> int:
    """4 or 6; 0 for a name."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 0


def _label(instance: Instance) -> str:
    """An address as a label of a name; of IPv6 the colons become dashes, and none stands at an end."""
    label = _host(instance).lower().replace(".", "-").replace(":", "-")
    return f"{'0' if label.startswith('-') else ''}{label}{'0' if label.endswith('-') else ''}"


def _room(query: dns.message.Message) -> int:
    return max(PLAIN_BYTES, min(query.payload, PAYLOAD_BYTES)) if query.edns >= 0 else PLAIN_BYTES


def _encoded(reply: dns.message.Message, room: int) -> bytes:
    """Without what was only sent along, where that makes it fit; else empty and marked as truncated, so that the
    client asks again over TCP."""
    try:
        return reply.to_wire(max_size=room)
    except dns.exception.TooBig:
        reply.additional.clear()
    try:
        return reply.to_wire(max_size=room)
    except dns.exception.TooBig:
        reply.answer.clear()
        reply.authority.clear()
        reply.flags |= dns.flags.TC
        return reply.to_wire(max_size=room)


def _malformed(packet: bytes) -> bytes | None:
    """FORMERR under the question's number; nothing for what says that it is an answer."""
    if packet[2] & 0x80:
        return None
    return packet[:2] + bytes((0x80 | packet[2] & 0x79, dns.rcode.FORMERR)) + bytes(8)
