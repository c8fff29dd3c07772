"""What Azure answers, and what becomes of it: two uploads of one blob, lost answers, throttling, tiers, credentials."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import jwt
import pytest
import trustme

from storage_backends.azure import AzureBackend, AzureSettings
from storage_backends.azure.credentials import SasToken, SharedKey, find
from storage_backends.base import ObjectSpec, Part, Upload, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import (
    AccessDenied,
    CredentialsMissing,
    DestinationRefuses,
    ObjectCold,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.optional import ThawSpeed
from tests.azurite.install import azurite
from tests.fault_proxy import Answer, FaultProxy, fault_proxy
from tests.servers import AzuriteServer, free_port, running

KEY = object_key("recordings/one.mp4")
DATA = bytes(range(256)) * 48
PART = 4096


@pytest.fixture
def server(azurite_server: AzuriteServer, monkeypatch: pytest.MonkeyPatch) -> AzuriteServer:
    for name, value in azurite_server.env.items():
        monkeypatch.setenv(name, value)
    return azurite_server


@pytest.fixture
def proxy(server: AzuriteServer) -> Iterator[FaultProxy]:
    port = urlsplit(server.endpoint_url).port
    assert port is not None
    with fault_proxy(port) as made:
        yield made


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def store(server: AzuriteServer, proxy: FaultProxy, slept: list[float]) -> Iterator[AzureBackend]:
    settings = AzureSettings(
        server.account, server.new_bucket(), "pre", f"http://127.0.0.1:{proxy.port}/{server.account}"
    )
    with contextlib.closing(AzureBackend(settings, sleep=slept.append)) as made:
        yield made


def spec(**options: Any) -> ObjectSpec:
    return ObjectSpec(KEY, "video/mp4", len(DATA), PART, **options)


def sent(upload: Upload, data: bytes = DATA) -> list[Part]:
    pieces = [data[at : at + PART] for at in range(0, len(data), PART)]
    return [upload.put_part(n, piece, crc32c_of(piece)) for n, piece in enumerate(pieces, start=1)]


def puts_and_looks(store: AzureBackend) -> list[Callable[[], object]]:
    """By our own client, and by the library's."""
    return [lambda: store.put(spec(), DATA, crc32c_of(DATA)), lambda: store.stat(KEY)]


# -- two uploads of one blob


def test_a_commit_takes_its_own_blocks_only_although_another_upload_sent_others_for_the_same_parts(
    store: AzureBackend,
) -> None:
    ours, theirs = store.begin(spec()), store.begin(spec())
    other = DATA[::-1]

    parts, their_parts = sent(ours), sent(theirs, other)
    ours.complete(parts, crc32c_of(DATA))

    assert store.read(KEY) == DATA
    with contextlib.suppress(
        UploadGone
    ):  # the service; the emulator keeps the blocks that a commit does not name
        theirs.complete(their_parts, crc32c_of(other))
        assert store.read(KEY) == other


def test_an_upload_whose_blocks_another_commit_discarded_is_gone(
    store: AzureBackend, proxy: FaultProxy
) -> None:
    upload = store.begin(spec())
    parts = sent(upload)
    invalid = b"<?xml version='1.0'?><Error><Code>InvalidBlockList</Code><Message>no</Message></Error>"
    proxy.answer(lambda call: "comp=blocklist" in call.path, Answer(400, invalid))

    with pytest.raises(UploadGone, match="InvalidBlockList"):
        upload.complete(parts, crc32c_of(DATA))


def test_whether_an_upload_still_exists_is_asked_of_the_service(store: AzureBackend) -> None:
    upload = store.begin(spec())
    assert store.resume(spec(), upload.token).parts() is None

    with pytest.raises(UploadGone):
        store.resume(spec(), f"az1.{'0' * 32}").parts()


def test_a_large_blob_is_described_with_the_crc32c_that_follows_from_its_blocks(
    store: AzureBackend, server: AzuriteServer
) -> None:
    upload = store.begin(spec())
    upload.complete(sent(upload), crc32c_of(DATA))
    before = store.stat(KEY)
    with server.client() as client:
        blob = client.get_blob_client(store._container.settings.container, f"pre/{KEY}")
        metadata = blob.get_blob_properties().metadata
        blob.upload_blob(DATA[::-1], overwrite=True, metadata=metadata)

    after = store.stat(KEY)

    assert before is not None
    assert after is not None
    assert (before.crc32c, after.crc32c) == (crc32c_of(DATA), None), (
        "what is noted beside other bytes proves nothing"
    )


# -- lost answers


@pytest.mark.parametrize("options", [{}, {"if_absent": True}], ids=str)
def test_a_put_whose_answer_was_lost_has_succeeded(
    store: AzureBackend, proxy: FaultProxy, options: dict[str, bool]
) -> None:
    proxy.lose_answer(lambda call: call.method == "PUT")

    info = store.put(spec(**options), DATA, crc32c_of(DATA))

    assert (info.size_bytes, store.read(KEY)) == (len(DATA), DATA)


def test_a_replacement_whose_answer_was_lost_has_succeeded(store: AzureBackend, proxy: FaultProxy) -> None:
    first = store.put(spec(), b"before", crc32c_of(b"before"))
    proxy.lose_answer(lambda call: call.method == "PUT")

    store.put(spec(if_match=first.etag), DATA, crc32c_of(DATA))

    assert store.read(KEY) == DATA


@pytest.mark.parametrize("options", [{}, {"if_absent": True}], ids=str)
def test_a_commit_whose_answer_was_lost_has_succeeded(
    store: AzureBackend, proxy: FaultProxy, options: dict[str, bool]
) -> None:
    upload = store.begin(spec(**options))
    parts = sent(upload)
    proxy.lose_answer(lambda call: "comp=blocklist" in call.path)

    info = upload.complete(parts, crc32c_of(DATA))

    assert (info.size_bytes, store.read(KEY)) == (len(DATA), DATA)


# -- not now


def test_a_busy_service_is_asked_again_and_not_sooner_than_it_says(
    store: AzureBackend, proxy: FaultProxy, slept: list[float]
) -> None:
    busy = Answer(503, b"", {"x-ms-error-code": "ServerBusy", "Retry-After": "7"})
    proxy.answer(lambda call: call.method == "HEAD", busy, times=2)

    assert store.stat(KEY) is None

    assert len(slept) == 2
    assert min(slept) >= 7
    assert sum(call.method == "HEAD" for call in proxy.calls) == 3, (
        "and the library retries nothing by itself"
    )


def test_what_asks_for_a_long_wait_is_left_to_the_caller(store: AzureBackend, proxy: FaultProxy) -> None:
    busy = Answer(503, b"", {"x-ms-error-code": "ServerBusy", "Retry-After": "120"})
    proxy.answer(lambda _: True, busy)

    with pytest.raises(TransientStorageError) as caught:
        store.put(spec(), DATA, crc32c_of(DATA))

    assert caught.value.retry_after == timedelta(seconds=120)


def test_a_404_of_something_else_says_nothing_of_the_object(store: AzureBackend, proxy: FaultProxy) -> None:
    proxy.answer(lambda _: True, Answer(404), times=100)

    with pytest.raises(TransientStorageError, match="something other than Azure answered"):
        store.stat(KEY)


# -- tiers


def test_an_archived_blob_is_cold_until_it_was_thawed(store: AzureBackend, server: AzuriteServer) -> None:
    store.put(spec(), DATA, crc32c_of(DATA))
    assert store.thaw(KEY, ThawSpeed.STANDARD, 7).ready_within is None
    with server.client() as client:
        container = store._container.settings.container
        client.get_blob_client(container, f"pre/{KEY}").set_standard_blob_tier("Archive")

    with pytest.raises(ObjectCold, match="409 BlobArchived"):
        store.read(KEY)
    info = store.stat(KEY)
    asked = store.thaw(KEY, ThawSpeed.BULK, 7)

    assert info is not None
    assert info.size_bytes == len(DATA)
    assert (asked.storage_class, asked.asked, asked.ready_within) == ("Archive", True, timedelta(hours=15))
    assert store.read(KEY) == DATA, "the emulator does at once what the service does in hours"


# -- versions


VERSIONS = """<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="http://x/"><Blobs>
<Blob><Name>pre/a</Name><VersionId>2026-01-02T00:00:00.0000000Z</VersionId><IsCurrentVersion>true</IsCurrentVersion>
<Properties><Etag>1</Etag><Content-Length>1</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob>
<Blob><Name>pre/a</Name><VersionId>2026-01-01T00:00:00.0000000Z</VersionId>
<Properties><Etag>1</Etag><Content-Length>1</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob>
<Blob><Name>pre/b</Name><Deleted>true</Deleted><VersionId>2026-01-03T00:00:00.0000000Z</VersionId><Properties>
<Etag>1</Etag><Content-Length>1</Content-Length><BlobType>BlockBlob</BlobType>
<DeletedTime>Thu, 01 Jan 2026 00:00:00 GMT</DeletedTime><RemainingRetentionDays>6</RemainingRetentionDays>
</Properties></Blob>
</Blobs><NextMarker /></EnumerationResults>"""


def test_versions_and_what_soft_delete_keeps_are_told_apart(store: AzureBackend, proxy: FaultProxy) -> None:
    proxy.answer(
        lambda call: "include=" in call.path,
        Answer(200, VERSIONS.encode(), {"Content-Type": "application/xml"}),
    )

    found = list(store.versions())

    assert [(each.key, each.is_current, each.gone_at) for each in found] == [
        ("a", True, None),
        ("a", False, None),
        ("b", False, datetime(2026, 1, 8, tzinfo=UTC)),
    ]


def test_an_old_version_is_deleted_by_its_id_and_what_is_soft_deleted_is_left(
    store: AzureBackend, proxy: FaultProxy
) -> None:
    proxy.answer(
        lambda call: "include=" in call.path,
        Answer(200, VERSIONS.encode(), {"Content-Type": "application/xml"}),
    )
    found = list(store.versions())
    proxy.answer(lambda call: call.method == "DELETE", Answer(202, b""), times=9)

    assert store.delete_versions(found) == []

    deletes = [call.path for call in proxy.calls if call.method == "DELETE"]
    assert ["versionid=" in path for path in deletes] == [False, True]


def test_a_server_without_versions_has_one_of_each_and_deletes_it_with_its_snapshots(
    store: AzureBackend, server: AzuriteServer
) -> None:
    store.put(spec(), DATA, crc32c_of(DATA))
    with server.client() as client:
        client.get_blob_client(store._container.settings.container, f"pre/{KEY}").create_snapshot()

    found = list(store.versions("recordings/"))
    refused = store.delete_versions([each for each in found if each.is_current])

    assert {each.key for each in found} == {KEY}
    assert sum(each.is_current for each in found) == 1
    assert refused == []
    assert list(store.versions("recordings/")) == []


def test_a_version_that_may_not_be_deleted_is_named_with_the_reason(
    store: AzureBackend, proxy: FaultProxy
) -> None:
    store.put(spec(), DATA, crc32c_of(DATA))
    found = list(store.versions())
    held = Answer(409, b"", {"x-ms-error-code": "BlobImmutableDueToPolicy"})
    proxy.answer(lambda call: call.method == "DELETE", held)

    [left] = store.delete_versions(found)

    assert "409 BlobImmutableDueToPolicy" in left.reason


# -- rights


@pytest.mark.parametrize("lacking", ["", "read", "write", "delete", "list"])
def test_read_write_delete_and_list_are_all_needed_and_enough(
    server: AzuriteServer, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    container = server.new_bucket()
    rights = {name: True for name in ("read", "write", "delete", "list") if name != lacking}
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", server.sas(container, **rights))
    settings = AzureSettings(server.account, container, "", server.endpoint_url)

    def use() -> None:
        with contextlib.closing(AzureBackend(settings)) as store:
            info = store.put(spec(if_absent=True), b"first", crc32c_of(b"first"))
            store.put(spec(if_match=info.etag), b"second", crc32c_of(b"second"))
            upload = store.begin(spec())
            upload.complete(sent(upload), crc32c_of(DATA))
            assert store.read(KEY) == DATA
            assert [each.key for each in store.list()] == [KEY]
            store.delete(KEY)

    if lacking:
        with pytest.raises(AccessDenied):
            use()
    else:
        use()


# -- credentials


def test_a_signed_url_is_read_without_credentials(store: AzureBackend, server: AzuriteServer) -> None:
    store.put(spec(), DATA, crc32c_of(DATA))

    url = store.signed_url(KEY, timedelta(minutes=5))

    with urlopen(
        url.replace(str(urlsplit(url).port), str(urlsplit(server.endpoint_url).port)), timeout=10
    ) as answer:
        assert answer.read() == DATA


def test_a_shared_access_signature_works_and_cannot_sign_another(
    server: AzuriteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = server.new_bucket()
    token = server.sas(container, read=True, write=True, create=True, delete=True, list=True)
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", f"?{token}")
    with contextlib.closing(
        AzureBackend(AzureSettings(server.account, container, "", server.endpoint_url))
    ) as store:
        upload = store.begin(spec())
        upload.complete(sent(upload), crc32c_of(DATA))

        assert [info.key for info in store.list()] == [KEY]
        assert store.read(KEY, 5, 10) == DATA[5:15]
        with pytest.raises(AccessDenied, match="cannot sign another one"):
            store.signed_url(KEY, timedelta(minutes=5))
        store.delete(KEY)


@pytest.mark.parametrize(
    "secret", ["AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING"]
)
def test_no_error_shows_a_secret(
    server: AzuriteServer, monkeypatch: pytest.MonkeyPatch, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    marked = "c2VjcmV0bWFya2VyMTIzNDU2Nzg5MA=="
    value = {
        "AZURE_STORAGE_KEY": marked,
        "AZURE_STORAGE_SAS_TOKEN": f"sv=2023-11-03&sr=c&sp=r&sig={marked}",
        "AZURE_STORAGE_CONNECTION_STRING": f"AccountName={server.account};AccountKey={marked}",
    }
    monkeypatch.setenv(secret, value[secret])
    with contextlib.closing(
        AzureBackend(AzureSettings(server.account, "container", "", server.endpoint_url))
    ) as store:
        for do in (
            lambda: store.put(spec(), DATA, crc32c_of(DATA)),
            lambda: store.begin(spec()),
            lambda: store.stat(KEY),
            lambda: store.read(KEY),
            lambda: list(store.list()),
            lambda: store.delete(KEY),
        ):
            with pytest.raises(StorageError) as caught:
                do()
            assert isinstance(caught.value, AccessDenied)
            assert marked not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__!r}"
    assert marked not in caplog.text


@pytest.mark.parametrize(
    ("environ", "kind", "endpoint"),
    [
        ({"AZURE_STORAGE_KEY": "a2V5"}, SharedKey, "https://one.blob.core.windows.net"),
        (
            {"AZURE_STORAGE_SAS_TOKEN": "?sig=x", "AZURE_STORAGE_KEY": "a2V5"},
            SasToken,
            "https://one.blob.core.windows.net",
        ),
        (
            {"AZURE_STORAGE_ACCOUNT": "two", "AZURE_STORAGE_KEY": "a2V5", "AZURE_STORAGE_KEY_ONE": "b25l"},
            SharedKey,
            None,
        ),
        (
            {
                "AZURE_STORAGE_CONNECTION_STRING": "AccountName=one;AccountKey=a2V5;EndpointSuffix=core.china.cn"
            },
            SharedKey,
            "https://one.blob.core.china.cn",
        ),
        (
            {
                "AZURE_STORAGE_CONNECTION_STRING": "BlobEndpoint=https://one.blob.core.windows.net/;SharedAccessSignature=sig=x"
            },
            SasToken,
            "https://one.blob.core.windows.net",
        ),
        (
            {
                "AZURE_STORAGE_CONNECTION_STRING": "AccountName=two;AccountKey=a2V5",
                "AZURE_STORAGE_KEY": "b25l",
            },
            SharedKey,
            "https://one.blob.core.windows.net",
        ),
    ],
)
def test_credentials_are_those_of_the_account(
    environ: dict[str, str], kind: type, endpoint: str | None
) -> None:
    found, at = find("one", environ)

    assert isinstance(found, kind)
    assert endpoint in (None, at)


@pytest.mark.parametrize(
    "environ", [{"AZURE_STORAGE_KEY": "not base64!"}, {"AZURE_STORAGE_CONNECTION_STRING": "not one"}]
)
def test_credentials_that_cannot_be_read_are_named_without_their_value(environ: dict[str, str]) -> None:
    with pytest.raises(CredentialsMissing) as caught:
        find("one", environ)

    assert not any(value in str(caught.value) for value in environ.values())


def test_a_managed_identity_writes_over_https_and_a_token_never_goes_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, azurite_server: AzuriteServer
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for number, pem in enumerate(certificate.cert_chain_pems):
        pem.write_to_path(tmp_path / "cert.pem", append=number > 0)
    port = free_port()
    command = [
        *azurite(),
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--silent",
        "--inMemoryPersistence",
    ]
    command += ["--oauth", "basic", "--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem")]
    account = AzuriteServer.account
    https = f"https://127.0.0.1:{port}/{account}"
    for name in ("AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ARCHIVER_CA_FILE", str(tmp_path / "ca.pem"))
    with running(command, port, tmp_path / "log", cwd=tmp_path), identity_endpoint() as (identity_url, asked):
        monkeypatch.setenv("IDENTITY_ENDPOINT", identity_url)  # as in App Service and Container Apps
        monkeypatch.setenv("IDENTITY_HEADER", "of the machine")
        with contextlib.closing(AzureBackend(AzureSettings(account, "container-of-it", "", https))) as store:
            store._container.control().create_container()
            upload = store.begin(spec())
            upload.complete(sent(upload), crc32c_of(DATA))
            assert store.read(KEY) == DATA
            store.put(spec(), b"small", crc32c_of(b"small"))
            assert [info.size_bytes for info in store.list()] == [5]
        assert asked[0]["X-IDENTITY-HEADER"] == "of the machine"
        assert len(asked) <= 2, "a token is kept until it expires"

        plain = AzureSettings(account, "container-of-it", "", azurite_server.endpoint_url)
        with contextlib.closing(AzureBackend(plain)) as store:
            for do in puts_and_looks(store):
                with pytest.raises(DestinationRefuses, match="over https only"):
                    do()


@contextlib.contextmanager
def identity_endpoint() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The managed-identity endpoint of a machine in Azure."""
    asked: list[dict[str, str]] = []
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
        "iat": 1,
        "nbf": 1,
        "exp": 4102444800,
    }
    token = jwt.encode(claims, "of nobody" * 8)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append({name.upper(): value for name, value in self.headers.items()})
            body = json.dumps(
                {"access_token": token, "expires_on": "4102444800", "token_type": "Bearer"}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/token", asked
        finally:
            server.shutdown()
            thread.join(10)


def test_a_certificate_is_verified_on_both_paths(tmp_path: Path, server: AzuriteServer) -> None:
    """The library's and our own."""
    from tests.tls_front import tls_front

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    behind = urlsplit(server.endpoint_url).port
    assert behind is not None
    with tls_front(behind, context) as port:
        settings = AzureSettings(
            server.account, "container", "", f"https://127.0.0.1:{port}/{server.account}"
        )
        with contextlib.closing(AzureBackend(settings)) as store:
            for do in puts_and_looks(store):
                with pytest.raises(DestinationRefuses, match="TLS certificate is not accepted"):
                    do()
