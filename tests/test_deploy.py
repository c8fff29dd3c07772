"""The files of deploy/ say what the archiver really needs."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
POLICIES = DEPLOY / "policies"


def test_the_worker_policy_allows_what_operations_md_lists_and_deletes_only_records_that_are_replaced() -> (
    None
):
    text = (ROOT / "docs/operations.md").read_text()
    documented = set(re.findall(r"s3:[A-Za-z]+", text[text.index("## The bucket") : text.index("## Redis")]))
    bucket, objects, records = json.loads((POLICIES / "s3-worker.json").read_text())["Statement"]

    assert {*bucket["Action"], *objects["Action"], *records["Action"]} == documented
    assert objects["Resource"].endswith("/recordings/*")
    assert not bucket["Resource"].endswith("*")
    assert [name.split("/")[-2] for name in records["Resource"]] == [
        "doctor",
        "checks",
        "ends",
        "events",
        "drills",
    ]


@pytest.mark.parametrize("name", ["s3-lifecycle.json", "s3-lifecycle-cold.json"])
def test_a_lifecycle_rule_aborts_uploads_moves_only_media_and_deletes_nothing(name: str) -> None:
    aborting, *moving = json.loads((POLICIES / name).read_text())["Rules"]

    assert aborting.keys() == {"ID", "Status", "Filter", "AbortIncompleteMultipartUpload"}
    assert aborting["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] > 7, (
        "a copy may be resumed for a week"
    )
    for rule in moving:
        assert rule.keys() == {"ID", "Status", "Filter", "Transitions"}
        assert rule["Filter"] == {"Prefix": "recordings/recordings/"}


def test_the_gcs_lifecycle_rule_moves_only_media() -> None:
    (rule,) = json.loads((POLICIES / "gcs-lifecycle.json").read_text())["rule"]

    assert rule["action"]["type"] == "SetStorageClass"
    assert rule["condition"]["matchesPrefix"] == ["recordings/recordings/"]


@pytest.mark.parametrize("path", sorted(POLICIES.glob("gcs-*.yaml")), ids=lambda path: path.stem)
def test_a_gcs_role_is_of_objects_alone(path: Path) -> None:
    permissions = yaml.safe_load(path.read_text())["includedPermissions"]

    assert all(name.startswith("storage.objects.") for name in permissions)
    assert f"--file deploy/policies/{path.name}" in path.read_text()


def test_the_azure_lifecycle_rule_moves_only_media() -> None:
    (rule,) = json.loads((POLICIES / "az-lifecycle.json").read_text())["rules"]

    assert rule["definition"]["filters"]["prefixMatch"] == ["my-container/recordings/recordings/"]
    assert set(rule["definition"]["actions"]["baseBlob"]) == {"tierToCool"}


@pytest.mark.parametrize("path", sorted(POLICIES.glob("az-*r.json")), ids=lambda path: path.stem)
def test_an_azure_role_is_of_blobs_alone_and_only_the_eraser_deletes_versions(path: Path) -> None:
    role = json.loads(path.read_text())
    blobs = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/"

    assert role["IsCustom"]
    assert all(action.startswith(blobs) for action in role["DataActions"])
    assert all("UserDelegationKey" in action for action in role["Actions"])
    deletes_versions = any("deleteBlobVersion" in action for action in role["DataActions"])
    assert deletes_versions == (path.stem == "az-eraser")
    assert f"{blobs}read" in role["DataActions"]


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").iterdir()), ids=lambda unit: unit.name)
def test_a_unit_is_well_formed_and_runs_a_command_that_exists(unit: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text())

    if unit.suffix == ".timer":
        assert parser["Timer"]["OnUnitInactiveSec"]
        return
    assert parser["Service"]["ExecStart"].split("/bin/archiver ")[1] in ("up", "run --once", "serve")
    assert parser["Service"]["EnvironmentFile"] == "/etc/archiver.env"


def test_crontab_lines_have_five_fields_and_run_from_the_archivers_folder() -> None:
    lines = [
        line
        for line in (DEPLOY / "crontab").read_text().splitlines()
        if line and not line.startswith(("#", "MAILTO"))
    ]

    assert lines
    for line in lines:
        assert re.match(r"(?:[0-9*/,-]+ ){5}cd /srv/archiver && ", line)
