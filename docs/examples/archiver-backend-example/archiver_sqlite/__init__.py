"""A SQLite database as a destination: `sqlite:///srv/archive.db`."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage_backends.base import Buffer, Limits, ObjectInfo, ObjectKey, ObjectSpec, Part, object_key
from storage_backends.crc32c import check, crc32c_of
from storage_backends.destination_url import DestinationUrl
from storage_backends.errors import (
    AccessDenied,
    BadDestinationUrl,
    BucketMissing,
    ChecksumRejected,
    DestinationFull,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.operation import Operation

LIMITS = Limits(
    min_part_bytes=1,
    max_part_bytes=500 * 2**20,  # SQLite's largest value is 10**9 bytes
    max_parts=10_000,
    part_multiple_bytes=1,
    max_object_bytes=2**40,
    parallel_parts=True,
    conditional_create=True,
    conditional_replace=True,
)

# An object is a row that names the pieces it is made of; an upload is pieces that no object names yet.
_SCHEMA = """
create table if not exists objects (
    key text primary key, id text not null, size integer not null, crc32c integer not null,
    content_type text not null, updated_at text not null) without rowid;
create table if not exists uploads (id text primary key, began_at text not null) without rowid;
create table if not exists pieces (
    id text, number integer, size integer not null, crc32c integer not null, data blob not null,
    primary key (id, number));
"""

_BY_CODE: dict[int, type[StorageError]] = {
    sqlite3.SQLITE_CANTOPEN: BucketMissing,
    sqlite3.SQLITE_NOTADB: BucketMissing,
    sqlite3.SQLITE_FULL: DestinationFull,
    sqlite3.SQLITE_AUTH: AccessDenied,
    sqlite3.SQLITE_PERM: AccessDenied,
    sqlite3.SQLITE_READONLY: AccessDenied,
    sqlite3.SQLITE_BUSY: TransientStorageError,
    sqlite3.SQLITE_IOERR: TransientStorageError,
    sqlite3.SQLITE_LOCKED: TransientStorageError,
    sqlite3.SQLITE_NOMEM: TransientStorageError,
}


def open_backend(url: DestinationUrl) -> SqliteBackend:
    """The entry point. The database is opened at first use."""
    url.only_options(())
    if url.bucket or not url.prefix:
        raise BadDestinationUrl("a sqlite destination has three slashes: sqlite:///srv/archive.db")
    return SqliteBackend(url.name, Path("/", url.prefix))


class SqliteBackend:
    """Opens a connection for each call, which is safe for threads and forks."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path

    @property
    def name(self) -> str:
        return self._name

    @property
    def limits(self) -> Limits:
        return LIMITS

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        doing = self._doing("put", spec.key, "storing")
        with self.transaction(doing) as database:
            check(data, crc32c, doing)
            identity = uuid.uuid4().hex
            _insert_piece(database, identity, 1, data, crc32c)
            return self.publish(database, spec, identity, doing)

    def begin(self, spec: ObjectSpec) -> SqliteUpload:
        token = uuid.uuid4().hex
        with self.transaction(self._doing("begin", spec.key, "beginning the upload of")) as database:
            database.execute("insert into uploads values (?, ?)", (token, _now()))
        return SqliteUpload(self, spec, token)

    def resume(self, spec: ObjectSpec, token: str) -> SqliteUpload:
        upload = SqliteUpload(self, spec, token)
        with self._doing("resume", spec.key, "resuming the upload of"):
            upload.parts()
        return upload

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        with self.transaction(self._doing("stat", key, "looking at")) as database:
            return _stat(database, key)

    def read(
        self,
        key: ObjectKey,
        start: int = 0,
        length_bytes: int | None = None,
        *,
        if_match: str | None = None,
    ) -> bytes:
        doing = self._doing("read", key, "reading")
        with self.transaction(doing) as database:
            info = _stat(database, key)
            if info is None:
                raise ObjectMissing(f"{doing}: it is not there")
            if if_match not in (None, info.etag):
                raise ObjectChanged(f"{doing}: the key holds another object")
            end = info.size_bytes if length_bytes is None else min(info.size_bytes, start + length_bytes)
            found, offset = [], 0
            for number, size in database.execute(
                "select number, size from pieces where id = ? order by number", (info.etag,)
            ).fetchall():
                first, last = max(start - offset, 0), min(end - offset, size)
                if first < last:
                    found.append(
                        database.execute(
                            "select substr(data, ?, ?) from pieces where id = ? and number = ?",
                            (first + 1, last - first, info.etag, number),
                        ).fetchone()[0]
                    )
                offset += size
            return b"".join(found)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        after = ""
        while True:
            with self.transaction(Operation("list", self._name, None, f"listing {prefix!r}")) as database:
                page = database.execute(
                    "select key from objects where key > ? and substr(key, 1, ?) = ? order by key limit 1000",
                    (after, len(prefix), prefix),
                ).fetchall()
                infos = [_stat(database, object_key(key)) for (key,) in page]
            yield from (info for info in infos if info is not None)
            if not page:
                return
            after = page[-1][0]

    def delete(self, key: ObjectKey) -> None:
        with self.transaction(self._doing("delete", key, "deleting")) as database:
            _delete(database, key)

    def abort_stale_uploads(self, older_than: timedelta) -> int:
        limit = (datetime.now(UTC) - older_than).isoformat()
        doing = Operation("abort_stale_uploads", self._name, None, "aborting stale uploads")
        with self.transaction(doing) as database:
            stale = database.execute("select id from uploads where began_at <= ?", (limit,)).fetchall()
            database.executemany("delete from pieces where id = ?", stale)
            database.executemany("delete from uploads where id = ?", stale)
        return len(stale)

    def close(self) -> None:
        """Do nothing: no connection is open between calls."""

    def _doing(self, name: str, key: ObjectKey, verb: str) -> Operation:
        return Operation(name, self._name, key, verb)

    # -- shared with the uploads

    @contextlib.contextmanager
    def transaction(self, doing: Operation) -> Iterator[sqlite3.Connection]:
        """Run a transaction, one writer at a time. Raises the vendor's errors as ours, with the fields of `doing`."""
        try:
            with (
                doing,
                contextlib.closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as database,
            ):
                database.executescript(_SCHEMA)
                database.execute("begin immediate")
                try:
                    yield database
                except BaseException:
                    database.execute("rollback")
                    raise
                database.execute("commit")
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary one
            with doing:
                raise _BY_CODE.get(code, StorageError)(f"{doing}: {error}") from error

    def publish(
        self, database: sqlite3.Connection, spec: ObjectSpec, identity: str, doing: Operation
    ) -> ObjectInfo:
        """Make the pieces of `identity` the object, within the transaction."""
        if spec.if_absent and _stat(database, spec.key) is not None:
            raise ObjectExists(f"{doing}: the key is taken")
        if spec.if_match is not None:
            there = _stat(database, spec.key)
            if there is None or there.etag != spec.if_match:
                raise ObjectChanged(f"{doing}: the key holds another object")
        _delete(database, spec.key)
        size, crc32c = 0, 0
        for (data,) in database.execute("select data from pieces where id = ? order by number", (identity,)):
            size, crc32c = size + len(data), crc32c_of(data, crc32c)
        database.execute(
            "insert into objects values (?, ?, ?, ?, ?, ?)",
            (spec.key, identity, size, crc32c, spec.content_type, _now()),
        )
        database.execute("delete from uploads where id = ?", (identity,))
        info = _stat(database, spec.key)
        assert info is not None, "it was just inserted"
        return info


class SqliteUpload:
    def __init__(self, backend: SqliteBackend, spec: ObjectSpec, token: str) -> None:
        self._backend = backend
        self._spec = spec
        self._token = token

    @property
    def spec(self) -> ObjectSpec:
        return self._spec

    @property
    def token(self) -> str:
        return self._token

    def parts(self) -> Mapping[int, Part] | None:
        doing = self._doing("parts", "listing the parts of")
        with self._backend.transaction(doing) as database:
            if self._completed(database) is not None:
                return None  # the answer was lost: `complete` returns the object again
            self._require(database, doing)
            return self._held(database)

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        doing = self._doing("put_part", f"sending part {number} of")
        with self._backend.transaction(doing) as database:
            check(data, crc32c, doing)
            self._require(database, doing)
            _insert_piece(database, self._token, number, data, crc32c)
        return Part(number, len(data), crc32c, f"{crc32c:08x}")

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        doing = self._doing("complete", "completing")
        with self._backend.transaction(doing) as database:
            done = self._completed(database)
            if done is not None:
                return done
            self._require(database, doing)
            if list(self._held(database).values()) != list(parts):
                raise UploadGone(f"{doing}: not all parts are held as they were sent")
            info = self._backend.publish(database, self._spec, self._token, doing)
            if info.crc32c != crc32c:
                raise ChecksumRejected(f"{doing}: CRC32C is {info.crc32c:08x}, {crc32c:08x} was announced")
            return info

    def abort(self) -> None:
        with self._backend.transaction(self._doing("abort", "aborting the upload of")) as database:
            if database.execute("delete from uploads where id = ?", (self._token,)).rowcount:
                database.execute("delete from pieces where id = ?", (self._token,))

    def _doing(self, name: str, verb: str) -> Operation:
        return Operation(name, self._backend.name, self._spec.key, verb)

    def _completed(self, database: sqlite3.Connection) -> ObjectInfo | None:
        info = _stat(database, self._spec.key)
        return info if info is not None and info.etag == self._token else None

    def _require(self, database: sqlite3.Connection, doing: Operation) -> None:
        known = (
            re.fullmatch("[0-9a-f]{32}", self._token)
            and database.execute("select 1 from uploads where id = ?", (self._token,)).fetchone()
        )
        if not known:
            raise UploadGone(f"{doing}: no such upload")

    def _held(self, database: sqlite3.Connection) -> dict[int, Part]:
        rows = database.execute(
            "select number, size, crc32c from pieces where id = ? order by number", (self._token,)
        )
        return {number: Part(number, size, crc32c, f"{crc32c:08x}") for number, size, crc32c in rows}


def _stat(database: sqlite3.Connection, key: ObjectKey) -> ObjectInfo | None:
    row = database.execute(
        "select size, crc32c, id, content_type, updated_at from objects where key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    size, crc32c, identity, content_type, updated_at = row
    return ObjectInfo(key, size, crc32c, identity, content_type, datetime.fromisoformat(updated_at))


def _delete(database: sqlite3.Connection, key: ObjectKey) -> None:
    database.execute("delete from pieces where id in (select id from objects where key = ?)", (key,))
    database.execute("delete from objects where key = ?", (key,))


def _insert_piece(
    database: sqlite3.Connection, identity: str, number: int, data: Buffer, crc32c: int
) -> None:
    database.execute(
        "insert or replace into pieces values (?, ?, ?, ?, ?)", (identity, number, len(data), crc32c, data)
    )


def _now() -> str:
    return datetime.now(UTC).isoformat()
