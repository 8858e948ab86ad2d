"""What the flags say of TLS, for the clients' side and the peers'. Pure: no file is looked at here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kvstore.tls import ciphers

Side = Literal["client", "peer"]
VERSIONS = ("TLS1.2", "TLS1.3")

# Name to (kind, default, help); kind is text, list, switch or years.
FLAGS: dict[str, tuple[str, str, str]] = {
    "cert-file": ("text", "", "certificate to serve clients on https URLs with"),
    "key-file": ("text", "", "private key of --cert-file"),
    "client-cert-auth": ("switch", "false", "clients must show a certificate; its CN names the user"),
    "trusted-ca-file": ("text", "", "CA that clients' certificates must come from; demands certificates too"),
    "client-crl-file": ("text", "", "revocation list (PEM or DER) for clients' certificates"),
    "client-cert-allowed-hostname": ("list", "", "names or addresses, one of which a client's SAN must have"),
    "auto-tls": ("switch", "false", "serve clients with a self-signed certificate made at first start"),
    "peer-cert-file": ("text", "", "certificate between members, shown when serving and when dialing"),
    "peer-key-file": ("text", "", "private key of --peer-cert-file"),
    "peer-client-cert-file": ("text", "", "certificate to dial members with, where it must be another"),
    "peer-client-key-file": ("text", "", "private key of --peer-client-cert-file"),
    "peer-client-cert-auth": ("switch", "false", "members must show a certificate"),
    "peer-trusted-ca-file": ("text", "", "CA that members' certificates must come from"),
    "peer-crl-file": ("text", "", "revocation list (PEM or DER) for members' certificates"),
    "peer-cert-allowed-cn": ("list", "", "CNs, one of which a member's certificate must have"),
    "peer-cert-allowed-hostname": ("list", "", "names or addresses, one of which a member's SAN must have"),
    "peer-auto-tls": (
        "switch",
        "false",
        "self-signed certificates between members: private, not authenticated",
    ),
    "peer-skip-client-san-verification": (
        "switch",
        "false",
        "do not compare a dialing member's address with its SAN",
    ),
    "self-signed-cert-validity": ("years", "1", "years that certificates made here are valid"),
    "cipher-suites": ("list", "", "suites below TLS 1.3, by Go's names, best first"),
    "tls-min-version": ("text", "TLS1.2", "TLS1.2 or TLS1.3"),
    "tls-max-version": ("text", "", "TLS1.2 or TLS1.3 (default: the newest)"),
}
# etcd's older names, as it still takes them.
ALIASES = {"experimental-peer-skip-client-san-verification": "peer-skip-client-san-verification"}


@dataclass(frozen=True)
class TlsSettings:
    """One side. Paths are as given; "" where there is none."""

    side: Side
    cert_file: str = ""
    key_file: str = ""
    client_cert_file: str = ""  # to dial with, where it is not cert_file
    client_key_file: str = ""
    trusted_ca_file: str = ""
    client_cert_auth: bool = False
    crl_file: str = ""
    allowed_cns: tuple[str, ...] = ()
    allowed_hostnames: tuple[str, ...] = ()
    checks_address: bool = False  # the address a certificate is shown from must be among its SAN
    auto: bool = False
    self_signed: bool = False  # with a certificate that nobody can verify: dialing does not try
    validity_years: int = 1
    cipher_suites: tuple[str, ...] = ()
    min_version: str = "TLS1.2"
    max_version: str = ""

    @property
    def serves(self) -> bool:
        """There is a certificate to listen with."""
        return bool(self.cert_file and self.key_file)

    @property
    def is_empty(self) -> bool:
        return not (self.cert_file or self.key_file or self.trusted_ca_file or self.client_cert_file)

    @property
    def demands_certificates(self) -> bool:
        """etcd takes a CA as the wish to see certificates, --client-cert-auth or not."""
        return bool(self.trusted_ca_file) or self.client_cert_auth

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that is read."""
        paths = (
            *(self.cert_file, self.key_file, self.client_cert_file, self.client_key_file),
            *(self.trusted_ca_file, self.crl_file),
        )
        return tuple(path for path in paths if path)


def settle(values: Mapping[str, Any]) -> tuple[TlsSettings, TlsSettings]:
    """(clients' side, peers' side) of parsed flags. Raises ValueError for what contradicts itself."""
    _check_versions(values)
    common = {
        "validity_years": values["self-signed-cert-validity"],
        "cipher_suites": values["cipher-suites"],
        "min_version": values["tls-min-version"] or "TLS1.2",
        "max_version": values["tls-max-version"],
    }
    clients = TlsSettings(
        side="client",
        cert_file=values["cert-file"],
        key_file=values["key-file"],
        trusted_ca_file=values["trusted-ca-file"],
        client_cert_auth=values["client-cert-auth"],
        crl_file=values["client-crl-file"],
        allowed_hostnames=values["client-cert-allowed-hostname"],
        auto=values["auto-tls"],
        **common,
    )
    peers = TlsSettings(
        side="peer",
        cert_file=values["peer-cert-file"],
        key_file=values["peer-key-file"],
        client_cert_file=values["peer-client-cert-file"],
        client_key_file=values["peer-client-key-file"],
        trusted_ca_file=values["peer-trusted-ca-file"],
        client_cert_auth=values["peer-client-cert-auth"],
        crl_file=values["peer-crl-file"],
        allowed_cns=values["peer-cert-allowed-cn"],
        allowed_hostnames=values["peer-cert-allowed-hostname"],
        checks_address=not values["peer-skip-client-san-verification"],
        auto=values["peer-auto-tls"],
        **common,
    )
    for side in (clients, peers):
        _check_side(side)
    return clients, peers


def _check_versions(values: Mapping[str, Any]) -> None:
    low, high, names = values["tls-min-version"], values["tls-max-version"], values["cipher-suites"]
    for version in (low, high):
        if version and version not in VERSIONS:
            raise ValueError(f'unexpected TLS version "{version}" (must be one of: {", ".join(VERSIONS)})')
    if low and high and low > high:
        raise ValueError(f"min version ({low}) is greater than max version ({high})")
    if low == "TLS1.3" and names:
        raise ValueError("cipher suites cannot be configured when only TLS1.3 is enabled")
    ciphers.check(names)
    if values["self-signed-cert-validity"] == 0 and (values["auto-tls"] or values["peer-auto-tls"]):
        raise ValueError("selfSignedCertValidity is invalid,it should be greater than 0")


def _check_side(side: TlsSettings) -> None:
    if bool(side.cert_file) != bool(side.key_file):
        pair = f"key: {side.key_file}, cert: {side.cert_file}"
        raise ValueError(f"KeyFile and CertFile must both be present[{pair}]")
    if bool(side.client_cert_file) != bool(side.client_key_file):
        pair = f"key: {side.client_key_file}, cert: {side.client_cert_file}"
        raise ValueError(f"ClientKeyFile and ClientCertFile must both be present or both absent: {pair}]")
    if side.side == "peer" and side.auto and not side.serves:
        if side.demands_certificates or side.allowed_cns or side.allowed_hostnames:
            raise ValueError(
                "--peer-auto-tls makes certificates that no member can verify: with --peer-client-cert-auth, "
                "--peer-trusted-ca-file or --peer-cert-allowed-* give --peer-cert-file and --peer-key-file"
            )
    if side.allowed_cns and side.allowed_hostnames:
        raise ValueError(
            "AllowedCNs and AllowedHostnames are mutually exclusive "
            f"(cns={_go_list(side.allowed_cns)}, hostnames={_go_list(side.allowed_hostnames)})"
        )


def check_listeners(side: TlsSettings, urls: Iterable[Any]) -> None:
    """Raises ValueError where an https URL has no certificate to be served with."""
    for url in urls:
        if url.scheme != "https" or side.serves or side.auto:
            continue
        if side.side == "client":
            raise ValueError(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url "
                f"{url} with HTTPS scheme"
            )
        address = str(url).removeprefix("https://")
        raise ValueError(f"cannot listen on TLS for {address}: KeyFile and CertFile are not presented")


def _go_list(items: tuple[str, ...]) -> str:
    return "[" + " ".join(f'"{item}"' for item in items) + "]"
