"""Which authorities are trusted, and what is said of a file that cannot be used."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from archiver.http import trust
from archiver.http.errors import CertificateRejected, CouldNotConnect
from archiver.http.trust import UnusableCaFile, authorities

FIRST, SECOND, THIRD = trustme.CA(), trustme.CA(), trustme.CA()
STORE = trustme.CA()


def der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode())


def trusted(file: Path) -> set[bytes]:
    return set(trust.context(file).get_ca_certs(binary_form=True))


FOUR = {
    der(ca.cert_pem.bytes()): name for name, ca in zip("123S", (FIRST, SECOND, THIRD, STORE), strict=True)
}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's store of these tests."""
    file = tmp_path / "store.pem"
    STORE.cert_pem.write_to_path(file)
    monkeypatch.setattr(trust, "_STORES", (str(file),))
    monkeypatch.setattr(
        ssl, "get_default_verify_paths", lambda: ssl.DefaultVerifyPaths("", "", "", "", "", "")
    )
    return file


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {}
    for name, ca in (("first", FIRST), ("second", SECOND), ("third", THIRD)):
        made[name] = tmp_path / f"{name}.pem"
        ca.cert_pem.write_to_path(made[name])
    return made


@pytest.mark.parametrize(
    ("what", "setting", "environ", "also", "expected"),
    [
        ("nothing is set: the system's store", None, {}, {}, "S"),
        ("the setting adds to the store", "first", {}, {}, "1S"),
        ("so does the environment's", None, {"ARCHIVER_CA_FILE": "first"}, {}, "1S"),
        ("so does SSL_CERT_FILE", None, {"SSL_CERT_FILE": "second"}, {}, "2S"),
        ("the setting counts before SSL_CERT_FILE", "first", {"SSL_CERT_FILE": "second"}, {}, "1S"),
        ("the setting counts before the environment", "first", {"ARCHIVER_CA_FILE": "second"}, {}, "1S"),
        (
            "ARCHIVER_CA_FILE counts before SSL_CERT_FILE",
            None,
            {"ARCHIVER_CA_FILE": "first", "SSL_CERT_FILE": "second"},
            {},
            "1S",
        ),
        ("one that does not count is not looked at", "first", {"SSL_CERT_FILE": "missing"}, {}, "1S"),
        ("an empty name is none", None, {"ARCHIVER_CA_FILE": "", "SSL_CERT_FILE": "second"}, {}, "2S"),
        ("both empty: the store", None, {"ARCHIVER_CA_FILE": "", "SSL_CERT_FILE": " "}, {}, "S"),
        ("a cloud's own file is added", None, {}, {"AWS_CA_BUNDLE": "third"}, "3S"),
        ("to the setting's", "first", {}, {"AWS_CA_BUNDLE": "third"}, "13S"),
        ("an empty AWS_CA_BUNDLE is none", "first", {}, {"AWS_CA_BUNDLE": ""}, "1S"),
        ("the store named once more is the store", None, {"SSL_CERT_FILE": "store"}, {}, "S"),
    ],
)
def test_what_is_trusted(
    files: dict[str, Path],
    store: Path,
    tmp_path: Path,
    what: str,
    setting: str | None,
    environ: dict[str, str],
    also: dict[str, str],
    expected: str,
) -> None:
    known = {**files, "store": store, "missing": tmp_path / "missing.pem"}

    file = authorities(
        known[setting] if setting else None,
        also={name: str(known.get(value, value)) for name, value in also.items()},
        environ={name: str(known.get(value, value)) for name, value in environ.items()},
    )

    assert "".join(sorted(FOUR[found] for found in trusted(file))) == expected, what


@pytest.mark.parametrize(
    ("what", "aws", "environ", "expected"),
    [
        ("AWS_CA_BUNDLE, or the profile's", "a", {"REQUESTS_CA_BUNDLE": "r"}, {"AWS_CA_BUNDLE": "a"}),
        ("without it REQUESTS_CA_BUNDLE", None, {"REQUESTS_CA_BUNDLE": "r"}, {"REQUESTS_CA_BUNDLE": "r"}),
        ("an empty one is none", "", {"REQUESTS_CA_BUNDLE": "r"}, {"REQUESTS_CA_BUNDLE": "r"}),
        ("neither", None, {}, {"REQUESTS_CA_BUNDLE": None}),
    ],
)
def test_what_boto3_would_trust_is_added(
    what: str, aws: str | None, environ: dict[str, str], expected: dict[str, str | None]
) -> None:
    assert trust.of_aws(aws, environ) == expected, what


@pytest.mark.parametrize(
    ("what", "make", "reported"),
    [
        ("it is not there", lambda _: None, "does not exist"),
        ("it is empty", lambda path: path.touch(), "holds no certificate in PEM"),
        ("it is a directory", lambda path: path.mkdir(), "is no regular file"),
        ("it is a pipe, which would never end", os.mkfifo, "is no regular file"),
        (
            "it is DER",
            lambda path: path.write_bytes(der(FIRST.cert_pem.bytes())),
            "holds no certificate in PEM",
        ),
        (
            "it holds a key alone",
            lambda path: path.write_bytes(FIRST.issue_cert("h").private_key_pem.bytes()),
            "holds no certificate in PEM",
        ),
        (
            "its second certificate is cut",
            lambda path: path.write_bytes(FIRST.cert_pem.bytes() + SECOND.cert_pem.bytes()[:200]),
            "holds a certificate that is damaged or cut",
        ),
        (
            "its certificate is damaged",
            lambda path: path.write_bytes(FIRST.cert_pem.bytes().replace(b"MII", b"AAA", 1)),
            "holds a certificate that is damaged or cut",
        ),
        ("it lies below a file", lambda path: path.parent.touch(), "cannot be read (Not a directory)"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_setting(
    tmp_path: Path, what: str, make: Callable[[Path], object], reported: str
) -> None:
    path = tmp_path / "folder" / "ca.pem"
    if "below a file" not in what:
        path.parent.mkdir()
    make(path)

    with pytest.raises(UnusableCaFile) as refused:
        authorities(environ={"SSL_CERT_FILE": str(path)})

    assert str(refused.value).startswith(f"SSL_CERT_FILE: {path} {reported}"), what


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(files: dict[str, Path]) -> None:
    files["first"].chmod(0)

    with pytest.raises(UnusableCaFile, match=r"first\.pem cannot be read \(Permission denied\)"):
        authorities(files["first"])


def test_a_byte_order_mark_and_comments_lose_no_certificate(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    text = FIRST.cert_pem.bytes().decode() + "\nSecond: ß\n" + SECOND.cert_pem.bytes().decode()
    file.write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig")

    assert {FOUR[found] for found in trusted(authorities(file))} == set("12S")


def test_a_key_in_the_file_is_not_copied(tmp_path: Path) -> None:
    file = tmp_path / "both.pem"
    file.write_bytes(FIRST.issue_cert("h").private_key_pem.bytes() + FIRST.cert_pem.bytes())

    assert b"PRIVATE" not in authorities(file).read_bytes()


def test_the_same_authorities_are_the_same_file(files: dict[str, Path]) -> None:
    """libcurl keeps the parsed authorities by the file's name."""
    assert authorities(files["first"]) == authorities(files["first"]) != authorities(files["second"])


def test_the_file_is_readable_after_a_fork(files: dict[str, Path]) -> None:
    file = authorities(files["first"])

    child = os.fork()
    if child == 0:
        os._exit(0 if len(trusted(file)) == 2 else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_files_in_memory_it_is_a_private_one_that_a_fork_does_not_remove(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trust._combined.cache_clear()

    file = authorities(files["first"])
    trust._remove(file, os.getpid() + 1)

    assert file.parent == tmp_path
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(trusted(file)) == 2
    trust._remove(file, os.getpid())
    assert not file.exists()
    trust._combined.cache_clear()


def test_the_store_is_openssls_then_the_systems_then_certifis(
    store: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ssl.DefaultVerifyPaths("", "", "", str(files["first"]), "", "")
    assert trust.system_store() == store

    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    assert trust.system_store() == files["first"]

    files["first"].write_bytes(b"")
    store.unlink()
    assert trust.system_store().name == "cacert.pem"


def test_chains_are_verified_in_the_same_way_on_every_python(store: Path) -> None:
    flags = trust.context(store).verify_flags

    assert not flags & (ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN)


def test_a_passing_fault_is_not_taken_for_the_certificate_fault_in_whose_handler_it_came() -> None:
    """Of another destination, mostly."""
    rejected = ssl.SSLCertVerificationError(
        1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: expired"
    )

    try:
        raise rejected
    except ssl.SSLCertVerificationError:
        with pytest.raises(ConnectionResetError) as passing:
            raise ConnectionResetError(104, "Connection reset by peer")  # noqa: B904 - the context is the point

    assert passing.value.__context__ is rejected
    assert trust.rejection(rejected) == "expired"
    assert trust.rejection(passing.value) is None


def test_our_own_client_says_it_in_the_same_words() -> None:
    error = CouldNotConnect("of an exchange")
    error.__cause__ = CertificateRejected("certificate has expired")

    assert trust.rejection(error) == "certificate has expired"
