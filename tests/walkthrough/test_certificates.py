"""What `archiver` says of certificates, and of the files of authorities that settings name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.servers import S3Server
from tests.simulator.process import Simulator, running_simulator
from tests.tls_front import tls_front
from tests.trust import certificates
from tests.trust.certificates import HOST, server_context
from tests.valkey import ValkeyServer
from tests.walkthrough.running import up
from tests.walkthrough.user import TRACEBACK, Said, User, user_of

WRONG_SETTINGS, NOT_SERVED = 2, 3  # worker/cli/shared.py


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_bytes(certificates.good().authority)
    return file


@pytest.fixture
def secure_simulator(tmp_path: Path, authority: Path) -> Iterator[Simulator]:
    """The API over https on loopback."""
    certificate = certificates.good()
    (tmp_path / "chain.pem").write_bytes(certificate.chain)
    (tmp_path / "key.pem").write_bytes(certificate.key)
    with running_simulator(
        "minimal",
        tls_certificate=tmp_path / "chain.pem",
        tls_key=tmp_path / "key.pem",
        trusted=authority,
    ) as simulator:
        yield simulator


def _findings(result: Said) -> dict[str, dict[str, str]]:
    return {finding["subject"].split(" at ")[0]: finding for finding in result.json}


@pytest.mark.parametrize(
    ("setting", "more"),
    [
        ("ARCHIVER_CA_FILE", {}),
        ("SSL_CERT_FILE", {}),
        ("AWS_CA_BUNDLE", {"ARCHIVER_DESTINATIONS": "s3://bucket"}),
        ("REQUESTS_CA_BUNDLE", {"ARCHIVER_DESTINATIONS": "gs://bucket"}),
    ],
)
@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("missing.pem", "does not exist"),
        ("empty.pem", "holds no certificate"),
        ("folder", "is no regular file"),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_a_file_of_authorities_that_cannot_be_used_is_named_with_its_setting(
    tmp_path: Path, setting: str, more: dict[str, str], name: str, result: str, in_file: bool
) -> None:
    (tmp_path / "empty.pem").touch()
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    if in_file:
        (tmp_path / ".env").write_text(f"{setting}={path}\n")
    user = User(tmp_path, more if in_file else {**more, setting: str(path)})

    answer = user.types("doctor")

    assert answer.exit_code == WRONG_SETTINGS
    assert f"{setting}: {path} {result}" in answer.text
    assert TRACEBACK not in answer.text


def test_an_api_on_loopback_is_trusted_by_the_setting_and_archives_over_tls(
    tmp_path: Path, secure_simulator: Simulator, authority: Path, redis_url: str
) -> None:
    user = user_of(tmp_path, secure_simulator, redis_url, ARCHIVER_CA_FILE="ca.pem")

    doctor = user.types("doctor", "--json")
    result = user.runs_once("--wait", "0")

    found = _findings(doctor)
    assert {found[subject]["verdict"] for subject in ("certificates", "100ms API", "source")} == {"ok"}
    assert f"ARCHIVER_CA_FILE, {authority}" in found["certificates"]["detail"]
    assert result.exit_code == 0, result.stderr
    assert set(result.states) == {"archived"}


def test_an_api_whose_authority_is_unknown_is_told_from_a_passing_fault(
    tmp_path: Path, secure_simulator: Simulator, redis_url: str
) -> None:
    user = user_of(tmp_path, secure_simulator, redis_url)

    result = user.runs_once("--wait", "0")
    doctor = user.types("doctor", "--json")

    assert result.exit_code == NOT_SERVED
    assert "its TLS certificate is not accepted: unable to get local issuer certificate" in result.text
    assert "ARCHIVER_CA_FILE" in result.text
    found = _findings(doctor)
    assert found["100ms API"]["verdict"] == "problem"
    assert "unable to get local issuer certificate" in found["100ms API"]["detail"]
    assert "source" not in found


def test_a_redis_over_tls_serves_ledger_and_broker(
    tmp_path: Path, simulator: Simulator, shared_valkey: ValkeyServer, redis_url: str, authority: Path
) -> None:
    with tls_front(shared_valkey.port, server_context(certificates.good(), tmp_path)) as port:
        user = user_of(tmp_path, simulator, f"rediss://{HOST}:{port}/0")
        refused = user.types("status")
        answered = user.types("status", ARCHIVER_CA_FILE=str(authority))

    assert refused.exit_code == NOT_SERVED
    assert "its TLS certificate is not accepted: unable to get local issuer certificate" in refused.text
    assert answered.exit_code in (0, 1)
    assert TRACEBACK not in refused.text + answered.text


def test_a_destination_with_another_hosts_certificate_is_left_alone_and_costs_no_attempt(
    tmp_path: Path, empty_simulator: Simulator, moto_server: S3Server, redis_url: str, authority: Path
) -> None:
    asset_id = empty_simulator.add_asset("chat")["id"]
    behind = urlsplit(moto_server.endpoint_url).port
    assert behind is not None
    with tls_front(behind, server_context(certificates.of_another_host(), tmp_path)) as port:
        destination = f"s3://{moto_server.new_bucket()}?endpoint_url=https://{HOST}:{port}"
        user = user_of(
            tmp_path,
            empty_simulator,
            redis_url,
            **moto_server.env,
            ARCHIVER_DESTINATIONS=destination,
            ARCHIVER_CA_FILE=str(authority),
        )
        user.runs_once("--wait", "0")
        status, shown = user.types("status"), user.types("show", "--json", asset_id)

    assert "Circuit breaker open until" in status.text
    assert "its TLS certificate is not accepted" in status.text
    assert "correct the host name" in status.text
    assert shown.json["row"]["attempts"] == 0


@pytest.mark.chaos
def test_workers_flower_and_the_ledger_speak_to_redis_over_tls(
    tmp_path: Path, secure_simulator: Simulator, shared_valkey: ValkeyServer, redis_url: str, authority: Path
) -> None:
    """The authorities are found by the processes that a worker forks, too."""
    secure_simulator.add_asset("chat")
    with tls_front(shared_valkey.port, server_context(certificates.good(), tmp_path)) as port:
        user = user_of(
            tmp_path, secure_simulator, f"rediss://{HOST}:{port}/0", ARCHIVER_CA_FILE=str(authority)
        )
        with up(user) as running:
            count = len(secure_simulator.truth(checksums=False))
            running.wait_for_states(archived=count, seconds=60)
            assert running.flower("/workers").status_code == 200

    assert TRACEBACK not in "".join(log.read_text() for log in tmp_path.glob(".archiver/logs/*.log"))


def test_doctor_says_when_there_is_no_recording_to_read(
    tmp_path: Path, empty_simulator: Simulator, redis_url: str
) -> None:
    found = _findings(user_of(tmp_path, empty_simulator, redis_url).types("doctor", "--json"))

    assert found["source"]["verdict"] == "ok"
    assert "no recording" in found["source"]["detail"]


def test_doctor_says_why_no_recording_can_be_read(
    tmp_path: Path, empty_simulator: Simulator, redis_url: str
) -> None:
    empty_simulator.add_asset("composite")
    empty_simulator.fault("early-expiry", on="storage", times=None)

    found = _findings(user_of(tmp_path, empty_simulator, redis_url).types("doctor", "--json"))

    assert found["source"]["verdict"] == "problem"
    assert "403" in found["source"]["detail"]
    assert found["source"]["remedy"]
