"""`archiver verify --report`."""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.process import Simulator
from tests.walkthrough.user import User


class Page(HTMLParser):
    """Balanced, and without anything that is loaded or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "link", "iframe")
        if tag not in ("meta", "br", "tr", "td", "th", "li"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def page(path: Path) -> str:
    read = Page(path.read_text())
    assert read.open == []
    return " ".join(read.text.split())


def test_a_report_names_every_asset_of_the_period_with_the_digest_of_its_manifest(
    user: User, archived: dict[str, Any]
) -> None:
    day = archived["asset"]["created_at"][:10]

    result = user.types("verify", "--since", day, "--report", "audit.html")

    assert result.exit_code == 0, result.stderr
    report = json.loads((user.folder / "audit.json").read_text())
    assert (report["schema"], report["ok"], report["checked"]) == ("archiver.report/1", True, "every byte")
    assert report["states"] == {"archived": 1}
    [asset] = report["assets"]
    [copy] = asset["copies"]
    manifest = (user.folder / "archive" / copy["manifest"]).read_bytes()
    assert asset["asset_id"] == archived["asset_id"]
    assert (copy["result"], copy["last_drill"]) == ("whole", None)
    assert copy["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert copy["last_full_read"] >= report["made_at"][:16]
    shown = page(user.folder / "audit.html")
    assert "Complete: 1 assets" in shown
    assert copy["manifest_sha256"] in shown
    assert archived["asset"].get("room_id", "-none-") not in shown, "no personal data beyond the id"


def test_what_is_damaged_missing_or_unknown_is_a_problem_and_1(
    user: User, archived: dict[str, Any], empty_simulator: Simulator
) -> None:
    other = empty_simulator.add_asset("chat")
    user.runs_once()
    media = user.media_of(archived)
    media.write_bytes(bytes([media.read_bytes()[0] ^ 1]) + media.read_bytes()[1:])
    [gone] = (user.folder / "archive/manifests").rglob(f"{other['id']}.json")
    gone.with_name("stranger.json").write_text(gone.read_text().replace(other["id"], "stranger"))
    gone.unlink()

    result = user.types("verify", "--report", "audit", "--json")

    assert result.exit_code == 1
    report = json.loads((user.folder / "audit.json").read_text())
    assert not report["ok"]
    assert {each["asset_id"]: each["problem"].split(" at ")[0] for each in report["problems"]} == {
        archived["asset_id"]: "damaged",
        other["id"]: "missing",
        "stranger": "not in the ledger",
    }
    shown = page(user.folder / "audit.html")
    assert "3 of 3 assets have a problem." in shown


def test_an_asset_outside_the_period_is_not_in_the_report_and_an_empty_ledger_is_not_complete(
    user: User, archived: dict[str, Any]
) -> None:
    before = user.types("verify", "--until", "2020-01-01", "--report", "old", "--quick", "--json")
    user.environment["ARCHIVER_REDIS_URL"] = "redis://127.0.0.1:1/0"
    without = user.types("verify", "--report", "blind", "--quick", "--json")

    assert (before.exit_code, before.json["assets"], before.json["ok"]) == (0, 0, True)
    assert without.exit_code == 1, "what lies there is in no ledger"
    assert "the ledger cannot be read" in without.json["not_complete_because"][0]
    assert "It is not known whether this is complete" in page(user.folder / "blind.html")


@pytest.mark.parametrize(
    "typed",
    [
        ("--report", "no/such/folder/x"),
        ("--since", "2026-03-01"),
        ("--report", "x", "--since", "March"),
        ("--report", "x", "--since", "2026-03-02", "--until", "2026-03-01"),
        ("--report", "x", "some-id"),
    ],
)
def test_what_cannot_be_asked_for_is_2(user: User, typed: tuple[str, ...]) -> None:
    assert user.types("verify", *typed).exit_code == 2
