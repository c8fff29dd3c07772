"""Every client of ours against real TLS servers: what is trusted, what is refused, and what is said then."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from kombu.exceptions import OperationalError
from pydantic import SecretStr

from archiver.hms.auth import FixedToken
from archiver.hms.client import HmsClient
from archiver.hms.errors import HmsUntrusted
from archiver.http import trust
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.redis.tls import tls_options
from archiver.ledger.sealing import Seal
from storage_backends.azure import AzureBackend, AzureSettings
from storage_backends.base import object_key
from storage_backends.errors import AccessDenied, DestinationRefuses
from storage_backends.gcs import GcsBackend
from storage_backends.s3 import S3Backend, S3Settings
from tests.hms.scripted_api import Answer, says, scripted_api
from tests.servers import AzuriteServer, GcsServer, S3Server
from tests.tls_front import tls_front
from tests.trust import certificates
from tests.trust.certificates import HOST, Certificate, server_context
from tests.valkey import ValkeyServer
from worker.celery_setup.config import celery_settings

KEY = object_key("a/b")


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


class Api:
    untrusted = HmsUntrusted

    def __init__(self, port: int, _bucket: str) -> None:
        self._url = f"https://{HOST}:{port}/v2"

    def ask(self) -> None:
        with HmsClient(self._url, FixedToken(SecretStr("a.b.c"))) as client:
            client.check()


class S3:
    untrusted = DestinationRefuses

    def __init__(self, port: int, bucket: str) -> None:
        self._settings = S3Settings(bucket, endpoint_url=f"https://{HOST}:{port}")

    def ask(self) -> None:
        with closing(S3Backend(self._settings)) as store:
            assert store.stat(KEY) is None


class Gcs:
    untrusted = DestinationRefuses

    def __init__(self, _port: int, bucket: str) -> None:
        self._bucket = bucket

    def ask(self) -> None:
        with closing(GcsBackend(self._bucket)) as store:
            assert store.stat(KEY) is None


class Azure:
    untrusted = DestinationRefuses

    def __init__(self, port: int, container: str) -> None:
        account = AzuriteServer.account
        self._settings = AzureSettings(account, container, endpoint_url=f"https://{HOST}:{port}/{account}")

    def ask(self) -> None:
        with closing(AzureBackend(self._settings)) as store:
            assert store.stat(KEY) is None


class Ledger:
    untrusted = LedgerUnavailable

    def __init__(self, port: int, _bucket: str, query: str = "") -> None:
        self._url = f"rediss://{HOST}:{port}/0{query}"

    def ask(self) -> None:
        with closing(RedisLedger(self._url, Seal(SecretStr("secret")))) as ledger:
            ledger.ping()


class Broker:
    untrusted = OperationalError

    def __init__(self, port: int, _bucket: str, query: str = "") -> None:
        self._app = Celery(set_as_current=False)
        self._app.conf.update(celery_settings(broker_url=f"rediss://{HOST}:{port}/0{query}", concurrency=1))

    def ask(self) -> None:
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
            channel: Any = connection.default_channel
            assert channel.client.ping()


Client = Api | S3 | Gcs | Azure | Ledger | Broker
Serving = Callable[[Certificate], Client]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, moto_server: S3Server) -> None:
    """That of a machine on which nobody has set anything of certificates."""
    for name in ("ARCHIVER_CA_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    for name, value in moto_server.env.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=[Api, S3, Gcs, Azure, Ledger, Broker])
def serving(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moto_server: S3Server,
    gcs_server: GcsServer,
    shared_valkey: ValkeyServer,
) -> Iterator[Serving]:
    """Start a server that shows this certificate; returns the client of ours for it. The authority's file is in
    `tmp_path`, and nothing names it yet."""
    with contextlib.ExitStack() as stack:

        def start(certificate: Certificate) -> Client:
            (tmp_path / "ca.pem").write_bytes(certificate.authority)
            bucket = ""
            if request.param is Api:
                answers: list[Answer] = [says({"data": []})]
                behind = stack.enter_context(scripted_api(answers)).server_port
            elif request.param is S3:
                bucket, behind = moto_server.new_bucket(), _port(moto_server.endpoint_url)
            elif request.param is Gcs:
                bucket, behind = gcs_server.new_bucket(), _port(gcs_server.endpoint_url)
            elif request.param is Azure:
                azurite: AzuriteServer = request.getfixturevalue("azurite_server")
                for name, value in azurite.env.items():
                    monkeypatch.setenv(name, value)
                bucket, behind = azurite.new_bucket(), _port(azurite.endpoint_url)
            else:
                behind = shared_valkey.port
            port = stack.enter_context(tls_front(behind, server_context(certificate, tmp_path)))
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"https://{HOST}:{port}")
            client: Client = request.param(port, bucket)
            return client

        yield start


@pytest.mark.parametrize(
    ("what", "certificate"),
    [
        ("of an authority of ours", certificates.good),
        ("which Python 3.13 would refuse", certificates.of_an_authority_without_key_identifiers),
    ],
)
@pytest.mark.parametrize("setting", ["ARCHIVER_CA_FILE", "SSL_CERT_FILE"])
def test_a_certificate_of_the_authority_that_a_setting_names_is_accepted(
    serving: Serving,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    certificate: Callable[[], Certificate],
    setting: str,
) -> None:
    monkeypatch.setenv(setting, str(tmp_path / "ca.pem"))
    client = serving(certificate())

    client.ask()


@pytest.mark.parametrize(
    ("certificate", "reason", "remedy"),
    [
        (certificates.expired, "certificate has expired", "renewed"),
        (certificates.of_another_host, "mismatch|subject name matches", "correct the host name"),
        (certificates.of_an_unknown_authority, "unable to get local issuer certificate", "ARCHIVER_CA_FILE"),
        (certificates.self_signed, "self-signed certificate", "ARCHIVER_CA_FILE"),
    ],
)
def test_a_certificate_that_does_not_verify_is_refused_with_openssls_reason(
    serving: Serving,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate: Callable[[], Certificate],
    reason: str,
    remedy: str,
) -> None:
    monkeypatch.setenv("ARCHIVER_CA_FILE", str(tmp_path / "ca.pem"))
    client = serving(certificate())

    with _in_a_handler(), pytest.raises(client.untrusted, match=f"(?i){reason}") as refused:
        client.ask()

    if not isinstance(client, Broker):  # Celery logs it in its own words
        assert "its TLS certificate is not accepted: " in str(refused.value)
        assert remedy in str(refused.value)


def test_without_a_setting_only_the_system_is_trusted(serving: Serving) -> None:
    client = serving(certificates.good())

    with pytest.raises(client.untrusted, match="unable to get local issuer certificate"):
        client.ask()


@pytest.mark.parametrize(
    ("client", "setting"), [(S3, "AWS_CA_BUNDLE"), (S3, "REQUESTS_CA_BUNDLE"), (Gcs, "REQUESTS_CA_BUNDLE")]
)
def test_what_the_cloud_sdks_document_is_trusted_too(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moto_server: S3Server,
    gcs_server: GcsServer,
    client: type[S3 | Gcs],
    setting: str,
) -> None:
    """Besides ARCHIVER_CA_FILE, and not in its place."""
    server: S3Server | GcsServer = moto_server if client is S3 else gcs_server
    monkeypatch.setenv("ARCHIVER_CA_FILE", str(tmp_path / "another.pem"))
    (tmp_path / "another.pem").write_bytes(certificates.of_an_authority_without_key_identifiers().authority)
    (tmp_path / "ca.pem").write_bytes(certificates.good().authority)
    monkeypatch.setenv(setting, str(tmp_path / "ca.pem"))

    with tls_front(_port(server.endpoint_url), server_context(certificates.good(), tmp_path)) as port:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"https://{HOST}:{port}")
        client(port, server.new_bucket()).ask()


def test_an_empty_aws_ca_bundle_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moto_server: S3Server
) -> None:
    (tmp_path / "ca.pem").write_bytes(certificates.good().authority)
    monkeypatch.setenv("ARCHIVER_CA_FILE", str(tmp_path / "ca.pem"))
    bucket = moto_server.new_bucket()
    monkeypatch.setenv("AWS_CA_BUNDLE", "")

    with tls_front(_port(moto_server.endpoint_url), server_context(certificates.good(), tmp_path)) as port:
        S3(port, bucket).ask()


@pytest.mark.parametrize("trusts", [True, False])
def test_where_google_gives_tokens_is_trusted_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusts: bool
) -> None:
    (tmp_path / "ca.pem").write_bytes(certificates.good().authority)
    if trusts:
        monkeypatch.setenv("ARCHIVER_CA_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)

    with (
        scripted_api([says({})]) as server,  # no POST is what it knows: 501
        tls_front(server.server_port, server_context(certificates.good(), tmp_path)) as port,
        closing(GcsBackend("bucket", sleep=lambda _: None)) as store,
    ):
        _give_credentials(tmp_path, monkeypatch, f"https://{HOST}:{port}/token")
        with pytest.raises(AccessDenied if trusts else DestinationRefuses) as refused:
            store.stat(KEY)

    assert ("unable to get local issuer certificate" in str(refused.value)) is not trusts


@pytest.mark.parametrize("kind", [Ledger, Broker])
def test_what_the_url_of_redis_says_itself_counts_more(
    kind: type[Ledger | Broker], tmp_path: Path, shared_valkey: ValkeyServer
) -> None:
    (tmp_path / "ca.pem").write_bytes(certificates.good().authority)

    with tls_front(shared_valkey.port, server_context(certificates.good(), tmp_path)) as port:
        kind(port, "", f"?ssl_ca_certs={tmp_path / 'ca.pem'}").ask()


def test_redis_without_tls_needs_no_authorities() -> None:
    assert tls_options("redis://h:1/0") == {}
    assert celery_settings(broker_url="redis://h:1/0", concurrency=1)["broker_use_ssl"] is None


@pytest.mark.parametrize("kind", [S3, Gcs])
def test_a_file_that_vanished_refuses_the_destination_by_its_name(
    kind: type[S3 | Gcs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"https://{HOST}:1")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))

    with pytest.raises(DestinationRefuses, match=r"SSL_CERT_FILE: .*gone\.pem does not exist"):
        kind(1, "bucket").ask()


def test_a_certificate_without_key_identifiers_is_one_that_strict_checks_refuse(tmp_path: Path) -> None:
    """So that the table above tests on any Python what only 3.13 asks for by itself."""
    certificate = certificates.of_an_authority_without_key_identifiers()
    (tmp_path / "ca.pem").write_bytes(certificate.authority)
    strict = trust.context(tmp_path / "ca.pem")
    strict.verify_flags |= ssl.VERIFY_X509_STRICT

    with (
        scripted_api([says({})]) as api,
        tls_front(api.server_port, server_context(certificate, tmp_path)) as port,
    ):
        with pytest.raises(ssl.SSLCertVerificationError), _connected(strict, port):
            pass
        with _connected(trust.context(tmp_path / "ca.pem"), port):
            pass


@contextlib.contextmanager
def _in_a_handler() -> Iterator[None]:
    """While another error is handled, as in the archiver, which replaces what an error that is raised again says of
    its context."""
    try:
        raise ValueError("another error")
    except ValueError:
        yield


def _give_credentials(folder: Path, monkeypatch: pytest.MonkeyPatch, token_uri: str) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {
        "type": "service_account",
        "client_email": "a@b",
        "private_key": private,
        "token_uri": token_uri,
    }
    (folder / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "account.json"))


@contextlib.contextmanager
def _connected(context: ssl.SSLContext, port: int) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection((HOST, port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as secured,
    ):
        yield secured
