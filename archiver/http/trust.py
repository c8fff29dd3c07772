"""Choose the trusted certificate authorities: one policy for the API, sources, S3, GCS and Redis.

Trusted are the system's store and the authorities of one file: ARCHIVER_CA_FILE, else SSL_CERT_FILE. The file adds to
the store and does not replace it, so that a company's own authority can be trusted without losing the public ones.
(OpenSSL itself replaces its store by SSL_CERT_FILE.) AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE, which the cloud SDKs
document, are added in the same way, each for its own cloud.

Every client takes the name of one PEM file: libcurl's CAINFO (of which it keeps the parsed form, unlike of
CAINFO_BLOB), `verify` of botocore, the file of an `ssl.SSLContext`, `ssl_ca_certs` of redis-py and Celery. Where more
than the store is trusted, the file is made in memory, once per process and inherited by its forks: nothing has to be
writable, and nothing tidies it away from a process that runs for months.

Chains are verified in the same way by all of them, on every Python: by OpenSSL's own defaults. Python 3.13 adds
VERIFY_X509_STRICT and VERIFY_X509_PARTIAL_CHAIN to the contexts it makes. The first refuses authorities that many
companies have (no Authority Key Identifier, basicConstraints not critical), and libcurl and botocore cannot ask for
it; the second lets an intermediate stand for its root, which botocore cannot. libcurl has PARTIAL_CHAIN by default:
set SSLOPT_NO_PARTIALCHAIN.
"""

from __future__ import annotations

import atexit
import os
import re
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from archiver.http.errors import CertificateRejected

SETTING = "ARCHIVER_CA_FILE"
ELSE = "SSL_CERT_FILE"

NOT_OPENSSLS_DEFAULT = (ssl.VERIFY_X509_STRICT, ssl.VERIFY_X509_PARTIAL_CHAIN)
"""What some Pythons add to a context's `verify_flags`, and we take away."""

_STORES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # RHEL, Fedora
    "/etc/pki/tls/certs/ca-bundle.crt",  # RHEL, Amazon Linux
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS, FreeBSD
)
_BEGIN = re.compile(rb"-----BEGIN CERTIFICATE-----")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")
_VERIFY_FAILED = re.compile(r"certificate verify failed: (.+?)\.?(?: \(_ssl\.c:\d+\)|$)")
_ANOTHER_HOST = re.compile(r"mismatch|subject name")  # OpenSSL's word, and libcurl's
_UNKNOWN_AUTHORITY = re.compile(r"self-signed|self signed|issuer")


class UnusableCaFile(Exception):
    """A file of authorities that a setting names cannot be used."""

    def __init__(self, setting: str, path: Path, reason: str) -> None:
        self.what = f"{path} {reason}. It must be a file of CA certificates in PEM"
        super().__init__(f"{setting}: {self.what}")
        self.setting = setting


@dataclass(frozen=True, slots=True)
class CaFile:
    """A file of authorities, and the setting that names it."""

    setting: str
    path: Path

    def certificates(self) -> tuple[bytes, ...]:
        """Each in PEM; nothing else that the file holds, such as a key. Raises UnusableCaFile."""
        try:
            if self.path.exists() and not self.path.is_file():
                raise UnusableCaFile(self.setting, self.path, "is no regular file")
            content = self.path.read_bytes()
        except FileNotFoundError:
            raise UnusableCaFile(self.setting, self.path, "does not exist") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "its name is no path"
            raise UnusableCaFile(self.setting, self.path, f"cannot be read ({reason})") from None
        found = tuple(_CERTIFICATE.findall(content))
        if not found:
            raise UnusableCaFile(self.setting, self.path, "holds no certificate in PEM")
        if len(found) < len(_BEGIN.findall(content)) or not _readable(found):
            raise UnusableCaFile(self.setting, self.path, "holds a certificate that is damaged or cut")
        return found


def ca_file(configured: Path | None = None, environ: Mapping[str, str] | None = None) -> CaFile | None:
    """The file that is trusted besides the store. `configured`: the setting's value, else the environment's."""
    environ = os.environ if environ is None else environ
    if configured is not None:
        return CaFile(SETTING, configured)
    for name in (SETTING, ELSE):
        path = environ.get(name, "").strip()
        if path:
            return CaFile(name, Path(path))
    return None


def authorities(
    configured: Path | None = None,
    *,
    also: Mapping[str, str | None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Path:
    """One PEM file of all that are trusted. `also`: further files by the settings that name them; an empty name is
    none. Raises UnusableCaFile. Idempotent: the same contents are the same file."""
    store = system_store()
    one = ca_file(configured, environ)
    more = [CaFile(setting, Path(path)) for setting, path in (also or {}).items() if path and path.strip()]
    added = [file for file in ([one] if one else []) + more if not _same(file.path, store)]
    if not added:
        return store
    certificates = [certificate for file in added for certificate in file.certificates()]
    return _combined(tuple(dict.fromkeys([*certificates, *_CERTIFICATE.findall(store.read_bytes())])))


def of_aws(ca_bundle: str | None, environ: Mapping[str, str] | None = None) -> Mapping[str, str | None]:
    """For `also`: what boto3 would trust. `ca_bundle`: AWS_CA_BUNDLE, or the profile's."""
    return {"AWS_CA_BUNDLE": ca_bundle} if ca_bundle and ca_bundle.strip() else of_requests(environ)


def of_requests(environ: Mapping[str, str] | None = None) -> Mapping[str, str | None]:
    """For `also`: what `requests` would trust, which Google's libraries use."""
    environ = os.environ if environ is None else environ
    return {"REQUESTS_CA_BUNDLE": environ.get("REQUESTS_CA_BUNDLE")}


def system_store() -> Path:
    """The system's authorities: where this Python's OpenSSL has them, else where systems keep them, else certifi's.
    SSL_CERT_FILE has no say in it."""
    for name in (ssl.get_default_verify_paths().openssl_cafile, *_STORES):
        store = Path(name)
        if store.is_file() and store.stat().st_size and os.access(store, os.R_OK):
            return store
    import certifi  # the last resort alone

    return Path(certifi.where())


def context(trusted: Path) -> ssl.SSLContext:
    """For a client that verifies by `trusted`, as `authorities` returned it."""
    made = ssl.create_default_context(cafile=str(trusted))
    for flag in NOT_OPENSSLS_DEFAULT:
        made.verify_flags &= ~flag
    return made


def rejection(error: BaseException) -> str | None:
    """OpenSSL's reason for which a certificate was not accepted, out of whatever a client made of its error; None when
    that was not the fault."""
    for link in _chain(error):
        if isinstance(link, ssl.SSLCertVerificationError) and (
            reported := getattr(link, "verify_message", "")
        ):
            return str(reported).rstrip(".")
        if isinstance(link, CertificateRejected):
            return link.reason
        if type(link).__name__ == "CertificateError":  # urllib3's own, of botocore's connections
            return f"Hostname mismatch: {link}"
        text = " ".join(part for part in link.args if isinstance(part, str))
        if "CERTIFICATE_VERIFY_FAILED" in text:  # all that is left of it
            found = _VERIFY_FAILED.search(text)
            return found[1] if found else "certificate verify failed"
    return None


def rejected(reason: str) -> str:
    """A certificate that was not accepted, for people: why, and what to do."""
    if _UNKNOWN_AUTHORITY.search(reason):
        remedy = f"if that authority is to be trusted, name its file in {SETTING}"
    elif _ANOTHER_HOST.search(reason):
        remedy = "correct the host name, or have a certificate issued for it"
    else:
        remedy = "have it renewed, and check this machine's clock"
    return f"its TLS certificate is not accepted: {reason}; {remedy}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it was made of, the outermost first: its causes, and what wrappers hold. Not its contexts:
    they may be of another connection, in whose `except` this one failed."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        of_urllib3, of_botocore = getattr(link, "reason", None), getattr(link, "kwargs", None)
        parts = [link.__cause__, of_urllib3, *link.args]
        if isinstance(of_botocore, Mapping):
            parts.append(of_botocore.get("error"))
        waiting += [part for part in parts if isinstance(part, BaseException)]


def _same(path: Path, store: Path) -> bool:
    try:
        return path.samefile(store)
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=8)
def _readable(certificates: tuple[bytes, ...]) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
            cadata=b"\n".join(certificates).decode("ascii")
        )
    except (ssl.SSLError, UnicodeDecodeError):
        return False
    return True


@lru_cache(maxsize=8)
def _combined(certificates: tuple[bytes, ...]) -> Path:
    """A file of this process, for as long as it and its forks live."""
    content = b"\n".join(certificates) + b"\n"
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("authorities")
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        path = Path(f"/proc/self/fd/{descriptor}")
        if path.is_file():
            return path
        os.close(descriptor)  # /proc is not mounted
    return _named(content)


def _named(content: bytes) -> Path:
    """For systems without files in memory; removed when this process ends, not when a fork of it does."""
    descriptor, name = tempfile.mkstemp(prefix="archiver-authorities-", suffix=".pem")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    atexit.register(_remove, Path(name), os.getpid())
    return Path(name)


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        path.unlink(missing_ok=True)
