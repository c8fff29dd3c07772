"""The tree at the top of each errors.py is the tree of its classes."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

import archiver.core.errors
import archiver.hms.errors
import archiver.http.errors
import archiver.ledger.errors
import archiver.transfer.errors
import storage_backends.errors

MODULES = [
    archiver.core.errors,
    archiver.hms.errors,
    archiver.http.errors,
    archiver.ledger.errors,
    archiver.transfer.errors,
    storage_backends.errors,
]
LINE = re.compile(r"^(?P<lead> *(?:[│├└─ ] ?)*)(?P<name>[A-Z]\w*)\b", re.MULTILINE)


def drawn(module: ModuleType) -> dict[str, str | None]:
    """Each class of the drawing, with the one it hangs from."""
    parents: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in LINE.finditer(module.__doc__ or ""):
        depth, name = len(line["lead"]), line["name"]
        if not isinstance(getattr(module, name, None), type):
            continue  # the prose above and below
        while above and above[-1][0] >= depth:
            above.pop()
        parents[name] = above[-1][1] if above else None
        above.append((depth, name))
    return parents


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_drawing_at_the_top_is_the_tree_of_the_classes(module: ModuleType) -> None:
    classes = [
        each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Exception)
    ]
    expected = {
        each.__name__: each.__base__.__name__ if each.__base__ in classes else None
        for each in classes
        if each.__base__ is not None
    }

    assert drawn(module) == expected
