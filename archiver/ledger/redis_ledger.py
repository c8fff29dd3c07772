"""The ledger in Redis (6.2 or later) or Valkey: one server or a primary with replicas, as Celery wants it too.

Every change of an asset is one Lua script (`lua/`), so that a row and its indexes never disagree and a worker
that dies has either done it or not. Scripts build key names themselves: a cluster is not supported.

Each key has a lifetime or an owner. After the prefix:

| key                    | what it is                                                   | lives                       |
|------------------------|--------------------------------------------------------------|-----------------------------|
| asset:<id>             | hash: the row, by the letters of `_FIELDS`                   | owned by the ledger         |
| seen                   | how many assets were ever entered; counted apart from states | owned by the ledger         |
| state:<state>          | zset: its assets by expires_at; each asset is in exactly one | owned by the ledger         |
| time:queued            | zset: by the time they were queued                           | while queued                |
| time:running           | zset: by the end of the lease                                | while leased                |
| time:waiting           | zset: by next_attempt_at                                     | until that                  |
| ready                  | zset by expires_at: waits that are over, leases that ended   | until queued or leased      |
| time:ready             | zset by next_attempt_at: the waiting ones of `ready`         | until queued or leased      |
| stored:[id,dest]       | hash: `version`, and an object by `/path`                    | while open, 30 days at most |
| upload:[id,dest,key]   | hash: `upload` (its token sealed), and a part by number      | while open, 30 days at most |
| work:<id>              | set: the `stored` and `upload` keys of an asset              | as long as those            |
| acknowledged           | set: the assets whose end a person has acknowledged          | until the state changes     |
| warned                 | zset: archived with a warning, by when that was              | until settled otherwise     |
| progress               | hash: by asset, each with its end in front                   | 2 minutes after the last    |
| facts                  | hash: by name, each with its end, if any, in front           | owned by who remembers      |
| secret:<name>          | a sealed string                                              | as its caller says          |
| lock:<name>            | its holder's token                                           | as its caller says          |

Times are whole microseconds since 1970, exact in a zset's double until the year 2255.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, TypeVar, cast

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.commands.core import Script
from redis.exceptions import ResponseError
from redis.retry import Retry

from archiver.ledger.errors import LeaseLost, LedgerUnavailable
from archiver.ledger.models import (
    ACKNOWLEDGED_STATES,
    Acknowledgement,
    AssetState,
    AttemptStart,
    Counts,
    Lease,
    OpenUpload,
    Progress,
    Row,
    Seen,
    Settlement,
    StoredObject,
)
from archiver.ledger.redis_errors import translated
from archiver.ledger.redis_tls import tls_options
from archiver.ledger.sealing import Seal
from archiver.ledger.work_records import (
    object_word,
    part_word,
    read_object,
    read_progress,
    read_upload,
    upload_words,
)

WORK_LIFETIME = timedelta(days=30)
PROGRESS_LIFETIME = timedelta(minutes=2)

BATCH = 500
"""Rows a script returns or moves at once: some 10 ms of a server that does nothing else meanwhile."""

T = TypeVar("T")
Word = str | int | float | None

ATTEMPTS = 4
"""Of each call, within some 2 s where the server is away; within 42 s where it accepts connections and never answers. A
longer absence is for the caller: the task ends, and its lease with it."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

# A row's fields in its hash. Short, for a million rows: a letter less is a megabyte.
_FIELDS = {
    "ty": "type",
    "st": "state",
    "ex": "expires_at",
    "fs": "first_seen_at",
    "ch": "changed_at",
    "cr": "created_at",
    "ro": "room_id",
    "se": "session_id",
    "si": "size_bytes",
    "at": "attempts",
    "mi": "mismatches",
    "fp": "fingerprint",
    "de": "crashes",
    "nx": "next_attempt_at",
    "gs": "gone_since",
    "re": "reason",
    "sb": "stored_bytes",
    "so": "stored_objects",
    "sc": "seconds",
    "wa": "warnings",
    # `acknowledged`: ak, when the state was last set, when it was acknowledged, and JSON
    # for the scripts alone: fe the fence, ho the lease's holder, ca the call that leased or settled it, mo the most
    # that was stored at a crash, zs the sizes that the API told of it once it was archived, at most MAX_SIZES
}
_TIMES = ("expires_at", "first_seen_at", "changed_at", "created_at", "next_attempt_at", "gone_since")
_NUMBERS = ("size_bytes", "attempts", "mismatches", "crashes", "stored_bytes", "stored_objects")


@dataclass(frozen=True, slots=True)
class Persistence:
    """What the server does with the ledger when it restarts or runs full. None: it would not tell."""

    appendonly: bool | None
    eviction_policy: str | None
    sound: bool | None
    explanation: str


def connect(url: str, authorities: Path | None = None) -> Redis:
    """A client of `url` (redis://, rediss://, unix://) that gives up after seconds. Nothing is opened yet.
    `authorities`: what certificates are verified by; see `tls_options`."""
    try:
        return Redis.from_url(
            url,
            decode_responses=True,
            encoding_errors="surrogatepass",  # an id is what the API says, even half a surrogate pair
            socket_timeout=10,  # seconds; the longest script takes some 20 ms
            socket_connect_timeout=5,
            socket_keepalive=True,
            health_check_interval=25,  # a connection that a firewall forgot is found before it is needed
            retry=Retry(
                NoBackoff(), 0
            ),  # RedisLedger._do does it; redis-py's, on four levels, make 16 attempts of 4
            **tls_options(url, authorities),
        )
    except ValueError:
        # from None: the text of the cause may quote a part of the password
        raise LedgerUnavailable(
            "the ledger's URL cannot be read; expected redis://[user:password@]host:port/database, with any of"
            " @ : / # ? % in the password written as %40 %3A %2F %23 %3F %25"
        ) from None


class RedisLedger:
    """A `Ledger`, shared by every process that is given the same server, prefix and secret.

    `clock` (aware UTC) replaces the server's clock; for tests alone. It leaves Redis's own lifetimes, which locks,
    secrets and unfinished work have, as they are. A call that breaks off is sent again: where twice is not the same as
    once, the scripts recognise it.
    """

    def __init__(
        self,
        client_or_url: Redis | str,
        seal: Seal,
        key_prefix: str = "archiver:",
        clock: Callable[[], datetime] | None = None,
        authorities: Path | None = None,
    ) -> None:
        self._redis = connect(client_or_url, authorities) if isinstance(client_or_url, str) else client_or_url
        options = self._redis.connection_pool.connection_kwargs
        if not options.get("decode_responses"):
            raise ValueError(
                "the ledger needs a client with decode_responses=True, as archiver.ledger.redis_ledger.connect makes"
            )

        self._where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        self._seal = seal
        self._prefix = key_prefix
        self._clock = clock
        self._again = Retry(
            ExponentialWithJitterBackoff(base=0.1, cap=1), ATTEMPTS - 1
        )  # up to 0.2, 0.4, 0.8 s apart
        folder = Path(__file__).parent / "lua"
        shared = (folder / "_shared.lua").read_text()
        self._scripts: dict[str, Script] = {
            file.stem: self._redis.register_script(shared + file.read_text())
            for file in folder.glob("[!_]*.lua")
        }

    def now(self) -> datetime:
        return _time(self._run("now"))

    # -- what exists ---------------------------------------------------------------------------------------

    def discover(self, seen: Sequence[Seen]) -> int:
        new: int = self._run("discover", len(seen), *(word for one in seen for word in _seen_words(one)))
        return new

    def record_archived(self, seen: Seen, settlement: Settlement) -> bool:
        return bool(self._run("record_archived", *_seen_words(seen), *_settlement_words(settlement)))

    def get(self, asset_id: str) -> Row | None:
        fields = self._hash("get", "asset:" + asset_id)
        return _row(asset_id, fields) if fields else None

    def rows(
        self,
        states: Iterable[AssetState] | None = None,
        *,
        expiring_before: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Row]:
        for state in AssetState if states is None else states:
            found = takewhile(
                lambda row: expiring_before is None or row.expires_at < expiring_before,
                self._rows_of(state, BATCH if limit is None else min(BATCH, limit)),
            )
            for row in islice(found, limit):
                yield row
                limit = None if limit is None else limit - 1

    def warned(self, limit: int) -> list[Row]:
        return [_flat_row(flat) for flat in self._run("warned", limit)]

    def counts(self) -> Counts:
        seen, *found = self._run("counts", *AssetState)
        sizes, acknowledged = found[: len(AssetState)], found[len(AssetState) :]
        return Counts(
            int(seen),
            dict(zip(AssetState, sizes, strict=True)),
            {state: acknowledged.count(state) for state in ACKNOWLEDGED_STATES},
        )

    # -- what is due ---------------------------------------------------------------------------------------

    def take_due(
        self,
        window: int,
        requeue_after: timedelta,
        ahead: timedelta = timedelta(0),
        *,
        at_most: int | None = None,
    ) -> list[Row]:
        while self._run("promote", ahead // MICROSECOND, BATCH):
            pass  # each wait is promoted once, so this ends; in steps, so that others are served in between

        rows: list[Row] = []
        wanted = window if at_most is None else min(window, at_most)
        while len(rows) < wanted:
            limit = min(BATCH, wanted - len(rows))
            taken = self._run("take_due", window, limit, requeue_after // MICROSECOND)
            rows += map(_flat_row, taken)
            if len(taken) < limit:
                break
        return sorted(rows, key=lambda row: (row.expires_at, row.asset_id.encode("utf-8", "surrogatepass")))

    def reopen(self, asset_id: str, *, keep_stored: bool = False) -> Row | None:
        flat = self._run("reopen", asset_id, 1 if keep_stored else 0)
        return _flat_row(flat) if flat else None

    def acknowledge(self, asset_id: str, by: str, why: str) -> Row | None:
        flat = self._run("acknowledge", asset_id, _json({"by": by, "why": why}), *ACKNOWLEDGED_STATES)
        return _flat_row(flat) if flat else None

    def next_due_at(self) -> datetime | None:
        earliest = self._run("next_due_at")
        return _time(earliest) if earliest else None

    # -- one worker at a time ------------------------------------------------------------------------------

    def lease(self, asset_id: str, holder: str, duration: timedelta) -> Lease | None:
        fence = self._run("lease", asset_id, holder, duration // MICROSECOND, _call_number())
        return Lease(asset_id, int(fence), holder) if fence else None

    def begin(self, asset_id: str, holder: str, duration: timedelta, facts: str) -> AttemptStart:
        words = (asset_id, holder, duration // MICROSECOND, _call_number(), facts)
        fence, has_work, row, flat = json.loads(self._run("begin", *words))
        return AttemptStart(
            Lease(asset_id, int(fence), holder) if fence else None,
            _flat_row(row) if len(row) > 1 else None,
            bool(has_work),
            _facts(flat or ()),  # an empty list of Lua's is an object in JSON
        )

    def renew(self, lease: Lease, duration: timedelta) -> None:
        if not self._run("renew", lease.asset_id, lease.fence, lease.holder, duration // MICROSECOND):
            raise _lost(lease)

    def outrank(self, lease: Lease, fence: int) -> Lease:
        higher = self._run("outrank", lease.asset_id, lease.fence, lease.holder, fence, _call_number())
        if not higher:
            raise _lost(lease)
        return replace(lease, fence=int(higher))

    def settle(self, lease: Lease, seen: Seen, settlement: Settlement) -> Row:
        words = (*_seen_words(seen), *_settlement_words(settlement))
        flat = self._run("settle", lease.fence, _call_number(), *words)
        if not flat:
            raise _lost(lease)
        return _flat_row(json.loads(flat))

    # -- what an unfinished copy has done ------------------------------------------------------------------

    def stored_objects(self, asset_id: str, destination: str, version: str) -> Mapping[str, StoredObject]:
        kept = self._hash("stored_objects", _stored_key(asset_id, destination))
        if kept.pop("version", None) != version:
            return {}
        read = (read_object(path[1:], word) for path, word in kept.items() if path.startswith("/"))
        return {one.path: one for one in read if one is not None}

    def add_stored(
        self, lease: Lease, destination: str, version: str, objects: Sequence[StoredObject]
    ) -> None:
        fields = {f"/{one.path}": object_word(one) for one in objects}
        self._write_work(lease, _stored_key(lease.asset_id, destination), "version", version, fields)

    def load_upload(self, asset_id: str, destination: str, key: str) -> OpenUpload | None:
        kept = self._hash("load_upload", _upload_key(asset_id, destination, key))
        return read_upload(kept, self._seal.unseal)

    def save_upload(self, lease: Lease, destination: str, key: str, upload: OpenUpload) -> None:
        words = upload_words(upload, self._seal.seal)
        self._write_work(lease, _upload_key(lease.asset_id, destination, key), "new", "", words)

    def add_part(
        self, lease: Lease, destination: str, key: str, number: int, part: tuple[int, int, str]
    ) -> None:
        work = _upload_key(lease.asset_id, destination, key)
        self._write_work(lease, work, "add", "", {str(number): part_word(part)})

    def forget_upload(self, asset_id: str, destination: str, key: str) -> None:
        self._run("forget_upload", asset_id, _upload_key(asset_id, destination, key))

    def report(self, progress: Progress) -> None:
        ends_in = PROGRESS_LIFETIME // MICROSECOND
        with suppress(LedgerUnavailable):
            self._run(
                "remember", "progress", progress.asset_id, _json(asdict(progress)), ends_in, 1, once=True
            )

    def progress(self) -> list[Progress]:
        read = (read_progress(fact) for fact in self._recall("progress").values())
        return [one for one in read if one is not None]

    # -- what the whole tool remembers ---------------------------------------------------------------------

    def lock(self, name: str, duration: timedelta) -> str | None:
        token = secrets.token_hex(8)
        return token if self._run("lock", name, token, _milliseconds(duration)) else None

    def extend_lock(self, name: str, token: str, duration: timedelta) -> bool:
        return bool(self._run("extend_lock", name, token, _milliseconds(duration)))

    def unlock(self, name: str, token: str) -> None:
        self._run("unlock", name, token)

    def remember(self, name: str, fact: Mapping[str, object], lifetime: timedelta | None = None) -> None:
        ends_in = None if lifetime is None else lifetime // MICROSECOND
        self._run("remember", "facts", name, _json(dict(fact)), ends_in, 0)

    def recall(self, name: str) -> Mapping[str, object] | None:
        return self._recall("facts", name).get(name)

    def recall_all(self, prefix: str) -> Mapping[str, Mapping[str, object]]:
        return {name: fact for name, fact in self._recall("facts").items() if name.startswith(prefix)}

    def forget(self, name: str) -> None:
        self._do("forget", lambda: self._redis.hdel(self._key("facts"), name))

    def remember_secret(self, name: str, value: str, lifetime: timedelta) -> None:
        key, sealed = self._key("secret:", name), self._seal.seal(value)
        self._do("remember_secret", lambda: self._redis.set(key, sealed, px=_milliseconds(lifetime)))

    def recall_secret(self, name: str) -> str | None:
        sealed = self._do("recall_secret", lambda: self._redis.get(self._key("secret:", name)))
        return self._seal.unseal(str(sealed)) if sealed else None

    def ping(self) -> None:
        # not PING: a server that answers may still refuse to write, being full, read-only or without disk
        self._do("ping", lambda: self._redis.set(self._key("lock:", "ping"), "", px=1))

    def persistence(self) -> Persistence:
        """Whether the server keeps the ledger across a restart, and whole when it runs full. By INFO, which
        managed servers answer where they refuse CONFIG. A ledger that is lost costs time, not recordings."""
        try:
            info = self._do(
                "persistence",
                lambda: (
                    self._redis.info("persistence") | self._redis.info("memory") | self._redis.info("stats")
                ),
            )
        except LedgerUnavailable as error:
            if not isinstance(error.__cause__, ResponseError):
                raise
            info = {}  # it answered, and refused
        return _judge_persistence(info)

    def close(self) -> None:
        self._redis.close()

    # -- shared steps --------------------------------------------------------------------------------------

    def _run(self, script: str, *words: Word, once: bool = False) -> Any:
        """Call a script by its file's name. None as a word is an empty one."""
        clock = "" if self._clock is None else _us(self._clock())
        args = [self._prefix, clock, *("" if word is None else word for word in words)]
        return self._do(script, lambda: self._scripts[script](args=args), once=once)

    def _hash(self, doing: str, key: str) -> dict[str, str]:
        return cast("dict[str, str]", self._do(doing, lambda: self._redis.hgetall(self._key(key))))

    def _do(self, doing: str, act: Callable[[], T], *, once: bool = False) -> T:
        """Each call to the server: again when the connection breaks, and every error as ours."""
        with translated(doing, self._where):
            return act() if once else self._again.call_with_retry(act, lambda _: None)

    def _key(self, kind: str, name: str = "") -> str:
        return f"{self._prefix}{kind}{name}"

    def _rows_of(self, state: AssetState, batch: int) -> Iterator[Row]:
        after, expires = "", 0
        while page := self._run("page", state, batch, after, expires) if batch else []:
            rows = [_flat_row(flat) for flat in page]
            yield from rows
            after, expires = rows[-1].asset_id, _us(rows[-1].expires_at)

    def _write_work(self, lease: Lease, key: str, mode: str, version: str, fields: Mapping[str, str]) -> None:
        words = (word for pair in fields.items() for word in pair)
        lifetime = _milliseconds(WORK_LIFETIME)
        if not self._run(
            "write_work", lease.asset_id, lease.fence, key, lifetime, mode, version, len(fields), *words
        ):
            raise _lost(lease)

    def _recall(self, key: str, *name: str) -> dict[str, Any]:
        return _facts(self._run("recall", key, *name))


def _facts(flat: Sequence[str]) -> dict[str, Any]:
    return {name: json.loads(fact) for name, fact in zip(flat[::2], flat[1::2], strict=True)}


def _call_number() -> int:
    """By which a script knows a call that was sent twice. 31 bits: a row keeps the last one in 5 bytes."""
    return secrets.randbits(31)


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"asset {lease.asset_id}: lease {lease.fence} of {lease.holder} has ended")


def _stored_key(asset_id: str, destination: str) -> str:
    return "stored:" + _json([asset_id, destination])  # JSON, since either may hold any separator


def _upload_key(asset_id: str, destination: str, key: str) -> str:
    return "upload:" + _json([asset_id, destination, key])


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _us(time: datetime) -> int:
    return (time - EPOCH) // MICROSECOND


def _time(microseconds: str | float) -> datetime:
    return EPOCH + int(microseconds) * MICROSECOND


def _milliseconds(duration: timedelta) -> int:
    return max(1, duration // timedelta(milliseconds=1))  # Redis refuses 0


def _seen_words(seen: Seen) -> tuple[Word, ...]:
    return (
        seen.asset_id,
        seen.type,
        _us(seen.expires_at),
        seen.verdict,
        None if seen.created_at is None else _us(seen.created_at),
        seen.room_id,
        seen.session_id,
        seen.size_bytes,
        seen.reason,
    )


def _settlement_words(settlement: Settlement) -> tuple[Word, ...]:
    return (
        settlement.state,
        settlement.reason,
        None if settlement.delay is None else settlement.delay // MICROSECOND,
        int(settlement.counts_as_attempt),
        int(settlement.mismatch),
        settlement.fingerprint,
        int(settlement.gone),
        settlement.stored_bytes or None,
        settlement.stored_objects or None,
        settlement.seconds or None,
        _json(settlement.warnings) if settlement.warnings else None,
    )


_READ: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(_TIMES, _time),
    **dict.fromkeys(_NUMBERS, int),
    "state": AssetState,
    "seconds": float,
    "warnings": lambda text: tuple(json.loads(text)),
}


def _flat_row(flat: Sequence[str]) -> Row:
    return _row(flat[0], dict(zip(flat[1::2], flat[2::2], strict=True)))


def _row(asset_id: str, fields: Mapping[str, str]) -> Row:
    values: dict[str, Any] = {}
    for short, name in _FIELDS.items():
        text = fields.get(short)
        if text is not None:
            values[name] = _READ.get(name, str)(text)
    return Row(asset_id=asset_id, acknowledged=_acknowledgement(fields), **values)


def _acknowledgement(fields: Mapping[str, str]) -> Acknowledgement | None:
    """Only of the state that the asset is still in: a worker of an older version leaves it where it is."""
    changed, _, rest = fields.get("ak", "").partition("|")
    if not changed or changed != fields.get("ch"):
        return None
    at, _, words = rest.partition("|")
    said = json.loads(words)
    return Acknowledgement(said["by"], said["why"], _time(at))


FULL = 0.9
"""Of `maxmemory`: messages and rows come in bursts."""


def _judge_persistence(info: Mapping[str, Any]) -> Persistence:
    aof, policy, maxmemory = info.get("aof_enabled"), info.get("maxmemory_policy"), info.get("maxmemory")
    if aof is None or policy is None:
        words = (
            "the server does not tell (INFO is refused); ask its provider for 'appendonly yes' and"
            " 'maxmemory-policy noeviction'"
        )
        return Persistence(None, None, None, words)

    faults = []
    if not aof:
        faults.append(
            "appendonly is off: after a restart what is due, under way and on hold is found again by the next sweep and"
            " reconcile, and unfinished uploads start again; set 'appendonly yes'"
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        faults.append("the append-only file cannot be written: look at the server's disk")
    if policy != "noeviction":
        full = "when its memory is full" if maxmemory else "once somebody sets maxmemory"
        faults.append(
            f"maxmemory-policy is {policy}: {full} it drops ledger rows and messages; set 'noeviction'"
        )
    if evicted := info.get("evicted_keys"):
        faults.append(f"{evicted:,} keys have been evicted already: rows of the ledger, or messages")
    used = info.get("used_memory", 0)
    if maxmemory and used > FULL * maxmemory:
        faults.append(
            f"it uses {used / maxmemory:.0%} of the memory it may use: raise maxmemory before it refuses"
        )
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        faults.append(
            "the append-only file cannot be rewritten and grows: look at the server's disk and memory"
        )
    return Persistence(
        bool(aof), policy, not faults, "; ".join(faults) or "kept on disk, and nothing is evicted"
    )
