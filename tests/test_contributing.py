"""CONTRIBUTING.md names what exists, and answers where to change what."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PATH = re.compile(r"`((?:\.?[\w-]+/)*[\w.-]+\.(?:py|md|toml|lock|example)|(?:[\w-]+/)+)`")
CHANGES = (
    "storage",
    "asset type",
    "retry policy",
    "metric",
    "Object Lock",
    "alert channel",
    "web page",
    "key layout",
    "account",
    "ledger",
    "CLI command",
    "part size",
)


def section(title: str) -> str:
    return re.split(r"^##+ ", TEXT[TEXT.index(f"## {title}") + 3 :], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("path", sorted(set(PATH.findall(TEXT))))
def test_a_named_path_exists(path: str) -> None:
    """`<name>` and bare file names in the drawn tree are not paths."""
    assert (ROOT / path).exists()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_the_tree_has_every_folder_that_is_drawn_and_draws_every_package() -> None:
    drawn = []
    parents = {0: ROOT}
    for indent, name in re.findall(r"^( *)([a-z_]+)/ ", section("The tree"), re.MULTILINE):
        path = parents[len(indent)] / name
        assert path.is_dir(), path
        parents[len(indent) + 2] = path
        drawn.append(path)
    library = [ROOT / "archiver", ROOT / "archiver/core"]
    packages = {path.parent for each in library for path in each.glob("*/__init__.py")}

    assert packages <= set(drawn)


@pytest.mark.parametrize("change", CHANGES)
def test_the_table_says_where_to_begin_with(change: str) -> None:
    rows = [
        (first, second)
        for first, second in re.findall(
            r"^\| (.+?) \| (.+) \|$", section("Where do I change X"), re.MULTILINE
        )
        if change.lower() in first.lower()
    ]

    assert rows
    assert any(PATH.search(second) for _, second in rows)
