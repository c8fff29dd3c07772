"""docs/manifest.schema.json describes the manifests of this version, and those of earlier ones."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from archiver.core.records.manifest import Manifest, ManifestObject
from tests.manifest_schema import SCHEMA, assert_valid, validator

PUBLISHED: dict[str, Any] = json.loads(SCHEMA.read_text())
OF_0_1 = {
    "schema": "archiver.manifest/1",
    "asset_id": "6400c0d3e1b2a3c4d5e6f708",
    "asset": {"id": "6400c0d3e1b2a3c4d5e6f708", "type": "chat"},
    "folder": "recordings/r/s/chat/6400c0d3e1b2a3c4d5e6f708",
    "form": "file",
    "version": "v",
    "objects": [
        {"path": "chat.csv", "size": 3, "crc32c": "0123abcd", "content_type": "text/csv", "source_etag": None}
    ],
    "total_size": 3,
    "warnings": [],
    "facts": {},
    "archived_at": "2026-03-02T00:00:00Z",
    "archiver_version": "0.1.0",
}


def test_the_schema_is_a_schema() -> None:
    validator().check_schema(PUBLISHED)


def test_it_names_every_field_and_requires_what_is_always_there() -> None:
    names = {field.alias or name: field.is_required() for name, field in Manifest.model_fields.items()}

    assert set(PUBLISHED["properties"]) == set(names)
    assert set(PUBLISHED["required"]) == {name for name, required in names.items() if required}
    assert set(PUBLISHED["$defs"]["object"]["properties"]) == {field.name for field in fields(ManifestObject)}


def test_a_manifest_of_an_earlier_version_and_one_with_fields_of_a_later_one_are_valid() -> None:
    assert_valid(OF_0_1)
    assert_valid({**OF_0_1, "of_the_future": [1], "objects": [{**OF_0_1["objects"][0], "also": 1}]})  # type: ignore[index]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "archiver.manifest/3"},
        {"total_size": "3"},
        {"archived_at": None},
        {"doubts": []},
        {"objects": [{"path": "a", "size": -1, "crc32c": "0123abcd", "content_type": "x/y"}]},
        {"objects": [{"path": "a", "size": 1, "crc32c": "0123ABCD", "content_type": "x/y"}]},
        {"objects": [{"path": "a", "size": 1, "content_type": "x/y"}]},
    ],
)
def test_what_is_no_manifest_is_not_valid(change: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match=r"docs/manifest\.schema\.json"):
        assert_valid({**OF_0_1, **change})
