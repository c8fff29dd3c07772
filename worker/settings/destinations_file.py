"""ARCHIVER_DESTINATIONS_FILE: destinations and their options in TOML, for those whose URL would be long.

[[destination]]
url = "s3://bucket/prefix"
region = "eu-west-1"
storage_class = "GLACIER_IR"
tags = ["room", "session", "team=video"]
kms_context = {department = "media"}
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import quote

from storage_backends.destination_url import is_plain_path, shown

_TABLE = "destination"


def destinations_in(path: Path) -> tuple[str, ...]:
    """Return each destination as a URL with its options as query. Raises ValueError, which names the destination and
    what is wrong, never a value."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} cannot be read: it is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    for name in content.keys() - {_TABLE}:
        hint = "; did you mean [[destination]]?" if get_close_matches(name, [_TABLE]) else ""
        raise ValueError(f"{path} has an unknown table {name!r}{hint}")
    tables = content.get(_TABLE, [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{path} names no destination; write [[destination]] and below it url = ...")
    return tuple(_url(path, number, table) for number, table in enumerate(tables, 1))


def _url(path: Path, number: int, table: Mapping[str, Any]) -> str:
    url = table.get("url")
    if not isinstance(url, str) or not url.strip():
        raise ValueError(f"{path}: destination {number} has no url, such as s3://bucket/prefix")
    url = url.strip()
    options = {name: value for name, value in table.items() if name != "url"}
    if not options:
        return url
    if is_plain_path(url):
        raise ValueError(f"{path}: destination {number} is a directory, which has no options")
    query = "&".join(
        f"{quote(name, safe='')}={quote(_text(path, url, name, value), safe='')}"
        for name, value in options.items()
    )
    return f"{url}{'&' if '?' in url else '?'}{query}"


def _text(path: Path, url: str, name: str, value: object) -> str:
    """Return a value as it stands in a URL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, list) and all(isinstance(each, str | int) for each in value):
        return ";".join(map(str, value))
    if isinstance(value, dict) and all(isinstance(each, str | int) for each in value.values()):
        return ";".join(f"{key}={each}" for key, each in value.items())
    raise ValueError(
        f"{path}: destination {shown(url)}: {name} is a text, a number, true or false, a list, or a table of texts"
    )
