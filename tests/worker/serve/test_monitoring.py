"""The files of deploy/ for Prometheus and Grafana: only metrics that exist, and queries that Prometheus answers."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from starlette.applications import Starlette
from starlette.routing import Route

from archiver.ledger.memory.ledger import MemoryLedger
from tests.core.examples import NOW
from tests.core.fakes import Clock
from tests.valkey import die_with_parent
from tests.walkthrough.user import until
from tests.worker.serve.running import listening
from tests.worker.serve.test_metrics import FIRING, Scraped, fill
from worker.serve.families import FAMILIES
from worker.serve.metrics import Metrics

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus/alerts.yml"
DASHBOARD = DEPLOY / "grafana/archiver.json"
NAMES = {each.name for each in FAMILIES}
with_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")),
    reason="promtool and prometheus are not installed (Debian: apt-get install prometheus)",
)


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def named(expression: str) -> set[str]:
    found = re.findall(r"\barchiver_\w+", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def test_rules_and_panels_use_metrics_that_exist() -> None:
    used = [named(expression) for expression in (*queries(), *(rule["expr"] for rule in rules()))]

    assert all(used)
    assert set().union(*used) <= NAMES


def test_the_dashboard_shows_every_metric() -> None:
    assert set().union(*map(named, queries())) == NAMES


def test_every_rule_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "action"} <= set(rule["annotations"])


def test_panels_do_not_overlap_and_have_their_own_ids() -> None:
    all_panels = json.loads(DASHBOARD.read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in all_panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in all_panels}) == len(all_panels)


@with_prometheus
def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@with_prometheus
def test_promtool_accepts_the_metrics() -> None:
    scraped = Scraped(MemoryLedger(Clock(NOW)), FIRING)
    fill(scraped.ledger)

    done = subprocess.run(
        ["promtool", "check", "metrics"], input=scraped.scrape().text, capture_output=True, text=True
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[httpx.Client]:
    """A Prometheus that scrapes `target` and evaluates our rules."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "archiver", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, preexec_fn=die_with_parent)  # noqa: PLW1509
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            yield client
    finally:
        process.kill()
        process.wait()


@with_prometheus
def test_prometheus_answers_every_panel_with_data_and_evaluates_every_rule(tmp_path: Path) -> None:
    scraped = Scraped(MemoryLedger(Clock(NOW)), FIRING)
    fill(scraped.ledger)
    app = Starlette(routes=[Route("/metrics", Metrics(scraped.collector).metrics)])
    with listening(app) as listener, prometheus(tmp_path, listener.url.removeprefix("http://")) as client:

        def ask(expression: str) -> list[Any]:
            try:
                answer = client.get("/api/v1/query", params={"query": expression})
            except httpx.HTTPError:
                return []
            if answer.status_code == 503:  # it is starting
                return []
            outcome = answer.json()
            assert outcome["status"] == "success", (expression, outcome)
            result: list[Any] = outcome["data"]["result"]
            return result

        until(lambda: bool(ask("rate(archiver_attempts_total[1m])")), seconds=60, what="two scrapes")
        empty = [query for query in queries() if not ask(query)]
        until(
            lambda: bool(ask('ALERTS{alertname="ArchiverBreakerIsOpen"}')), seconds=30, what="a pending alert"
        )
        evaluated = [
            rule for group in client.get("/api/v1/rules").json()["data"]["groups"] for rule in group["rules"]
        ]

    assert empty == []
    assert [rule["name"] for rule in evaluated if rule["health"] != "ok"] == []
    assert len(evaluated) == len(rules())
