"""`archiver demo`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.walkthrough.user import User


def test_the_demo_ends_with_every_asset_as_it_should(tmp_path: Path) -> None:
    user = User(tmp_path, {})

    said = user.types("demo", "--json", seconds=110)

    assert said.exit_code == 0, said.stdout + said.stderr
    told = json.loads(said.stdout)
    assert told["as_it_should"]
    assert len(told["assets"]) == 22
    for asset in told["assets"]:
        assert not asset["open"] or (tmp_path / asset["open"]).is_file()
