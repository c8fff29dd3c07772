"""Keys of every object at a destination. Pure, stable, injective.

    recordings/<room>/<session>/<type>/<asset>/       folder of an asset's objects, by the key template (`asset_folder`)
        <path at the source>                          `safe_path`
        _ext/<folder>/<name>                          named by a playlist, outside its own folder
        _zip/<name>                                   a zip that is stored beside its contents
        thumbnails/<name>
        !v2/...  !v3/...                              another version of the asset (`version_folder`)
    manifests/<yyyy>/<mm>/<dd>/<asset>.json           manifest: the commit; `undated` instead of an unknown date
    ends/<yyyy>/<mm>/<dd>/<asset>.json                end record, of an asset that is not archived
    ends/tombstones/<hh>/<asset>.json                 tombstone, of an asset that was erased or has expired
    checks/<yyyy>/<mm>/<dd>-<hhmmss>-<hash>.jsonl.gz  check record, written by each scrub
    sessions/<session>/session.json                   who was in a session
    events/<yyyy>/<mm>/<dd>.json.gz                   delivery record: up to when events were delivered
    drills/<yyyy>/<mm>/<dd>-<hhmmss>-<hash>.jsonl.gz  drill record, written by each drill
    expiry/record.json                                which terms were accepted, and how much expired today
    catalogue/<yyyy>-<mm>.csv.gz                      table of a month's manifests; `undated` as above
    statements/<yyyy>-<mm>.json                       signed statement of a month, with .sig and perhaps .tsr beside it
    at-rest/job.json                                  job of `verify --at-rest`, its list and report beside it
    doctor/probe-<random>.bin                         probe, deleted at once
    .archiver-destination.json                        marker: which destination this is

The escape character is `!`, which is plain in S3 and GCS keys, file names and URL paths, so that a key can be written
into a playlist as it is. `!2F`: the byte 0x2F. `!h...`: hash of a segment that was cut. `!l...`: hash of a whole path
that was too long. `!q...`: hash of a URL's query. `!e`: empty segment. A `!` at the end: a file without an extension.

A file's last segment has an extension or ends with `!`, a folder's never does. So no key is a folder of another one
(`a` beside `a/b`), which a directory cannot store.
"""

from __future__ import annotations

import hashlib
import re
import string
from datetime import UTC, datetime
from functools import lru_cache

from archiver.hms.models import Asset
from storage_backends.base import ObjectKey, object_key
from storage_backends.errors import InvalidKey

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
"""Names at the top of an asset's folder that no source gets. Earlier versions stored the API's description there."""
MANIFESTS = "manifests/"
ENDS = "ends/"
TOMBSTONES = f"{ENDS}tombstones/"
CHECKS = "checks/"
DRILLS = "drills/"
SESSIONS = "sessions/"
EVENTS = "events/"
EXPIRY = "expiry/"
EXPIRY_RECORD = object_key(f"{EXPIRY}record.json")
CATALOGUE = "catalogue/"
STATEMENTS = "statements/"
AT_REST = "at-rest/"
RECORDS = (
    MANIFESTS,
    ENDS,
    CHECKS,
    DRILLS,
    SESSIONS,
    EVENTS,
    EXPIRY,
    CATALOGUE,
    STATEMENTS,
    AT_REST,
    ".archiver-destination.json",
)
"""Where records are, which are read every day, apart from recordings."""
UNDATED_MONTH = "undated"
DOCTOR = "doctor/"
PROBES = f"{DOCTOR}probe-"
ABSENT = object_key(f"{DOCTOR}not-there")
"""Where nothing is ever stored: asks whether a destination answers."""
MARKER = object_key(".archiver-destination.json")
_OUR_ROOTS = frozenset({MANIFESTS.rstrip("/"), ENDS.rstrip("/")})
_ROOTS = frozenset({each.rstrip("/") for each in (*RECORDS, DOCTOR, "")})

_UNSAFE = re.compile(rb"[^A-Za-z0-9._=-]")
_EXTENSION = re.compile(r"\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,10}\Z")
_CHECK_RECORD = re.compile(rf"{CHECKS}(\d{{4}})/(\d\d)/(\d\d)-(\d\d)(\d\d)(\d\d)-[0-9a-f]{{16}}\.jsonl\.gz")
_DRILL_RECORD = re.compile(rf"{DRILLS}\d{{4}}/\d\d/\d\d-\d{{6}}-[0-9a-f]{{16}}\.jsonl\.gz")
_DELIVERY_RECORD = re.compile(rf"{EVENTS}\d{{4}}/\d\d/\d\d\.json\.gz")
_ESCAPED = re.compile(r"!([0-9A-F]{2})")
_VERSION = re.compile(r"/!v[0-9]+\Z")


@lru_cache(maxsize=16)
def check_template(template: str) -> None:
    """Raise ValueError, saying what to fix, unless the template gives each asset a folder of its own, and of bounded
    length: each field is a whole segment (`{room_id}/{asset_id}`, not `{room_id}-{asset_id}`), and the asset id is
    one of them."""
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
    """The folder of an asset's objects, without a slash at its end. Stable, and different for different ids. Raises
    ValueError as `check_template` does."""
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


def session_folder(template: str, session_id: str, room_id: str | None) -> ObjectKey | None:
    """Return the folder that `template` puts every asset of a session into; None when it uses other fields before, or
    the session in no folder of its own."""
    values = {"{session_id}": session_id, "{room_id}": room_id}
    segments: list[str] = []
    for part in template.split("/"):
        if part.startswith("{") and part not in values:
            return None
        segments.append(_folder_segment(values[part] or UNKNOWN, _MAX_ID_BYTES) if part in values else part)
        if part == "{session_id}":
            if segments[0] in _OUR_ROOTS:
                segments[0] = _escape_first(segments[0])
            return object_key("/".join(segments))
    return None


def version_folder(base: ObjectKey, number: int) -> ObjectKey:
    """The folder of version `number` of an asset; `base` for the first. No path of a source has such a segment."""
    return base if number == 1 else object_key(f"{base}/!v{number}")


def folder_of(asset_id: str, folder: str) -> ObjectKey | None:
    """Return the asset's own folder, which holds all its versions, by the `folder` that a manifest names; None when
    that is no folder of this asset: a manifest may say anything."""
    base = _VERSION.sub("", folder)
    segments = base.split("/")
    if segments[0] in _ROOTS or _folder_segment(asset_id, _MAX_ID_BYTES) not in segments:
        return None
    try:
        return object_key(base)
    except InvalidKey:
        return None


def fits_template(asset_id: str, folder: str, template: str) -> bool:
    """Whether `template` can give this asset this folder (or one of its versions): then no other asset is below it."""
    parts, segments = template.split("/"), without_version(folder).split("/")
    if len(parts) != len(segments):
        return False
    own = _folder_segment(asset_id, _MAX_ID_BYTES)
    if parts[0] == "{asset_id}" and own in _OUR_ROOTS:
        own = _escape_first(own)
    wanted = {part: own if part == "{asset_id}" else part for part in parts}
    return all(
        segment == wanted[part] or (part.startswith("{") and part != "{asset_id}")
        for part, segment in zip(parts, segments, strict=True)
    )


def id_in_folder(segment: str) -> str | None:
    """The asset id that a folder named `segment` may be of; None when it holds only the hash of a long id."""
    return asset_id_of(f"{MANIFESTS}{UNDATED_MONTH}/{segment}.json")


@lru_cache(maxsize=256)  # asked for three times an asset
def tombstone_key(asset_id: str) -> ObjectKey:
    """By the id alone: the API may say another date tomorrow."""
    return object_key(f"{TOMBSTONES}{_digest(asset_id, 2)}/{_folder_segment(asset_id, _MAX_ID_BYTES)}.json")


def is_tombstone(key: str) -> bool:
    return key.startswith(TOMBSTONES) and key.endswith(".json")


def record_name(key: str) -> str:
    """The file name of a manifest, end record or tombstone: the same for all of one asset, and different for others."""
    return key.rpartition("/")[2]


def without_version(folder: str) -> str:
    """Return the asset's first folder by one that `version_folder` made."""
    return _VERSION.sub("", folder)


@lru_cache(maxsize=256)  # as above
def manifest_key(asset_id: str, created_at: datetime | None) -> ObjectKey:
    """The day is that of `created_at` in UTC."""
    return _record_key(MANIFESTS, asset_id, created_at)


def end_record_key(asset_id: str, created_at: datetime | None) -> ObjectKey:
    return _record_key(ENDS, asset_id, created_at)


def end_record_beside(manifest: ObjectKey) -> ObjectKey:
    """The key of the end record of the asset whose manifest is at `manifest`."""
    return object_key(ENDS + manifest.removeprefix(MANIFESTS))


def asset_id_of(key: str) -> str | None:
    """The asset id in a manifest's or end record's key; None when `key` is neither, or holds only the hash of a long
    id (the record itself has it)."""
    root, *date, name = key.split("/")
    if root not in _OUR_ROOTS or not name.endswith(".json") or not (date == ["undated"] or len(date) == 3):
        return None
    return _unescape(name.removesuffix(".json"))


def created_on(key: ObjectKey) -> datetime | None:
    """The start of the day in a manifest's key, in UTC; None when it has none."""
    try:
        _, *day, _ = key.split("/")
        year, month, day_of_month = map(int, day)
        return datetime(year, month, day_of_month, tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def check_record_key(at: datetime, digest: str) -> ObjectKey:
    """Sorts by time. `digest`: 16 hex digits."""
    return object_key(f"{CHECKS}{at.astimezone(UTC):%Y/%m/%d-%H%M%S}-{digest}.jsonl.gz")


def drill_record_key(at: datetime, digest: str) -> ObjectKey:
    """Sorts by time. `digest`: 16 hex digits."""
    return object_key(f"{DRILLS}{at.astimezone(UTC):%Y/%m/%d-%H%M%S}-{digest}.jsonl.gz")


def catalogue_key(month: str) -> ObjectKey:
    """`month`: `yyyy-mm`, or UNDATED_MONTH. No asset's folder is one of these: a folder has no extension."""
    return object_key(f"{CATALOGUE}{month}.csv.gz")


def manifests_of(month: str) -> str:
    """Return the prefix of a month's manifests."""
    return f"{MANIFESTS}{month.replace('-', '/')}/"


def ends_of(month: str) -> str:
    """Return the prefix of a month's end records."""
    return f"{ENDS}{month.replace('-', '/')}/"


def statement_key(month: str, suffix: str = "json") -> ObjectKey:
    """`month`: `yyyy-mm`. `suffix`: json, sig or tsr."""
    return object_key(f"{STATEMENTS}{month}.{suffix}")


def month_of(manifest: str) -> str | None:
    """Return the month of the catalogue that a manifest is in; None when `manifest` is no manifest's key."""
    root, *date, name = manifest.split("/")
    if f"{root}/" != MANIFESTS or not name.endswith(".json"):
        return None
    if date == [UNDATED_MONTH]:
        return UNDATED_MONTH
    return f"{date[0]}-{date[1]}" if len(date) == 3 else None


def is_check_record(key: str) -> bool:
    return _CHECK_RECORD.fullmatch(key) is not None


def session_key(session_id: str) -> ObjectKey:
    return object_key(f"{SESSIONS}{_folder_segment(session_id, _MAX_ID_BYTES)}/session.json")


def is_session(key: str) -> bool:
    return key.startswith(SESSIONS) and key.endswith("/session.json") and key.count("/") == 2


def delivery_record_key(at: datetime) -> ObjectKey:
    """Sorts by day."""
    return object_key(f"{EVENTS}{at.astimezone(UTC):%Y/%m/%d}.json.gz")


def is_delivery_record(key: str) -> bool:
    return _DELIVERY_RECORD.fullmatch(key) is not None


def is_drill_record(key: str) -> bool:
    return _DRILL_RECORD.fullmatch(key) is not None


def probe_key(token: str) -> ObjectKey:
    return object_key(f"{PROBES}{token}.bin")


def safe_path(text: str) -> str:
    """Turn a source's path into a path below an asset's folder. Injective; a plain path (letters, digits, `._=-`, an
    extension on the file and none on its folders) stays as it is. Never a name that the archiver uses itself."""
    *folders, name = text.split("/")
    segments = [*(_folder_segment(folder) for folder in folders), file_name(name)]
    if segments[0] in _OUR_FOLDERS or segments[0].lower() in OUR_FILES:
        segments[0] = _escape_first(segments[0])
    path = "/".join(segments)
    return path if len(path) <= MAX_PATH_BYTES else f"!l{_digest(path, 32)}/{segments[-1]}"


def external_path(folder: str, name: str, query: str = "") -> str:
    """`query`: the part of the URL's query that identifies the file, as in `a.ts?part=1`."""
    return f"{EXTERNAL_FOLDER}/{_folder_segment(folder)}/{file_name(name, query)}"


def thumbnail_path(name: str) -> str:
    return f"{THUMBNAILS_FOLDER}/{file_name(name)}"


def file_name(name: str, query: str = "") -> str:
    """Turn `name` into one segment that cannot be a folder's. Keeps the extension, also when the name is cut."""
    extension = _EXTENSION.search(name)
    stem, end = (name[: extension.start()], extension.group()) if extension else (name, "!")
    tag = f"!q{_digest(query)}" if query else ""
    return _escape(stem, _MAX_SEGMENT_BYTES - len(end) - len(tag)) + tag + end


def _record_key(root: str, asset_id: str, created_at: datetime | None) -> ObjectKey:
    date = _date(created_at)
    folder = "/".join(date) if date else "undated"
    return object_key(f"{root}{folder}/{_folder_segment(asset_id, _MAX_ID_BYTES)}.json")


def _date(moment: datetime | None) -> tuple[str, str, str] | None:
    if moment is None:
        return None
    utc = moment.astimezone(UTC)
    return f"{utc.year:04}", f"{utc.month:02}", f"{utc.day:02}"


@lru_cache(maxsize=512)  # of a room and a session over and over
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
        full = segment.removeprefix("!e")  # nothing before an extension
        encoded = _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), full).encode("latin-1")
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
