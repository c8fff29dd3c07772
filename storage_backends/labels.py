"""Tags and metadata that a destination gives to the objects of a recording.

    tags=room;session;type;team=video

A bare name is a label of the recording, `name=value` is the same on every object. A label that the recording does not
have is left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from storage_backends.base import ObjectSpec
from storage_backends.destination_url import DestinationUrl
from storage_backends.errors import BadDestinationUrl

LABELS: Final = ("room", "session", "type", "asset")
"""What `ObjectSpec.labels` has of a recording: the ids of room, session and asset, and the asset's type."""

MAX_VALUE_CHARACTERS = 256  # of an S3 tag; enough for metadata

_NAME = re.compile(r"[a-z][a-z0-9]{0,62}")  # as of ObjectSpec.metadata: some servers change any other
_TAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 +\-._:/@]{0,127}")
_VALUE = re.compile(r"[A-Za-z0-9 +\-=._:/@]{1,256}")
_NOT_IN_A_VALUE = re.compile(r"[^A-Za-z0-9 +\-=._:/@]")


@dataclass(frozen=True, slots=True)
class Labelling:
    """`chosen`: labels of the recording. `fixed`: the same for every object."""

    chosen: tuple[str, ...] = ()
    fixed: Mapping[str, str] | None = None

    def of(self, spec: ObjectSpec) -> dict[str, str]:
        """Return names and values for an object. What a store might not take in a value becomes `_`."""
        values = {name: _cleaned(spec.labels[name]) for name in self.chosen if spec.labels.get(name)}
        return {**(self.fixed or {}), **values}


NONE = Labelling()


def labelling(
    url: DestinationUrl, option: str, *, most: int, reserved: Collection[str] = (), plain_names: bool = False
) -> Labelling:
    """Parse the value of `option`. `most`: how many an object may have. `plain_names`: as metadata needs them. Raises
    BadDestinationUrl."""
    text = url.options.get(option)
    if text is None:
        return NONE
    wrong = f"destination {url.name}: {option} is a list such as room;session;type;team=video"
    pattern = _NAME if plain_names else _TAG_NAME
    chosen: list[str] = []
    fixed: dict[str, str] = {}
    for entry in re.split("[;,]", text):
        name, equals, value = entry.strip().partition("=")
        if not pattern.fullmatch(name) or name in reserved or name.lower().startswith("aws:"):
            raise BadDestinationUrl(f"{wrong}; a name in it cannot be used")
        if name in chosen or name in fixed:
            raise BadDestinationUrl(f"{wrong}; {name} is in it twice")
        if equals and not _VALUE.fullmatch(value):
            raise BadDestinationUrl(
                f"{wrong}; the value of {name} has 1 to {MAX_VALUE_CHARACTERS} letters, digits, spaces and "
                "+ - = . _ : / @"
            )
        if equals:
            fixed[name] = value
        elif name in LABELS:
            chosen.append(name)
        else:
            raise BadDestinationUrl(
                f"{wrong}; without a value there are only {', '.join(LABELS)}, not {name}"
            )
    if len(chosen) + len(fixed) > most:
        raise BadDestinationUrl(f"{wrong}, of at most {most}")
    return Labelling(tuple(chosen), fixed)


def _cleaned(value: str) -> str:
    return _NOT_IN_A_VALUE.sub("_", value)[:MAX_VALUE_CHARACTERS]
