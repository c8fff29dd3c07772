"""Statements are made once, signed and chained, and the published script verifies them without this package."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from archiver.core.records import statements, tombstones
from archiver.core.records.commit import accept, mark_damaged
from archiver.core.records.manifest import read_manifest
from archiver.core.records.statements import SigningKey, StatementRefused
from archiver.core.upkeep.statement_report import expect_statements, record_statements, statement_findings
from archiver.core.upkeep.stating import Made, Stater, TimeStampRefused, state
from archiver.hms.models import Asset
from archiver.http import trust
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.registry import open_destination
from tests.core.archived import archive_at, manifest_of, put
from tests.core.examples import asset
from worker.time_stamps import TimeStampAuthority

SCRIPT = Path(__file__).parents[3] / "docs" / "verify_statements.py"
RETENTION = timedelta(days=15)
LATER = datetime(2026, 5, 20, tzinfo=UTC)  # March and April are due
KEY = SigningKey(base64.b64encode(bytes(range(32))).decode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def store(folder: Path) -> Iterator[StorageBackend]:
    with contextlib.closing(open_destination(str(folder))) as made:
        yield made


def on(day: str, asset_id: str) -> Asset:
    return asset(id=asset_id, created_at=f"{day}T10:00:00Z")


def make(store: StorageBackend, now: datetime = LATER, key: SigningKey = KEY, **options: Any) -> list[Made]:
    return list(state(store, key, clock=lambda: now, retention=RETENTION, version="test", **options))


def archived(store: StorageBackend) -> list[ObjectKey]:
    days = ("2026-03-01", "2026-03-31", "2026-04-15")
    return [archive_at([store], on(day, f"asset-{number}")) for number, day in enumerate(days)]


def verified(folder: Path, tmp_path: Path, *more: str, key: SigningKey = KEY) -> tuple[int, str]:
    """Run the script as a person without this package would: isolated, with the public key in a file."""
    public = tmp_path / "public.pem"
    public.write_text(key.public_pem)
    ran = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), str(folder), "--key", str(public), *more],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stderr == ""
    return ran.returncode, ran.stdout


# -- making


def test_every_month_that_is_due_is_stated_once_and_chained(store: StorageBackend, folder: Path) -> None:
    archived(store)

    first = make(store)
    second = make(store)

    assert [(made.month, made.assets, made.written) for made in first] == [
        ("2026-03", 2, True),
        ("2026-04", 1, True),
    ]
    assert [made.written for made in second] == [False, False]
    march, april = ((folder / f"statements/2026-0{month}.json").read_bytes() for month in (3, 4))
    assert json.loads(march)["previous"] is None
    assert json.loads(april)["previous"] == {"month": "2026-03", "sha256": hashlib.sha256(march).hexdigest()}


@pytest.mark.parametrize(
    ("now", "months"),
    [
        (datetime(2026, 4, 16, 23, tzinfo=UTC), []),
        (datetime(2026, 4, 17, tzinfo=UTC), ["2026-03"]),
        (datetime(2026, 7, 1, tzinfo=UTC), ["2026-03", "2026-04", "2026-05"]),
    ],
    ids=str,
)
def test_a_month_is_due_when_nothing_of_it_can_be_archived_any_more(
    store: StorageBackend, now: datetime, months: list[str]
) -> None:
    archived(store)

    assert [made.month for made in make(store, now)] == months, "also a month without a manifest"


def test_an_undated_asset_is_stated_in_the_month_in_which_it_was_archived(store: StorageBackend) -> None:
    archived(store)
    key = archive_at([store], asset(id="undated", created_at=None))
    month = read_manifest(store, key).archived_at.strftime("%Y-%m")  # type: ignore[union-attr]

    make(store)

    found = [m for m in ("2026-03", "2026-04") if key in str(statements.read(store, m))]
    assert found == [month]


def test_a_run_that_was_killed_before_the_signature_is_completed(store: StorageBackend, folder: Path) -> None:
    archived(store)
    make(store)
    (folder / "statements/2026-03.sig").unlink()

    with pytest.raises(StatementRefused, match="names another key than ARCHIVER_STATEMENT_KEY"):
        make(store, key=SigningKey.new()[1])
    make(store)

    assert len((folder / "statements/2026-03.sig").read_bytes()) == 64


def test_another_key_goes_on_with_the_chain(store: StorageBackend, folder: Path, tmp_path: Path) -> None:
    archived(store)
    make(store, datetime(2026, 4, 20, tzinfo=UTC))
    other = SigningKey.new()[1]
    make(store, key=other)
    old = tmp_path / "old.pem"
    old.write_text(KEY.public_pem)

    assert verified(folder, tmp_path, "--key", str(old), key=other)[0] == 0
    code, said = verified(folder, tmp_path, key=other)
    assert code == 1
    assert "2026-03.json: the signature is not valid" in said


def test_two_that_make_one_at_once_make_one(store: StorageBackend, folder: Path, tmp_path: Path) -> None:
    archived(store)
    start = threading.Barrier(3)

    def run(number: int) -> None:
        start.wait(10)
        make(store, LATER + timedelta(seconds=number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert verified(folder, tmp_path)[0] == 0


def test_nothing_is_stated_after_a_statement_that_was_altered(store: StorageBackend, folder: Path) -> None:
    archived(store)
    make(store, datetime(2026, 4, 20, tzinfo=UTC))
    path = folder / "statements/2026-03.json"
    path.write_bytes(path.read_bytes().replace(b"asset-0", b"asset-X"))

    with pytest.raises(StatementRefused, match="does not fit its statement"):
        make(store)

    assert not (folder / "statements/2026-04.json").exists()


def test_each_night_what_is_due_is_made_and_one_that_is_refused_does_not_keep_the_others_from_it(
    store: StorageBackend, folder: Path, tmp_path: Path
) -> None:
    other = open_destination(str(tmp_path / "other"))
    for each in (store, other):
        archived(each)
    make(store, datetime(2026, 4, 20, tzinfo=UTC))
    path = folder / "statements/2026-03.json"
    path.write_bytes(path.read_bytes() + b" ")
    ledger = MemoryLedger(lambda: LATER)

    def stater(key: SigningKey | None) -> Stater:
        return Stater(
            ledger=ledger,
            destinations=[store, other],
            key=key,
            clock=lambda: LATER,
            retention=RETENTION,
            version="test",
        )

    assert stater(None).state_due() == 0
    assert stater(KEY).state_due() == 2
    assert stater(KEY).state_due() == 0
    assert verified(tmp_path / "other", tmp_path)[0] == 0
    (missing,) = statement_findings(expect_statements(ledger, LATER), LATER + timedelta(days=4), RETENTION)
    assert (missing.id, missing.cause, "was altered" in missing.text) == (
        "statement_missing",
        store.name,
        True,
    )


DUE = datetime(2026, 5, 17, tzinfo=UTC)  # when April is
AWAY = "it does not answer"


@pytest.mark.parametrize(
    ("runs", "looked_at", "expected"),
    [
        ([], DUE + timedelta(days=2), []),
        ([], DUE + timedelta(days=4), ["Nothing has looked for the statement of 2026-04"]),
        ([(DUE, None)], DUE + timedelta(days=33), []),
        ([(DUE, None)], DUE + timedelta(days=40), ["2026-05 is missing at one, or was not looked for"]),
        ([(DUE, AWAY)], DUE + timedelta(days=2), []),
        ([(DUE, AWAY)], DUE + timedelta(days=4), [AWAY]),
        ([(DUE, AWAY), (DUE + timedelta(days=3), None)], DUE + timedelta(days=4), []),
        # nothing is due while it is away
        ([(DUE, None), (DUE + timedelta(days=1), AWAY)], DUE + timedelta(days=20), []),
        ([(DUE, None), (DUE + timedelta(days=1), AWAY)], DUE + timedelta(days=40), [AWAY]),
    ],
)
def test_a_statement_that_is_missing_days_after_it_was_due_is_a_problem(
    runs: list[tuple[datetime, str | None]], looked_at: datetime, expected: list[str]
) -> None:
    ledger = MemoryLedger(lambda: DUE)
    expect_statements(ledger, DUE)
    for at, why in runs:
        record_statements(ledger, {"one": why, "two": None}, at)

    found = [
        each
        for each in statement_findings(expect_statements(ledger, looked_at), looked_at, RETENTION)
        if each.cause != "two"
    ]

    assert [part in each.text for part, each in zip(expected, found, strict=True)] == [True] * len(expected)
    assert {each.id for each in found} <= {"statement_missing"}


def test_of_a_destination_that_was_removed_nothing_is_expected() -> None:
    ledger = MemoryLedger(lambda: DUE)
    record_statements(ledger, {"one": AWAY, "two": None}, DUE)
    record_statements(ledger, {"two": None}, DUE + timedelta(days=1))

    late = DUE + timedelta(days=10)
    assert not list(statement_findings(expect_statements(ledger, late), late, RETENTION))


# -- verifying


def test_what_is_as_it_was_stated_is_verified(store: StorageBackend, folder: Path, tmp_path: Path) -> None:
    archived(store)
    make(store)

    assert verified(folder, tmp_path) == (0, "2 statements, 3 manifests, 0 changes explained, 0 faults\n")


def altered(folder: Path, key: ObjectKey) -> None:
    path = folder / key
    manifest = json.loads(path.read_bytes())
    manifest["objects"][0]["crc32c"] = "00000000"
    path.write_text(json.dumps(manifest))


def annotated(folder: Path, key: ObjectKey) -> None:
    path = folder / key
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "note": "harmless?"}))


def marked_and_altered(folder: Path, key: ObjectKey) -> None:
    altered(folder, key)
    path = folder / key
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "damage": ["rot"]}))


def gone(folder: Path, key: ObjectKey) -> None:
    (folder / key).unlink()


def added(folder: Path, key: ObjectKey) -> None:
    (folder / key).with_name("smuggled.json").write_bytes((folder / key).read_bytes())


def last_replaced(folder: Path, _key: ObjectKey) -> None:
    for name in ("json", "sig"):
        (folder / f"statements/2026-03.{name}").unlink()


def signature_swapped(folder: Path, _key: ObjectKey) -> None:
    path = folder / "statements/2026-04.sig"
    path.write_bytes((folder / "statements/2026-03.sig").read_bytes())


@pytest.mark.parametrize(
    "tamper", [altered, annotated, marked_and_altered, gone, added, last_replaced, signature_swapped]
)
def test_one_thing_that_was_tampered_with_fails_it(
    store: StorageBackend, folder: Path, tmp_path: Path, tamper: Callable[[Path, ObjectKey], None]
) -> None:
    first, *_ = archived(store)
    make(store)

    tamper(folder, first)

    code, said = verified(folder, tmp_path)
    assert code == 1
    assert said.count("FAULT") >= 1, said


def test_what_later_records_explain_is_no_fault(store: StorageBackend, folder: Path, tmp_path: Path) -> None:
    damaged, replaced, _ = archived(store)
    doubted = archive_at([store], on("2026-03-05", "doubted"), doubts=("short",))
    erased = archive_at([store], on("2026-03-06", "erased"))
    expired = archive_at([store], on("2026-03-07", "expired"))
    make(store)

    mark_damaged(store, damaged, ["rot"])
    accept(store, doubted, by="ops", why="it is all there is", at=LATER)
    again = manifest_of(on("2026-03-31", "asset-1"), {"movie.mp4": b"other"})
    put(store, replaced, replace_manifest(again).to_bytes())
    for name, key, ended in (("erased", erased, AssetState.ERASED), ("expired", expired, AssetState.EXPIRED)):
        (folder / key).unlink()
        tombstones.write(store, tombstones.Tombstone(name, ended, "T-1", LATER))

    code, said = verified(folder, tmp_path)
    assert code == 0, said
    assert sorted(line.split(": ", 1)[1] for line in said.splitlines()[:-1]) == sorted(
        [
            "marked as damaged",
            "accepted by ops",
            f"archived again at {LATER.isoformat().replace('+00:00', 'Z')}",
            "gone: erased",
            "gone: expired",
        ]
    )


def replace_manifest(manifest: Any) -> Any:
    return manifest.model_copy(update={"archived_at": LATER, "fence": 7})


# -- time stamps


@contextlib.contextmanager
def time_stamping_authority(folder: Path) -> Iterator[str]:
    """openssl as the authority, behind HTTP. Its certificate is its own authority: ca.pem."""
    folder.mkdir()
    config = folder / "tsa.cnf"
    config.write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=ext\nprompt=no\n[dn]\nCN=Test TSA\n"
        "[ext]\nbasicConstraints=critical,CA:TRUE\nextendedKeyUsage=critical,timeStamping\n"
        f"[tsa]\ndefault_tsa=t\n[t]\nserial={folder}/serial\nsigner_cert={folder}/ca.pem\nsigner_key={folder}/key.pem\n"
        "signer_digest=sha256\ndefault_policy=1.2.3.4.1\ndigests=sha256\naccuracy=secs:1\ness_cert_id_alg=sha256\n"
    )
    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-config", str(config)]
    openssl(*new, "-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem"))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (folder / "query").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            openssl(
                *[
                    "ts",
                    "-reply",
                    "-config",
                    str(config),
                    "-section",
                    "t",
                    "-queryfile",
                    str(folder / "query"),
                ],
                *["-out", str(folder / "reply")],
            )
            body = (folder / "reply").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/tsa?token=secret"
        finally:
            server.shutdown()
            thread.join(10)


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


def test_a_statement_is_stamped_by_an_authority_and_the_stamp_is_verified(
    store: StorageBackend, folder: Path, tmp_path: Path
) -> None:
    archived(store)
    with (
        time_stamping_authority(tmp_path / "tsa") as url,
        contextlib.closing(TimeStampAuthority(SecretStr(url), trust.authorities())) as stamps,
    ):
        made = make(store, stamps=stamps)
        again = make(store, stamps=stamps)

    assert [each.stamped for each in made] == [True, True]
    assert [each.stamped for each in again] == [False, False]
    ca = str(tmp_path / "tsa/ca.pem")
    assert verified(folder, tmp_path, "--tsa-ca", ca)[0] == 0
    stamp = folder / "statements/2026-03.tsr"
    stamp.write_bytes((folder / "statements/2026-04.tsr").read_bytes())
    code, said = verified(folder, tmp_path, "--tsa-ca", ca)
    assert (code, "2026-03.json: no valid time stamp" in said) == (1, True)


def test_an_authority_that_is_away_is_told_and_the_statements_are_made_all_the_same(
    store: StorageBackend, folder: Path, tmp_path: Path
) -> None:
    archived(store)
    with (
        contextlib.closing(
            TimeStampAuthority(SecretStr("http://127.0.0.1:9/?token=secret"), trust.authorities())
        ) as away,
        pytest.raises(TimeStampRefused) as caught,
    ):
        make(store, stamps=away)

    assert "secret" not in str(caught.value)
    assert verified(folder, tmp_path)[0] == 0


# -- keys


@pytest.mark.parametrize("text", ["", "no base64!", base64.b64encode(b"short").decode()])
def test_a_key_that_is_none_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match="archiver statement new-key") as caught:
        SigningKey(text)

    assert not text or text not in str(caught.value)


def test_every_new_key_is_another() -> None:
    assert SigningKey.new()[0] != SigningKey.new()[0]


def test_the_script_is_one_page_and_needs_the_standard_library_alone() -> None:
    text = SCRIPT.read_text()
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}

    assert imported <= set(sys.stdlib_module_names)
    assert len(text.splitlines()) <= 130
