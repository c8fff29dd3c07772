"""Call the Redis server: connection, Lua scripts, retries, translated errors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import hiredis
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.commands.core import Script
from redis.connection import HiredisRespSerializer
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.redis.errors import translated
from archiver.ledger.redis.tls import tls_options
from archiver.ledger.redis.values import microseconds
from archiver.ledger.sealing import Seal

BATCH = 500
"""Rows a script returns or moves at once: some 10 ms during which the server does nothing else."""

ATTEMPTS = 4
"""Attempts of each call: within 2 s while the server refuses connections, within 42 s while it accepts them and never
answers. A longer outage is the caller's: the task ends, and its lease with it."""

_EVALSHA = "EVALSHA"

T = TypeVar("T")
Argument = str | int | float | None


class _Packer(HiredisRespSerializer):
    """Packs commands in C, but for those with half a surrogate pair, which hiredis cannot encode."""

    def pack(self, *args: Any) -> Any:
        try:
            if args[0] == _EVALSHA:  # no words to split, no buffers to copy
                return [hiredis.pack_command(args)]
            return super().pack(*args)
        except UnicodeEncodeError:
            encoded = [arg.encode("utf-8", "surrogatepass") if isinstance(arg, str) else arg for arg in args]
            return super().pack(*encoded)  # type: ignore[arg-type]  # one argument each, as above


def connect(url: str, authorities: Path | None = None) -> Redis:
    """Make a client of `url` (redis://, rediss://, unix://) with timeouts; open nothing yet. `authorities`: see
    `tls_options`. Raises LedgerUnavailable for an invalid URL."""
    try:
        return Redis.from_url(
            url,
            decode_responses=True,
            encoding_errors="surrogatepass",  # an id is what the API says, even half a surrogate pair
            command_packer=_Packer(),
            socket_timeout=10,  # seconds; the longest script takes some 20 ms
            socket_connect_timeout=5,
            socket_keepalive=True,
            health_check_interval=25,  # finds a connection that a firewall dropped before it is needed
            retry=Retry(
                NoBackoff(), 0
            ),  # ScriptCalls retries; redis-py, on four levels, would make 4 into 16
            **tls_options(url, authorities),
        )
    except ValueError:
        # from None: the text of the cause may quote a part of the password
        raise LedgerUnavailable(
            "the ledger's URL cannot be read; expected redis://[user:password@]host:port/database, with any of"
            " @ : / # ? % in the password written as %40 %3A %2F %23 %3F %25"
        ) from None


class ScriptCalls:
    """Calls to one server under one key prefix, for the parts of `RedisLedger`.

    A call that breaks off is sent again: where twice is not the same as once, the scripts recognise it.
    """

    def __init__(
        self,
        client_or_url: Redis | str,
        seal: Seal,
        key_prefix: str = "archiver:",
        clock: Callable[[], datetime] | None = None,
        authorities: Path | None = None,
    ) -> None:
        """`clock` (aware UTC) replaces the server's clock, for tests only. Redis's own lifetimes (locks, secrets,
        unfinished copies) do not follow it."""
        self._redis = connect(client_or_url, authorities) if isinstance(client_or_url, str) else client_or_url
        options = self._redis.connection_pool.connection_kwargs
        if not options.get("decode_responses"):
            raise ValueError(
                "the ledger needs a client with decode_responses=True, as archiver.ledger.redis.calls.connect makes"
            )

        self._where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        self._seal = seal
        self._prefix = key_prefix
        self._clock = clock
        self._idle: list[Any] = []  # connections taken from the pool, which `Redis.close` closes as well
        self._retry = Retry(
            ExponentialWithJitterBackoff(base=0.1, cap=1), ATTEMPTS - 1
        )  # up to 0.2, 0.4, 0.8 s apart
        folder = Path(__file__).parent / "lua"
        shared = (folder / "_shared.lua").read_text()
        self._scripts: dict[str, Script] = {
            file.stem: self._redis.register_script(shared + file.read_text())
            for file in folder.glob("[!_]*.lua")
        }

    def _run(self, script: str, *arguments: Argument, once: bool = False) -> Any:
        """Run `lua/<script>.lua`. None becomes an empty argument. `once`: do not retry."""
        clock = "" if self._clock is None else microseconds(self._clock())
        args = [self._prefix, clock, *("" if argument is None else argument for argument in arguments)]
        return self._call(script, lambda: self._evaluate(self._scripts[script], args), once=once)

    def _evaluate(self, script: Script, args: list[Any]) -> Any:
        """As `script(args=args)`, without what redis-py does around a command (its pool, its own retries, which are
        off, and metrics): half of the call, of which each asset makes three."""
        connection = self._take()
        try:
            connection.send_command(_EVALSHA, script.sha, 0, *args)
            answer = connection.read_response()
        except (
            BaseException
        ) as error:  # where the connection broke, or was left in the middle, redis-py has closed it
            self._redis.connection_pool.release(connection)
            if isinstance(error, NoScriptError):
                return script(args=args)  # which loads it
            raise
        self._idle.append(connection)
        return answer

    def _take(self) -> Any:
        """A connection of this process that nobody else uses and nothing was left on."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._redis.connection_pool.get_connection()
        if connection.pid != os.getpid():  # the parent's: all of them are
            self._idle.clear()
            return self._redis.connection_pool.get_connection()
        try:
            stale = connection.can_read()
        except (RedisError, OSError):
            stale = True
        if stale:
            connection.disconnect()  # it connects again by itself
        return connection

    def _hash(self, operation: str, key: str) -> dict[str, str]:
        return cast("dict[str, str]", self._call(operation, lambda: self._redis.hgetall(self._key(key))))

    def _recall(self, key: str, *name: str) -> dict[str, Any]:
        return read_facts(self._run("recall", key, *name))

    def _call(self, operation: str, act: Callable[[], T], *, once: bool = False) -> T:
        """Run `act` with retries when the connection breaks. Raises LedgerUnavailable for every error of redis-py."""
        with translated(operation, self._where):
            return act() if once else self._retry.call_with_retry(act, lambda _: None)

    def _key(self, kind: str, name: str = "") -> str:
        return f"{self._prefix}{kind}{name}"


def read_facts(flat: Sequence[str]) -> dict[str, Any]:
    """Read a script's answer of alternating names and JSON values."""
    return {name: json.loads(fact) for name, fact in zip(flat[::2], flat[1::2], strict=True)}
