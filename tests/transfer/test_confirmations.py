"""Which responses have to be read again before they are believed: a table of what connections brought.

Over real connections: tests/transfer/test_confirmations_over_http.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast

import pytest

from archiver.http.connections import Connection
from archiver.http.transfer import Transfer
from archiver.http.waiting import Pause
from archiver.retry_policy import REQUEST
from archiver.transfer.confirmations import ANOTHER, MORE_CAME, UNREADABLE, Confirmations
from archiver.transfer.errors import SourceForbidden, SourceUnavailable
from archiver.transfer.tasks import Task
from storage_backends.base import ObjectKey, object_key
from tests.transfer.single_threaded import SingleThreaded

A, B, C = (object_key(name) for name in "abc")
CRC = 7


@dataclass(eq=False)
class Arrived:
    """As much of a Transfer as is looked at."""

    connection: Connection | None
    ordinal: int


class Harness:
    def __init__(self) -> None:
        self.runs = SingleThreaded()
        self.confirmations = Confirmations(replace(REQUEST, attempts=3, base=timedelta()))
        self.read: list[ObjectKey] = []  # again
        self.at_once = self.most_at_once = 0

    def arrived(
        self,
        key: ObjectKey,
        *brought_by: tuple[Connection | None, int],
        again: int = CRC,
        error: Exception | None = None,
    ) -> None:
        async def read_again() -> int:
            self.read.append(key)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            await Pause(1)
            self.at_once -= 1
            if error is not None:
                raise error
            return again

        transfers = [cast("Transfer", Arrived(*one)) for one in brought_by]
        self.confirmations.arrived(transfers, key, CRC, read_again)

    def confirmed(self, connection: Connection | None, ordinal: int) -> None:
        self.confirmations.confirmed(cast("Transfer", Arrived(connection, ordinal)))

    def confirm(self) -> Mapping[ObjectKey, str]:
        self.read.clear()
        task = Task(self.runs, self.confirmations.confirm(self.runs)).begin()
        while self.runs.step():
            pass
        assert task.done
        if task.error is not None:
            raise task.error
        condemned: Mapping[ObjectKey, str] = task.value
        return condemned


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_the_first_response_of_a_connection_is_certain(harness: Harness) -> None:
    for key in (A, B, C):
        harness.arrived(key, (Connection(tls=True), 1), again=0)

    assert harness.confirm() == {}
    assert harness.read == []


def test_of_several_the_last_is_read_again_and_confirms_those_before(harness: Harness) -> None:
    connection = Connection(tls=True)
    for ordinal, key in enumerate((A, B, C), start=1):
        harness.arrived(key, (connection, ordinal))

    assert harness.confirm() == {}
    assert harness.read == [C]
    assert not connection.condemned


def test_the_last_is_the_one_that_the_connection_brought_last(harness: Harness) -> None:
    """It may have been read, and told of, before an earlier one."""
    connection = Connection(tls=True)
    harness.arrived(C, (connection, 3))
    harness.arrived(B, (connection, 2), again=0)

    assert harness.confirm() == {}
    assert harness.read == [C]


def test_when_it_is_another_none_since_the_last_confirmation_is_believed(harness: Harness) -> None:
    connection, other = Connection(tls=True), Connection(tls=True)
    harness.arrived(A, (connection, 1))
    harness.arrived(B, (connection, 2))
    harness.arrived(C, (connection, 3), again=0)
    harness.arrived(A, (other, 2))

    assert harness.confirm() == {B: ANOTHER, C: ANOTHER}
    assert connection.condemned
    assert not other.condemned


@pytest.mark.parametrize(
    ("error", "times"), [(SourceUnavailable("503"), 3), (SourceForbidden("403"), 1)], ids=["503", "403"]
)
def test_what_cannot_be_read_again_is_not_believed(error: Exception, times: int, harness: Harness) -> None:
    harness.arrived(B, (Connection(tls=True), 2), error=error)

    assert harness.confirm() == {B: UNREADABLE}
    assert harness.read == [B] * times


def test_a_connection_on_which_more_came_is_not_believed_and_not_asked(harness: Harness) -> None:
    connection = Connection(tls=True)
    harness.arrived(B, (connection, 2))
    connection.tainted = True

    assert harness.confirm() == {B: MORE_CAME}
    assert harness.read == []


def test_a_range_of_its_own_kind_confirms_all_before_it(harness: Harness) -> None:
    connection = Connection(tls=True)
    harness.arrived(B, (connection, 2), again=0)

    harness.confirmed(connection, 3)

    assert harness.confirm() == {}
    assert harness.read == []


def test_it_confirms_nothing_that_came_after_it(harness: Harness) -> None:
    connection = Connection(tls=True)
    harness.arrived(C, (connection, 4), again=0)

    harness.confirmed(connection, 3)

    assert harness.confirm() == {C: ANOTHER}


def test_it_confirms_nothing_on_a_connection_on_which_more_came(harness: Harness) -> None:
    connection = Connection(tls=True)
    harness.arrived(B, (connection, 2))
    connection.tainted = True

    harness.confirmed(connection, 3)

    assert harness.confirm() == {B: MORE_CAME}


def test_it_confirms_nothing_of_another_connection(harness: Harness) -> None:
    harness.arrived(B, (Connection(tls=True), 2), again=0)

    harness.confirmed(Connection(tls=True), 3)
    harness.confirmed(None, 3)

    assert harness.confirm() == {B: ANOTHER}


@pytest.mark.parametrize("mixed_up", ["the redirect", "the file"])
def test_a_file_is_believed_when_each_connection_that_led_to_it_is(mixed_up: str, harness: Harness) -> None:
    redirecting, serving = Connection(tls=True), Connection(tls=True)
    harness.arrived(B, (redirecting, 2), (serving, 5))
    guilty = redirecting if mixed_up == "the redirect" else serving
    harness.arrived(C, (guilty, 6), again=0)

    assert harness.confirm() == {B: ANOTHER, C: ANOTHER}
    assert guilty.condemned


def test_a_response_that_did_not_end_stands_for_itself(harness: Harness) -> None:
    harness.arrived(A, (None, 0))
    harness.arrived(B, (None, 0), again=0)

    assert harness.confirm() == {B: ANOTHER}


def test_what_was_confirmed_is_not_read_again(harness: Harness) -> None:
    connection = Connection(tls=True)
    harness.arrived(B, (connection, 2))
    harness.confirm()

    assert harness.confirm() == {}
    assert harness.read == []

    harness.arrived(C, (connection, 3), again=0)
    assert harness.confirm() == {C: ANOTHER}


def test_only_so_many_are_read_at_once(harness: Harness) -> None:
    keys = [object_key(f"key/{n}") for n in range(50)]
    for key in keys:
        harness.arrived(key, (Connection(tls=True), 2))

    assert harness.confirm() == {}
    assert sorted(harness.read) == sorted(keys)
    assert harness.most_at_once == 16


def test_a_defect_is_raised(harness: Harness) -> None:
    for _ in range(20):
        harness.arrived(B, (Connection(tls=True), 2), error=RuntimeError("defect"))

    with pytest.raises(RuntimeError, match="defect"):
        harness.confirm()


def test_a_range_is_of_its_own_kind_when_nobody_asked_for_the_same_before(harness: Harness) -> None:
    ask = harness.confirmations.ask

    assert [ask(5, 10, 100), ask(10, 10, 100), ask(5, 20, 100), ask(5, 10, 101), ask(5, 10, None)] == [
        True
    ] * 5
    assert [ask(5, 10, 100), ask(5, 10, None)] == [False] * 2


def test_a_range_from_the_start_is_not_for_every_first_request_asks_for_one(harness: Harness) -> None:
    assert not harness.confirmations.ask(0, 10, 100)
