"""Where things lie in the bucket: an asset, a path, a moment -> object keys. Pure, stable, injective.

The escape character is `!`, which is legal and plain in S3 and GCS keys, file names and URL paths alike, so
that a key can be written into a playlist as it is. `!2F` stands for the byte 0x2F; `!h...` for the hash of a
segment that was cut; `!l...` for that of a whole path that was; `!e` for an empty segment; a `!` at the end
marks a file whose name has no extension.

Folders never look like files: a file's last segment has an extension or ends with `!`, a folder's never does.
So no key is a folder of another one (`a` beside `a/b`), which a directory cannot store.
"""

from __future__ import annotations

import hashlib
import re
import string
from datetime import UTC, datetime

from archiver.hms.models import Asset
from storage_backends.base import ObjectKey, object_key

DEFAULT_TEMPLATE = "recordings/{room_id}/{session_id}/{type}/{asset_id}"
_DATE_FIELDS = ("yyyy", "mm", "dd")
TEMPLATE_FIELDS = ("room_id", "session_id", "type", "asset_id", "job_id", *_DATE_FIELDS)
UNKNOWN = "unknown"

# Folder and path together stay under 820 of the 1024 bytes that S3 and GCS allow; the rest is left for the
# prefix of the destination.
MAX_FOLDER_BYTES = 400
MAX_PATH_BYTES = 420
_MAX_ID_BYTES = 64  # 100ms's ids have 24 to 36 characters
_MAX_DATE_BYTES = len(UNKNOWN)
_MAX_SEGMENT_BYTES = 160  # of 255, so that a directory may keep a temporary name beside it

EXTERNAL_FOLDER = "_ext"  # what a playlist names outside its own folder
THUMBNAILS_FOLDER = "thumbnails"
ZIP_FOLDER = "_zip"  # the zip itself, where it is kept beside what was in it
_OUR_FOLDERS = frozenset({EXTERNAL_FOLDER, THUMBNAILS_FOLDER, ZIP_FOLDER})
OUR_FILES = frozenset({"asset.json", "manifest.json"})
"""Names at the top of an asset's folder that no source gets. Versions before stored the API's description there, as
`asset.json`; the manifest holds it."""
MANIFESTS_FOLDER = "manifests"
ENDS_FOLDER = "ends"
_OUR_ROOTS = frozenset({MANIFESTS_FOLDER, ENDS_FOLDER})

_UNSAFE = re.compile(rb"[^A-Za-z0-9._=-]")
_EXTENSION = re.compile(r"\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,10}\Z")
_ESCAPED = re.compile(r"!([0-9A-F]{2})")


def check_template(template: str) -> None:
    """Raise ValueError, saying what to mend, for a key template that would mix up assets or grow too long.

    Each field must be a segment of its own (`{room_id}/{asset_id}`, not `{room_id}-{asset_id}`) and the asset
    id must be among them: only so are the folders of two assets never the same, nor one inside the other.
    """
    fields = []
    longest = -1
    for segment in template.split("/"):
        try:
            parts = list(string.Formatter().parse(segment))
        except ValueError as error:
            raise ValueError(f"key template {template!r}: {error}") from None
        named = [name for _, name, _, _ in parts if name is not None]
        if named and segment != f"{{{named[0]}}}":
            raise ValueError(
                f"key template {template!r}: write each field as a segment of its own, not {segment!r}"
            )
        if unknown := [name for name in named if name not in TEMPLATE_FIELDS]:
            raise ValueError(
                f"key template {template!r}: no field {unknown[0]!r}; there are {', '.join(TEMPLATE_FIELDS)}"
            )
        if not named and (segment != _folder_segment(segment) or segment in _OUR_ROOTS):
            raise ValueError(
                f"key template {template!r}: {segment!r} cannot be a folder; use letters, digits, '_', '-', '='"
                f" and no name that the archiver uses itself ({', '.join(sorted(_OUR_ROOTS))})"
            )
        fields += named
        if not named:
            longest += 1 + len(segment)
        else:
            longest += 1 + (_MAX_DATE_BYTES if named[0] in _DATE_FIELDS else _MAX_ID_BYTES)
    if "asset_id" not in fields:
        raise ValueError(f"key template {template!r}: {{asset_id}} must be in it")
    if longest > MAX_FOLDER_BYTES:
        raise ValueError(
            f"key template {template!r}: folders of {longest} bytes, more than {MAX_FOLDER_BYTES}"
        )


def asset_folder(asset: Asset, template: str = DEFAULT_TEMPLATE) -> ObjectKey:
    """The folder of an asset's objects, without a slash at its end. The same for the same description, for
    ever; different for two assets of different id. Raises ValueError as `check_template` does."""
    check_template(template)
    year, month, day = _date(asset.created_at) or (UNKNOWN, UNKNOWN, UNKNOWN)
    values = {
        "room_id": asset.room_id,
        "session_id": asset.session_id,
        "type": asset.type,
        "asset_id": asset.id,
        "job_id": asset.job_id,
        "yyyy": year,
        "mm": month,
        "dd": day,
    }
    segments = [
        _folder_segment(values[segment[1:-1]] or UNKNOWN, _MAX_ID_BYTES) if segment[0] == "{" else segment
        for segment in template.split("/")
    ]
    if segments[0] in _OUR_ROOTS:
        segments[0] = _escape_first(segments[0])
    return object_key("/".join(segments))


def manifest_key(asset_id: str, created_at: datetime | None) -> ObjectKey:
    """`manifests/<yyyy>/<mm>/<dd>/<asset_id>.json` by `created_at` in UTC, or `manifests/undated/...`."""
    return _record_key(MANIFESTS_FOLDER, asset_id, created_at)


def end_record_key(asset_id: str, created_at: datetime | None) -> ObjectKey:
    """The record of an end that is not `archived`: `ends/...`, laid out as the manifests are."""
    return _record_key(ENDS_FOLDER, asset_id, created_at)


def asset_id_of(key: str) -> str | None:
    """The asset id that `manifest_key` or `end_record_key` made `key` of; None when the key is no such key, or
    when the id was so long that only its hash is in it (the record itself still holds it)."""
    root, *date, name = key.split("/")
    if root not in _OUR_ROOTS or not name.endswith(".json") or not (date == ["undated"] or len(date) == 3):
        return None
    return _unescape(name.removesuffix(".json"))


def safe_path(text: str) -> str:
    """`text`, a path with slashes from a source, as a path below an asset's folder.

    Different texts become different paths; a plain one (letters, digits, `._=-`, an extension on the file and
    none on its folders) stays as it is. Never a name that the archiver uses itself (`asset.json`, `_ext/`...).
    """
    *folders, name = text.split("/")
    segments = [*(_folder_segment(folder) for folder in folders), file_name(name)]
    if segments[0] in _OUR_FOLDERS or segments[0].lower() in OUR_FILES:
        segments[0] = _escape_first(segments[0])
    path = "/".join(segments)
    return path if len(path) <= MAX_PATH_BYTES else f"!l{_digest(path, 32)}/{segments[-1]}"


def external_path(folder: str, name: str, query: str = "") -> str:
    """`_ext/<folder>/<name>` for a file that a playlist names outside its own folder. `query` is what of the
    URL's query belongs to its identity; its hash tells `a.ts?part=1` from `a.ts?part=2`."""
    return f"{EXTERNAL_FOLDER}/{_folder_segment(folder)}/{file_name(name, query)}"


def thumbnail_path(name: str) -> str:
    return f"{THUMBNAILS_FOLDER}/{file_name(name)}"


def file_name(name: str, query: str = "") -> str:
    """`name` as one safe segment that cannot be a folder's; with its extension, also when it is cut."""
    extension = _EXTENSION.search(name)
    stem, end = (name[: extension.start()], extension.group()) if extension else (name, "!")
    tag = f"!q{_digest(query)}" if query else ""
    return _escape(stem, _MAX_SEGMENT_BYTES - len(end) - len(tag)) + tag + end


def _record_key(root: str, asset_id: str, created_at: datetime | None) -> ObjectKey:
    date = _date(created_at)
    folder = "/".join(date) if date else "undated"
    return object_key(f"{root}/{folder}/{_folder_segment(asset_id, _MAX_ID_BYTES)}.json")


def _date(moment: datetime | None) -> tuple[str, str, str] | None:
    if moment is None:
        return None
    utc = moment.astimezone(UTC)
    return f"{utc.year:04}", f"{utc.month:02}", f"{utc.day:02}"


def _folder_segment(text: str, max_bytes: int = _MAX_SEGMENT_BYTES) -> str:
    extension = _EXTENSION.search(text)
    if not extension:
        return _escape(text, max_bytes)
    shielded = f"{_escape(text[: extension.start()], None)}!2E{extension.group()[1:]}"
    return shielded if len(shielded) <= max_bytes else _cut(shielded, text, max_bytes)


def _escape(text: str, max_bytes: int | None) -> str:
    """Injective; only plain characters and `!`, no dot at either end, never empty."""
    encoded = text.encode("utf-8", "surrogatepass")
    escaped = _UNSAFE.sub(lambda match: b"!%02X" % match.group()[0], encoded).decode("ascii")
    if escaped.startswith("."):
        escaped = f"!2E{escaped[1:]}"
    if escaped.endswith("."):
        escaped = f"{escaped[:-1]}!2E"
    if not escaped:
        return "!e"
    return escaped if max_bytes is None or len(escaped) <= max_bytes else _cut(escaped, text, max_bytes)


def _unescape(segment: str) -> str | None:
    """The text that `_folder_segment` made `segment` of, if it can be told."""
    try:
        encoded = _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), segment).encode("latin-1")
        text = encoded.decode("utf-8", "surrogatepass")
    except UnicodeError:
        return None
    return text if _folder_segment(text, _MAX_ID_BYTES) == segment else None


def _cut(escaped: str, text: str, max_bytes: int) -> str:
    """The start of `escaped`, whole escapes only, and the hash of the text it stands for."""
    mark = f"!h{_digest(text)}"
    start = escaped[: max_bytes - len(mark)]
    return re.sub(r"!.?\Z|[.]+\Z", "", start) + mark


def _escape_first(segment: str) -> str:
    return f"!{ord(segment[0]):02X}{segment[1:]}"


def _digest(text: str, hex_digits: int = 16) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:hex_digits]
