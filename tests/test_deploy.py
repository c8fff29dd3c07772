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
ON_THE_BUCKET = {"s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetLifecycleConfiguration"}


def test_the_aws_policy_allows_what_operations_md_lists_and_nothing_else() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    documented = set(re.findall(r"s3:[A-Za-z]+", text[text.index("## The bucket") : text.index("## Redis")]))
    bucket, objects = json.loads((DEPLOY / "aws/policy.json").read_text())["Statement"]

    assert set(bucket["Action"]) == ON_THE_BUCKET
    assert set(bucket["Action"]) | set(objects["Action"]) == documented
    assert objects["Resource"].endswith("/recordings/*")
    assert not bucket["Resource"].endswith("*")


def test_the_lifecycle_rule_aborts_uploads_and_deletes_nothing() -> None:
    (rule,) = json.loads((DEPLOY / "aws/lifecycle.json").read_text())["Rules"]

    assert rule.keys() == {"ID", "Status", "Filter", "AbortIncompleteMultipartUpload"}
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] > 7, (
        "a copy may be resumed for a week"
    )


def test_the_gcp_role_is_of_objects_alone() -> None:
    permissions = yaml.safe_load((DEPLOY / "gcp/role.yaml").read_text())["includedPermissions"]

    assert all(name.startswith("storage.objects.") for name in permissions)


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
