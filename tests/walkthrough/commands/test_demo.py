"""`archiver demo`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.walkthrough.user import User


def test_the_demo_ends_with_every_asset_as_it_should(tmp_path: Path) -> None:
    user = User(tmp_path, {})

    result = user.types("demo", "--json", seconds=110)

    assert result.exit_code == 0, result.stdout + result.stderr
    outcome = json.loads(result.stdout)
    assert outcome["as_it_should"]
    assert len(outcome["assets"]) == 22
    for asset in outcome["assets"]:
        assert not asset["open"] or (tmp_path / asset["open"]).is_file()
