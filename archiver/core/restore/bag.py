"""Make the restored folder a BagIt bag (RFC 8493), version 1.0.

<root>/bagit.txt                 what this is; written last
<root>/bag-info.txt              when, by what, how much
<root>/manifest-sha256.txt       the payload: a line for each file, its SHA-256 from the bytes that were restored
<root>/tagmanifest-sha256.txt    the other three
<root>/data/...                  the payload: what a restore without a bag writes
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from datetime import datetime

from archiver.core.errors import RestoreError
from archiver.core.restore.folder import RestoreFolder

PAYLOAD = "data"
DECLARATION = "bagit.txt"
_INFO, _MANIFEST, _TAGS = "bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt"
_DECLARED = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
_LINE = re.compile(r"([0-9a-f]{64})[ \t]+(.+)")

Files = Mapping[str, tuple[int, str]]
"""Size in bytes and SHA-256 by path, below PAYLOAD."""


def begin_bag(
    top: RestoreFolder, payload: RestoreFolder, expected: Collection[str]
) -> dict[str, tuple[int, str]]:
    """Return the payload that an earlier, complete bag lists, to be kept. Raises RestoreError when the folder holds
    something else: other files, or what an earlier run restored of other assets. `expected`: the folders of the assets
    to restore."""
    listed: dict[str, tuple[int, str]] = {}
    for line in b"".join(top.read(_MANIFEST)).decode("utf-8", "replace").splitlines():
        if found := _LINE.fullmatch(line):
            path = _decoded(found[2]).removeprefix(f"{PAYLOAD}/")
            if (size_bytes := payload.size_of(path)) is not None:
                listed[path] = (size_bytes, found[1])
    ours = {DECLARATION, _INFO, _MANIFEST, _TAGS}
    strange = [path for path in top.files() if path not in ours and not path.startswith(f"{PAYLOAD}/")]
    if top.size_of(DECLARATION) is not None:
        strange = []  # a bag may hold other tag files
    strange += [
        f"{PAYLOAD}/{path}"
        for path in payload.files()
        if path not in listed and not path.startswith(tuple(f"{folder}/" for folder in expected))
    ]
    if strange:
        raise RestoreError(
            f"{top.root} holds {len(strange):,} files that are no part of this bag, such as {strange[0]}: choose an "
            "empty folder, or restore the same assets as the run that was interrupted"
        )
    return listed


def finish_bag(top: RestoreFolder, files: Files, *, agent: str, now: datetime) -> None:
    """Write the bag's own files; `files`: the whole payload. Idempotent. Raises RestoreError."""
    total = sum(size_bytes for size_bytes, _ in files.values())
    info = (
        f"Bag-Software-Agent: {agent}\nBagging-Date: {now:%Y-%m-%d}\n"
        f"Payload-Oxum: {total}.{len(files)}\nExternal-Description: 100ms recordings\n"
    ).encode()
    lines = (f"{digest}  {PAYLOAD}/{_encoded(path)}\n" for path, (_, digest) in sorted(files.items()))
    manifest = "".join(lines).encode()
    tags = {_INFO: info, _MANIFEST: manifest, DECLARATION: _DECLARED}
    listed = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in tags.items()).encode()
    for name, data in {_INFO: info, _MANIFEST: manifest, _TAGS: listed, DECLARATION: _DECLARED}.items():
        top.write(name, data)


def _encoded(path: str) -> str:
    """RFC 8493, section 2.1.3. A key holds no line break."""
    return path.replace("%", "%25")


def _decoded(path: str) -> str:
    return path.replace("%25", "%")
