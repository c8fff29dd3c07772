"""The published JSON Schema of the manifest (docs/manifest.schema.json), and whatever tests write against it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type] # IRIs, of which there are none: 1.3 s of CPU
from jsonschema import Draft202012Validator  # noqa: E402

SCHEMA = Path(__file__).parents[1] / "docs" / "manifest.schema.json"
_MANY = 200  # objects: a tree of 10,000 is checked by its first and last ones


@lru_cache(maxsize=1)
def validator() -> Draft202012Validator:
    return Draft202012Validator(
        json.loads(SCHEMA.read_text()), format_checker=Draft202012Validator.FORMAT_CHECKER
    )


def assert_valid(manifest: Mapping[str, Any]) -> None:
    objects = manifest.get("objects")
    if isinstance(objects, list) and len(objects) > _MANY:
        manifest = {**manifest, "objects": [*objects[: _MANY // 2], *objects[-_MANY // 2 :]]}
    faults = [f"{fault.json_path}: {fault.message}" for fault in validator().iter_errors(manifest)]
    assert not faults, f"a manifest is not as docs/manifest.schema.json says: {faults}"
