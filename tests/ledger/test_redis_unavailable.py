"""What is wrong with the server is said in words, with what to do, and without the password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from redis import exceptions

from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.models import AssetState, Progress
from archiver.ledger.redis.errors import meaning, translated
from archiver.ledger.redis.ledger import RedisLedger
from tests.contracts.ledger_contract import ARCHIVED, HOUR, MINUTE, seen
from tests.ledger.harnesses import SEAL
from tests.valkey import ValkeyServer, valkey_server

PASSWORD = "hunter2-marked"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    with valkey_server(tmp_path) as server:
        yield server


@contextmanager
def opened(url: str) -> Iterator[RedisLedger]:
    with closing(RedisLedger(url, SEAL)) as ledger:
        yield ledger


def complaint(url: str) -> str:
    """Return the response to a page of a sweep, and to a ping."""
    with opened(url) as ledger:
        with pytest.raises(LedgerUnavailable) as failure:
            ledger.discover([seen()])
        with pytest.raises(LedgerUnavailable):
            ledger.ping()
    assert PASSWORD not in str(failure.value) + repr(failure.value) + repr(failure.value.__cause__)
    return str(failure.value)


def test_nothing_listens(server: ValkeyServer) -> None:
    server.kill()

    reported = complaint(server.url.replace("redis://", f"redis://:{PASSWORD}@"))

    assert f"127.0.0.1:{server.port}" in reported
    assert "nothing listens there" in reported


def test_an_unknown_host() -> None:
    assert "cannot be resolved" in (reported := complaint("redis://no-such-host.invalid:6379")) or (
        "not known" in reported
    )


def test_it_does_not_answer(server: ValkeyServer) -> None:
    server.pause()

    reported = complaint(server.url + "?socket_timeout=0.05")

    assert "did not answer in time" in reported


def test_it_wants_a_password(tmp_path: Path) -> None:
    with valkey_server(tmp_path, password=PASSWORD) as server:
        bare = server.url.replace(f":{PASSWORD}@", "")

        assert "needs a password" in complaint(bare)
        assert "refused the user or the password" in complaint(server.url.replace(PASSWORD, "wrong"))
        with opened(server.url) as ledger:
            assert ledger.discover([seen()]) == 1


def test_an_acl_forbids_scripts(server: ValkeyServer) -> None:
    with server.client() as side:
        side.execute_command(
            "ACL", "SETUSER", "limited", "on", f">{PASSWORD}", "~*", "+@all", "-@scripting", "-set"
        )

    reported = complaint(server.url.replace("redis://", f"redis://limited:{PASSWORD}@"))

    assert "ACL forbids" in reported


def test_it_is_out_of_memory(server: ValkeyServer) -> None:
    with server.client() as side:
        side.config_set("maxmemory", "1")

    reported = complaint(server.url)

    assert "out of memory" in reported
    assert "noeviction" in reported


def test_out_of_memory_leaves_no_half_made_change(server: ValkeyServer) -> None:
    with opened(server.url) as ledger, server.client() as side:
        ledger.discover([seen("a"), seen("b")])
        lease = ledger.lease("a", "w1", HOUR)
        assert lease
        before = [*ledger.rows()]
        side.config_set("maxmemory", "1")

        for act in (
            lambda: ledger.settle(lease, seen("a"), ARCHIVED),
            lambda: ledger.lease("b", "w1", HOUR),
            lambda: ledger.record_archived(seen("c"), ARCHIVED),
        ):
            with pytest.raises(LedgerUnavailable, match="out of memory"):
                act()

        assert [*ledger.rows()] == before
        assert ledger.counts().balanced
        # a script that removes before it adds is let through, and then to its end
        assert [row.asset_id for row in ledger.take_due(10, HOUR)] == ["b"]
        assert ledger.counts().balanced

        side.config_set("maxmemory", "0")
        assert ledger.settle(lease, seen("a"), ARCHIVED).state == AssetState.ARCHIVED


def test_it_is_a_replica(server: ValkeyServer) -> None:
    with server.client() as side:
        side.execute_command("REPLICAOF", "127.0.0.1", "1")

    assert "replica" in complaint(server.url)


def test_it_is_still_loading(server: ValkeyServer) -> None:
    with server.client() as side:
        side.config_set("rdbcompression", "no")
        for n in range(20):
            side.set(f"k{n}", "v" * 2_200_000)
        side.save()
    server.stop()
    # 0.3 s a key, so that it stays so for 6 s; every 2 MB it answers commands, with LOADING
    server.options = ("--key-load-delay", "300000")
    server.start()

    assert "reading its data" in complaint(server.url)


def test_another_program_uses_the_same_keys(server: ValkeyServer) -> None:
    with opened(server.url) as ledger, server.client() as side:
        side.set("archiver:state:discovered", "a string")

        with pytest.raises(LedgerUnavailable, match="another program"):
            ledger.discover([seen()])


@pytest.mark.parametrize("url", [f"redis://:{PASSWORD}/x@host:6379", f"http://:{PASSWORD}@host", "redis", ""])
def test_an_unreadable_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(LedgerUnavailable, match=r"expected redis://") as failure:
        RedisLedger(url, SEAL)

    assert PASSWORD not in str(failure.value)
    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__


def test_a_report_never_raises(server: ValkeyServer) -> None:
    with opened(server.url) as ledger:
        server.kill()

        ledger.report(Progress("a", "chat", 1, None, 0, "x"))


def test_a_restart_between_two_calls_is_not_noticed(tmp_path: Path) -> None:
    kept = ("--appendonly", "yes", "--appendfsync", "always")
    with valkey_server(tmp_path, *kept) as server, opened(server.url) as ledger:
        ledger.discover([seen()])
        lease = ledger.lease("a", "w1", HOUR)
        assert lease
        server.kill()
        server.start()

        ledger.renew(lease, MINUTE)
        settled = ledger.settle(lease, seen(), ARCHIVED)

        assert (settled.state, settled.attempts) == (AssetState.ARCHIVED, 1)
        assert ledger.counts().balanced


def test_a_restart_that_lost_everything_is_a_flush(server: ValkeyServer) -> None:
    with opened(server.url) as ledger:
        ledger.discover([seen()])
        lease = ledger.lease("a", "w1", HOUR)
        assert lease
        server.kill()
        server.start()

        ledger.renew(lease, MINUTE)

        assert ledger.settle(lease, seen(), ARCHIVED).state == AssetState.ARCHIVED


def error_classes() -> list[type[Exception]]:
    found = (getattr(exceptions, name) for name in dir(exceptions))
    return [one for one in found if isinstance(one, type) and issubclass(one, exceptions.RedisError)]


def test_every_error_that_redis_py_raises_of_a_server_has_one_base() -> None:
    own = (
        one
        for one in vars(exceptions).values()
        if isinstance(one, type) and one.__module__ == exceptions.__name__
    )

    others = {
        one.__name__
        for one in own
        if issubclass(one, Exception) and not issubclass(one, exceptions.RedisError)
    }

    # of a fork in the middle of a call, and of its cluster client: nothing that a server answers to this one
    assert others == {
        "ChildDeadlockedError",
        "CrossSlotTransactionError",
        "IncorrectPolicyType",
        "InvalidPipelineStack",
        "RedisClusterException",
        "SlotNotCoveredError",
    }


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_every_error_of_redis_py_becomes_ours(kind: type[Exception]) -> None:
    error = kind.__new__(kind)  # some want arguments of their own
    Exception.__init__(error, "words of the server")

    with pytest.raises(LedgerUnavailable) as failure, translated("lease", "host:6379"):
        raise error

    assert "ledger at host:6379, lease: " in str(failure.value)
    assert failure.value.__cause__ is error


@pytest.mark.parametrize(
    ("answer", "means"),
    [
        ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable", "disk"),
        (
            "Error running script (call to f_1): -OOM command not allowed when used memory > 'maxmemory'.",
            "out of memory",
        ),
        ("NOREPLICAS Not enough good replicas to write.", "too few replicas"),
        ("MASTERDOWN Link with MASTER is down", "lost its primary"),
        ("max number of clients reached", "maxclients"),
        ("MOVED 3999 127.0.0.1:6381", "cluster"),
        ("unknown command 'EVALSHA'", "6.2"),
        ("something new", "refused"),
    ],
)
def test_what_the_server_answers_is_explained(answer: str, means: str) -> None:
    assert means in meaning(exceptions.ResponseError(answer))


# -- what doctor asks ------------------------------------------------------------------------------------------


def test_a_server_set_up_as_it_should_be_is_sound(tmp_path: Path) -> None:
    with valkey_server(tmp_path, "--appendonly", "yes") as server, opened(server.url) as ledger:
        found = ledger.persistence()

    assert (found.sound, found.appendonly, found.eviction_policy) == (True, True, "noeviction")


def test_a_server_that_forgets_or_evicts_is_a_fault(tmp_path: Path) -> None:
    options = ("--maxmemory-policy", "allkeys-lru", "--maxmemory", "100mb")
    with valkey_server(tmp_path, *options) as server, opened(server.url) as ledger:
        found = ledger.persistence()

    assert (found.sound, found.appendonly, found.eviction_policy) == (False, False, "allkeys-lru")
    assert "appendonly yes" in found.explanation
    assert "noeviction" in found.explanation


def test_a_server_that_refuses_info_is_reported(server: ValkeyServer) -> None:
    with server.client() as side:
        side.execute_command("ACL", "SETUSER", "limited", "on", f">{PASSWORD}", "~*", "+@all", "-info")

    with opened(server.url.replace("redis://", f"redis://limited:{PASSWORD}@")) as ledger:
        found = ledger.persistence()

    assert (found.sound, found.appendonly, found.eviction_policy) == (None, None, None)
    assert "does not tell" in found.explanation


def test_a_server_that_is_away_is_no_opinion_on_its_persistence(server: ValkeyServer) -> None:
    server.kill()

    with opened(server.url) as ledger, pytest.raises(LedgerUnavailable):
        ledger.persistence()


def test_unused_time_is_not_kept(server: ValkeyServer) -> None:
    """A lock for less than a millisecond is still a lock that Redis accepts."""
    with opened(server.url) as ledger:
        assert ledger.lock("x", timedelta())
