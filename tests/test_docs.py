"""Links and paths in the documentation lead somewhere, and the README names every command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from worker.cli import COMMANDS, name_of

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("changelog.d/README.md")])
TOP = "worker|tasks|storage_backends|archiver|tests|docs|deploy|benchmarks"


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_of_code_that_is_named_exists(page: Path) -> None:
    for path in re.findall(rf"`((?:{TOP})/[\w./-]+)`", page.read_text()):
        assert (ROOT / path).exists(), path


def test_the_readme_names_every_command() -> None:
    table = (ROOT / "README.md").read_text().split("## Commands")[1].split("## Settings")[0]
    missing = [
        name_of(command)
        for commands in COMMANDS.values()
        for command in commands
        if not re.search(rf"`{name_of(command)}\b", table)
    ]

    assert missing == []


def test_every_setting_that_is_named_exists() -> None:
    known = set(re.findall(r"^#?(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    texts = [*PAGES, *(ROOT / "changelog.d").iterdir(), ROOT / "archiver/core/health_rules.py"]

    for path in texts:
        named = set(re.findall(r"\bARCHIVER_[A-Z]+(?:_[A-Z]+)*\b(?!_)", path.read_text()))
        assert named <= known, path


def test_the_readme_links_every_page_for_users() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", (ROOT / "README.md").read_text()))
    developers = {"docs/simulation.md"}  # linked from CONTRIBUTING

    assert {str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md")} == linked | developers
    assert all(page in (ROOT / "CONTRIBUTING.md").read_text() for page in developers)
