from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from archiver.core.errors import ManifestError
from archiver.core.records import keys, manifest
from archiver.core.records.manifest import TRUSTED, Manifest, new_manifest, read_manifest, without_queries
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, manifest_of, put
from tests.core.examples import NOW, asset

KEY = keys.manifest_key(asset().id, asset().created_at)
SIGNED = "https://storage.example/a/b.mp4?X-Amz-Signature=abc&X-Amz-Expires=3600#part"


def test_a_manifest_is_read_back_as_written() -> None:
    store = MemoryBackend("one")
    archive_at([store], asset())

    assert read_manifest(store, KEY) == manifest_of(asset())


def test_a_manifest_with_doubts_is_invalid_for_a_version_that_knows_only_the_first_schema() -> None:
    """Workers of two versions run side by side."""

    class FirstSchema(Manifest):
        schema_version: Literal["archiver.manifest/1"] = Field(alias="schema")

    doubted = manifest_of(asset(), doubts=("no ENDLIST",))

    with pytest.raises(ValidationError):
        FirstSchema.model_validate_json(doubted.to_bytes())
    assert not doubted.trusted
    assert FirstSchema.model_validate_json(manifest_of(asset()).to_bytes()).trusted


def test_doubts_under_the_first_schema_are_not_archived_either() -> None:
    odd = manifest_of(asset(), doubts=("no ENDLIST",)).model_copy(update={"schema_version": TRUSTED})

    assert not odd.trusted


def test_a_missing_manifest_is_none() -> None:
    assert read_manifest(MemoryBackend("one"), KEY) is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "archiver.manifest/3"},
        {"schema": None},
        {"objects": [{"path": "a.mp4", "size": -1, "crc32c": "00000000", "content_type": ""}]},
        {"objects": [{"path": "a.mp4", "size": 1, "crc32c": "not hex!", "content_type": ""}]},
        {"objects": [{"path": "../../etc/passwd", "size": 1, "crc32c": "00000000", "content_type": ""}]},
        {"folder": "/etc"},
        {"folder": None},
        {"archived_at": "yesterday"},
        {"archived_at": "2026-03-01T12:00:00"},
        {"total_size": "much"},
    ],
    ids=str,
)
def test_an_invalid_manifest_is_an_error(change: dict[str, Any]) -> None:
    store = MemoryBackend("one")
    fields = {**json.loads(manifest_of(asset()).to_bytes()), **change}
    put(store, KEY, json.dumps({name: value for name, value in fields.items() if value is not None}).encode())

    with pytest.raises(ManifestError, match=KEY):
        read_manifest(store, KEY)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000], ids=lambda data: repr(data[:8])
)
def test_a_manifest_that_is_not_json_is_an_error(data: bytes) -> None:
    store = MemoryBackend("one")
    put(store, KEY, data)

    with pytest.raises(ManifestError):
        read_manifest(store, KEY)


def test_a_manifest_too_large_to_be_ours_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryBackend("one")
    monkeypatch.setattr(manifest, "MAX_MANIFEST_BYTES", 10)
    archive_at([store], asset())

    with pytest.raises(ManifestError, match="more than any manifest of ours"):
        read_manifest(store, KEY)


def test_no_query_of_a_url_is_ever_in_a_manifest() -> None:
    row = asset(extra={"deep": [SIGNED]}, note=f"see {SIGNED} and {SIGNED}")

    made = new_manifest(
        row,
        folder="f",
        form="file",
        version="v",
        objects=(),
        warnings=(f"thumbnail could not be fetched from {SIGNED}",),
        facts={"source": SIGNED},
        now=NOW,
        archiver_version="test",
    )

    text = made.to_bytes().decode()
    assert "X-Amz" not in text
    assert "#part" not in text
    assert text.count("https://storage.example/a/b.mp4") == 5


def test_a_question_mark_outside_a_url_stays() -> None:
    assert without_queries({"name": "What? Why?"}) == {"name": "What? Why?"}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_json)
def test_removing_queries_keeps_the_shape_and_is_idempotent(value: Any) -> None:
    once = without_queries(value)

    assert without_queries(once) == once
    assert type(once) is type(value)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("HTTPS://storage.example/a.mp4?sig=CANARY", "HTTPS://storage.example/a.mp4"),
        ("s3://bucket/a.mp4?X-Amz-Signature=CANARY", "s3://bucket/a.mp4"),
        ("//cdn.example/a.mp4?token=CANARY", "//cdn.example/a.mp4"),
        ("https://user:CANARY@storage.example/a.mp4", "https://storage.example/a.mp4"),
        ("/a/b.mp4?X-Amz-Signature=CANARY", "/a/b.mp4"),
        ("b.mp4?sig=CANARY&e=1", "b.mp4"),
        ("see b.mp4?sig=CANARY and c.mp4?sig=CANARY", "see b.mp4 and c.mp4"),
    ],
)
def test_a_secret_is_removed_from_every_kind_of_url(given: str, kept: str) -> None:
    assert without_queries({"url": given}) == {"url": kept}


@pytest.mark.parametrize("path", ["s3://bucket/rec#1/a.mp4", "s3://bucket/what?.mp4", "a//b", "// what? no"])
def test_a_storage_path_is_kept_as_it_is(path: str) -> None:
    assert without_queries({"path": path}) == {"path": path}
