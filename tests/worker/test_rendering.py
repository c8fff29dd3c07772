"""What `status` and `show` print, whatever the API, a source or a store wrote."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType

from archiver.core.destinations.breaker import OpenBreaker
from archiver.core.forecast import Band, Forecast
from archiver.core.health import Failing, Summary, assess
from archiver.core.health_rules import finding
from archiver.ledger.models import Acknowledgement, AssetState, CopyState, Counts, Decision, Progress, Row
from tests.core.examples import NOW
from worker.cli.cmd_doctor import finding_view
from worker.doctor.check_result import CheckResult, Verdict
from worker.views.rows import row_json, rows_view
from worker.views.show import Copy, asset_view, session_view
from worker.views.status import progress_table, summary_json, summary_view

EVIL = "x\x1b[2J\x1b]0;title\x07\r\x9b31m\u202e\nAll 3 assets are safe.[bold]y"
DAY = timedelta(days=1)


def row(state: AssetState, **fields: Any) -> Row:
    return Row(EVIL, EVIL, state, NOW + DAY, NOW, NOW, room_id=EVIL, reason=EVIL, **fields)


EVERYTHING = Summary(
    at=NOW,
    counts=Counts(3, {AssetState.LOST: 1, AssetState.WAITING: 2}, {AssetState.LOST: 0}),
    at_risk_within=3 * DAY,
    sweep_every=timedelta(minutes=5),
    last_sweep={"started_at": NOW.isoformat(), "assets": EVIL, "new": EVIL, "full": True},
    at_risk=(row(AssetState.WAITING),),
    waiting=(replace(row(AssetState.WAITING), asset_id="other"),),
    needs_attention=(row(AssetState.LOST, acknowledged=Acknowledgement(EVIL, EVIL, NOW)),),
    with_warnings=(replace(row(AssetState.ARCHIVED, warnings=(EVIL,)), reason=None),),
    running=(Progress(EVIL, EVIL, 1, 2, 3, f"folder/{EVIL}"),),
    open_breakers={EVIL: OpenBreaker(EVIL, NOW + DAY)},
    failing=(Failing(EVIL, 20),),
    reported=(finding("machine_fault", EVIL), finding("scrubbed", EVIL)),
    recorded={EVIL: NOW + DAY},
    next_due_at=NOW,
)
MANIFEST: dict[str, Any] = {
    "folder": EVIL,
    "objects": [{"path": EVIL, "size": 1, "crc32c": EVIL, "content_type": EVIL}],
    "damage": [EVIL],
    "doubts": [EVIL],
    "accepted": {"by": EVIL, "at": EVIL, "why": EVIL, "doubts": [EVIL]},
    "warnings": [EVIL],
}


def test_a_list_shows_the_first_warning_without_its_folders_and_counts_the_others() -> None:
    far = f"thumbnail {'folder/' * 20}thumb.png could not be fetched: busy"
    warned = replace(row(AssetState.ARCHIVED, warnings=(far, "b", "c")), asset_id="a1", reason=None)

    text = " ".join(printed(rows_view("", (warned,), NOW)).split())

    assert f"…/thumb.png could not be fetched: busy (and 2 more: `archiver show {warned.asset_id}`)" in text


def printed(renderable: RenderableType) -> str:
    """In a terminal, without the colours that are ours."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, no_color=True, color_system=None, width=100)
    console.print(renderable)
    return file.getvalue()


@pytest.mark.parametrize(
    "renderable",
    [
        pytest.param(summary_view(EVERYTHING), id="status"),
        pytest.param(
            asset_view(
                row(AssetState.LOST, acknowledged=Acknowledgement(EVIL, EVIL, NOW)),
                [Copy(EVIL, MANIFEST, EVIL, EVIL)],
                NOW,
            ),
            id="show",
        ),
        pytest.param(
            session_view(
                row(AssetState.LOST, history=(Decision(EVIL, EVIL, EVIL, NOW),)),
                [Copy(EVIL, EVIL, EVIL, None)],
                NOW,
            ),
            id="show session",
        ),
        pytest.param(
            asset_view(row(AssetState.LOST), [Copy(EVIL, EVIL, EVIL, None)], NOW), id="show without manifest"
        ),
        pytest.param(finding_view(CheckResult(EVIL, Verdict.PROBLEM, EVIL, EVIL)), id="doctor"),
    ],
)
def test_nothing_that_others_wrote_acts_on_the_terminal_or_looks_like_ours(
    renderable: RenderableType,
) -> None:
    text = printed(renderable)

    assert "All 3 assets" in " ".join(text.split())
    assert not set(text) & set("\x1b\x07\r\x9b\u202e")
    assert not [line for line in text.splitlines() if line.startswith("All 3 assets are safe.")]
    assert "[bold]" in text, "markup is text too"


def test_the_headline_comes_first_and_each_problem_on_a_line_of_its_own() -> None:
    lines = printed(summary_view(EVERYTHING)).splitlines()

    health = assess(EVERYTHING)
    assert lines[0].strip() == health.headline
    assert len([line for line in lines if line.startswith("• ")]) == len(health.problems) + len(health.notes)


def test_programs_are_told_the_same() -> None:
    health = assess(EVERYTHING)

    result = json.loads(json.dumps(summary_json(EVERYTHING)))

    assert result["healthy"] is False
    assert result["headline"] == health.headline
    assert [problem["code"] for problem in result["problems"]] == [p.id for p in health.problems]
    assert result["notes"] == list(health.notes)
    assert result["needs_attention"][0]["acknowledged"]["by"] == EVIL


def test_programs_are_told_the_forecast() -> None:
    band = Band(1.0, 2.0, 3.0)
    forecast = Forecast(5, 700, band, band, band, NOW, None, 1000.0, 24)

    result = json.loads(json.dumps(summary_json(replace(EVERYTHING, forecast=forecast))))

    assert result["forecast"]["done_in_seconds"] == {"low": 1.0, "likely": 2.0, "high": 3.0}
    assert result["forecast"]["first_missed_at"] == NOW.isoformat()
    assert summary_json(EVERYTHING)["forecast"] is None


@pytest.mark.parametrize("columns", [80, 120])
def test_whole_asset_ids_of_running_copies_fit_a_terminal(columns: int) -> None:
    asset_id = "6400c0d3e1b2a3c4d5e6f708"
    running = Progress(asset_id, "beam-recording", 20_000_000, 3_000_000_000, 12, "folder/" + "x" * 200)
    file = io.StringIO()

    Console(file=file, width=columns).print(progress_table((running,)))

    assert asset_id in file.getvalue()
    assert "…" in file.getvalue()


def test_the_rows_of_every_type_fit_80_columns() -> None:
    listed = tuple(
        Row("a" * 24, kind, state, NOW + 14 * DAY + timedelta(hours=16), NOW, NOW)
        for kind in ("room-composite-legacy", "chat")
        for state in (AssetState.SOURCE_FAILED, AssetState.ARCHIVED)
    )

    lines = printed(rows_view("Assets", listed, NOW)).splitlines()

    assert len(lines) == 5
    assert lines[0].split() == ["Assets", "100ms", "deletes"]
    assert all("in 14 d 16 h" in line for line in lines[1:])
    assert max(len(line.rstrip()) for line in lines) <= 80


def test_an_asset_says_where_it_is_not_whole() -> None:
    copies = {"s3://one": CopyState.WHOLE, "gs://two": CopyState.LACKING, "file:///b": CopyState.DAMAGED}
    archived = row(AssetState.ARCHIVED, copies=copies)

    listed, shown = printed(rows_view("", (archived,), NOW)), printed(asset_view(archived, [], NOW))

    assert "not at gs://two; damaged at file:///b" in listed
    assert "whole at s3://one, lacking at gs://two, damaged at" in " ".join(shown.split())
    assert row_json(archived)["copies"] == {
        "s3://one": "whole",
        "gs://two": "lacking",
        "file:///b": "damaged",
    }
