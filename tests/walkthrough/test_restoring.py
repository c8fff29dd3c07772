"""The commands of docs/restoring.md, run as the page has them, bring an asset back and find what is damaged."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import S3Server
from tests.walkthrough.user import User

PAGE = (Path(__file__).parents[2] / "docs/restoring.md").read_text()
WHOLE = "every byte is as it was archived"
needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")


def blocks(of: str) -> list[str]:
    return re.findall(rf"^```sh {of}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def shell(user: User, folder: Path, commands: list[str], **variables: str) -> str:
    """The output of the commands, run in one shell in `folder`, where `python3` is ours."""
    folder.mkdir(exist_ok=True)
    (folder / "bin").mkdir(exist_ok=True)
    if not (folder / "bin/python3").exists():
        (folder / "bin/python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (folder / "bin/python3").chmod(0o755)
    environment = user.full_environment
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", "\n".join(commands)],
        cwd=folder,
        env=environment | variables | {"PATH": f"{folder / 'bin'}:{environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def one_archived_tree(root: Path) -> dict[str, str]:
    found = [json.loads(path.read_text()) for path in (root / "manifests").rglob("*.json")]
    asset_id, folder = next((each["asset_id"], each["folder"]) for each in found if len(each["objects"]) > 10)
    return {"ASSET": asset_id, "ROOM": folder.split("/")[1]}


@needs_jq
def test_an_asset_is_restored_from_a_directory_and_checked(user: User, tmp_path: Path) -> None:
    user.runs_once()
    names = one_archived_tree(tmp_path / "archive")
    names["DEST"] = str(tmp_path / "archive")
    restore, find = blocks("directory")

    listed = shell(user, tmp_path / "out", [restore, find], **names)
    checked = shell(user, tmp_path / "out", blocks("check"), **names)
    restored = tmp_path / "out/restored" / names["ASSET"]
    largest = max(restored.rglob("*.*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1] + b"?")
    changed = shell(user, tmp_path / "out", blocks("check"), **names)
    largest.unlink()

    assert re.search(r"^[0-9a-f]{24} recordings/\S+/room-composite/", listed, re.MULTILINE)
    assert checked.strip() == WHOLE
    assert f"not what was archived: {largest.relative_to(restored)}" in changed
    assert "missing, or another size: " in shell(user, tmp_path / "out", blocks("check")[:1], **names)


@needs_jq
@pytest.mark.skipif(shutil.which("aws") is None, reason="the AWS CLI is not installed")
def test_an_asset_is_restored_from_s3_and_checked(
    user: User, tmp_path: Path, ministack_server: S3Server
) -> None:
    bucket = ministack_server.new_bucket()
    both = {
        **ministack_server.env,
        "ARCHIVER_DESTINATIONS": f"./archive,{ministack_server.url(bucket, 'recordings')}",
    }
    user.environment.update(both)
    user.runs_once()
    names = one_archived_tree(tmp_path / "archive")
    aws = {**ministack_server.env, "AWS_ENDPOINT_URL": ministack_server.endpoint_url}

    output = shell(
        user,
        tmp_path / "out",
        [*blocks("s3"), *blocks("check")],
        **names,
        **aws,
        DEST=f"s3://{bucket}/recordings",
    )

    assert output.splitlines()[-1] == WHOLE
