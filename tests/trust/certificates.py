"""Servers' certificates, good and bad, and the file of the authority that is to be trusted."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """What a server shows, with its key, and the authority that a client is told to trust; all in PEM."""

    chain: bytes
    key: bytes
    authority: bytes


def server_context(certificate: Certificate, folder: Path) -> ssl.SSLContext:
    file = folder / "server.pem"
    file.write_bytes(certificate.key + certificate.chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@lru_cache
def authority() -> trustme.CA:
    return trustme.CA()


def good() -> Certificate:
    return _of(authority().issue_cert(HOST))


def of_another_host() -> Certificate:
    return _of(authority().issue_cert("elsewhere.example"))


def expired() -> Certificate:
    now = datetime.now(UTC)
    return _of(authority().issue_cert(HOST, not_before=now - 9 * _DAY, not_after=now - _DAY))


def of_an_unknown_authority() -> Certificate:
    return _of(trustme.CA().issue_cert(HOST))


def self_signed() -> Certificate:
    """Signed by itself, which nobody is told to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("a server")
    return Certificate(_leaf(key, name, key), _private(key), authority().cert_pem.bytes())


def of_an_authority_without_key_identifiers() -> Certificate:
    """As many a company's authority issues them; Python 3.13's VERIFY_X509_STRICT refuses it."""
    key, ca_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = _name("a company's authority")
    root = _builder(name, name, ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=False
    )
    return Certificate(_leaf(key, name, ca_key), _private(key), _signed(root, ca_key))


def _leaf(key: ec.EllipticCurvePrivateKey, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey) -> bytes:
    leaf = _builder(_name("a server"), issuer, key.public_key()).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False
    )
    return _signed(leaf, signer)


def _signed(unsigned: x509.CertificateBuilder, signer: ec.EllipticCurvePrivateKey) -> bytes:
    return unsigned.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _of(leaf: trustme.LeafCert) -> Certificate:
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    return Certificate(chain, leaf.private_key_pem.bytes(), authority().cert_pem.bytes())
