"""Translate redis-py's errors into what is wrong and how to fix it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis import exceptions

from archiver.http import trust
from archiver.ledger.errors import LedgerUnavailable

# Searched anywhere in the server's answer: an error inside a script is wrapped in the script's own, and redis-py strips
# the first word of errors it has classes for.
_MEANINGS = {
    "NOAUTH": "it needs a password: put one in ARCHIVER_REDIS_URL (redis://:password@host:port/0)",
    "Authentication required": "it needs a password: put one in ARCHIVER_REDIS_URL (redis://:password@host:port/0)",
    "already authenticated": "it needs a password: put one in ARCHIVER_REDIS_URL (redis://:password@host:port/0)",
    "WRONGPASS": "it refused the user or the password in ARCHIVER_REDIS_URL",
    "invalid username-password": "it refused the user or the password in ARCHIVER_REDIS_URL",
    "invalid password": "it refused the password in ARCHIVER_REDIS_URL",
    "AUTH <password> called without any password": "it has no password, and ARCHIVER_REDIS_URL gives one",
    "no permissions": "its ACL forbids a command that the ledger needs: allow @all on the archiver's keys, with EVALSHA"
    " and SCRIPT LOAD",
    "used memory > 'maxmemory'": "it is out of memory (maxmemory): give it more, or remove what else is in it; keep"
    " maxmemory-policy at noeviction, since with another it would throw away ledger rows instead of saying this",
    "MISCONF": "it cannot write its snapshots to disk and so refuses writes: check its log and its disk",
    "read only replica": "it is a read-only replica: point ARCHIVER_REDIS_URL at the primary",
    "MASTERDOWN": "it is a replica that lost its primary: wait for the failover, or name the primary",
    "NOREPLICAS": "it has too few replicas to accept writes (min-replicas-to-write)",
    "loading the dataset in memory": "it is reading its data from disk after a start: wait",
    "BUSY ": "a script of another program holds it up: look with SLOWLOG, end it with SCRIPT KILL",
    "max number of clients": "it has as many clients as it accepts (maxclients)",
    "MOVED": "it is a cluster, which neither Celery nor the ledger can use: take a single primary",
    "CROSSSLOT": "it is a cluster, which neither Celery nor the ledger can use: take a single primary",
    "WRONGTYPE": "a key of the ledger holds what another program put there: give each its own database or key prefix",
    "unknown command": "it lacks a command that the ledger needs: Redis 6.2 or later, or Valkey, is needed",
    "Connection refused": "nothing listens there: start the server, or fix ARCHIVER_REDIS_URL",
    "Name or service not known": "the host name is not known: fix ARCHIVER_REDIS_URL",
    "Temporary failure in name resolution": "the host name cannot be resolved: check DNS and ARCHIVER_REDIS_URL",
}


def meaning(error: exceptions.RedisError) -> str:
    """Return what an error means and what to do."""
    if (reason := trust.rejection(error)) is not None:
        return trust.rejected(reason)

    text = str(error)
    for needle, words in _MEANINGS.items():
        if needle in text:
            return words

    if isinstance(error, exceptions.TimeoutError):
        return "it did not answer in time: it is overloaded, stopped, or behind a firewall"

    if isinstance(error, exceptions.ConnectionError):
        return "the connection broke; the server may be restarting"

    return "it refused the command"


@contextmanager
def translated(operation: str, where: str) -> Iterator[None]:
    """Raise LedgerUnavailable for every error of redis-py. `where` must not hold a password."""
    try:
        yield
    except exceptions.RedisError as error:
        raise LedgerUnavailable(
            f"ledger at {where}, {operation}: {meaning(error)} (answered: {type(error).__name__}: {error})"
        ) from error
