"""A directory whose disk is not mounted, or is unmounted, before a marker was ever written to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.core.destinations.checked import CHECK_EVERY, Destinations
from archiver.core.destinations.marker_check import UNMARKED_FOR, UNMARKED_LOOK
from archiver.core.errors import NotTheDestination
from archiver.core.records.keys import MARKER
from archiver.ledger.memory.ledger import MemoryLedger
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec, StorageBackend
from storage_backends.errors import AccessDenied
from storage_backends.filesystem import FilesystemBackend
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock

OURS = "workspace-ours"


class Unmarkable(FilesystemBackend):
    """Takes everything but a marker."""

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if spec.key == MARKER:
            raise AccessDenied("403")
        return super().put(spec, data, crc32c)


class Machine:
    """A ledger, and a mount point to which `disk` is mounted or not."""

    def __init__(self, base: Path) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.point = base / "nas"
        self._aside = base / "aside"
        self.point.mkdir()
        self._aside.mkdir()

    def mount_or_unmount(self) -> None:
        """What lay aside is at the mount point, and the other way round."""
        between = self.point.with_name("between")
        self.point.rename(between)
        self._aside.rename(self.point)
        between.rename(self._aside)

    def process(self, *stores: StorageBackend) -> Destinations:
        return Destinations(
            ledger=self.ledger,
            stores=stores,
            workspace=OURS,
            clock=self.clock,
            machine="host-1",
            pause=lambda _seconds: None,
        )

    def archive(self, asset_id: str, stores: Sequence[StorageBackend]) -> None:
        enter(self.ledger, asset(id=asset_id))
        archive_at(stores, asset(id=asset_id))

    def files(self) -> list[Path]:
        return [path for path in self.point.rglob("*") if path.is_file()]


def test_a_disk_that_was_not_mounted_at_the_first_start_is_refused_once_it_is_until_a_person_adopts_it(
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path)
    store = FilesystemBackend(machine.point)
    machine.process(store).confirm(store.name)
    machine.archive("below", [store])

    machine.mount_or_unmount()

    for _ in range(3):
        machine.clock.advance(CHECK_EVERY)
        with pytest.raises(NotTheDestination, match="archiver adopt"):
            machine.process(FilesystemBackend(machine.point)).confirm(store.name)
    assert machine.files() == []
    person = machine.process(FilesystemBackend(machine.point))
    person.adopt(store.name)
    person.confirm(store.name)
    assert person.began_empty_at(store.name) == machine.clock(), "what it lacks is copied again or counted"


@pytest.mark.parametrize("others", [0, 1])
def test_a_disk_that_never_took_a_marker_is_not_taken_for_a_new_one_when_it_is_unmounted(
    tmp_path: Path, others: int
) -> None:
    machine = Machine(tmp_path)
    stores: list[StorageBackend] = [Unmarkable(machine.point), *[MemoryBackend("two") for _ in range(others)]]
    name = stores[0].name
    process = machine.process(*stores)
    process.check_all()
    machine.archive("one", stores)
    machine.clock.advance(UNMARKED_FOR)
    process.confirm(name)

    machine.mount_or_unmount()

    machine.clock.advance(UNMARKED_FOR + timedelta(seconds=1))
    for again in (process, machine.process(FilesystemBackend(machine.point), *stores[1:])):
        with pytest.raises(NotTheDestination):
            again.confirm(name)
    assert machine.files() == []
    machine.mount_or_unmount()
    machine.clock.advance(timedelta(minutes=6))
    back = machine.process(FilesystemBackend(machine.point), *stores[1:])
    back.confirm(name)
    assert back.is_identified(name)


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("archived_first", [False, True])
def test_a_disk_that_refused_its_marker_a_minute_ago_is_missed_when_it_is_unmounted(
    tmp_path: Path, others: int, archived_first: bool
) -> None:
    machine = Machine(tmp_path)
    stores: list[StorageBackend] = [Unmarkable(machine.point), *[MemoryBackend("two") for _ in range(others)]]
    name = stores[0].name
    process = machine.process(*stores)
    if archived_first:
        machine.archive("one", stores)
    process.check_all()
    if not archived_first:
        machine.archive("one", stores)
        machine.clock.advance(UNMARKED_LOOK)
        process.confirm(name)

    machine.mount_or_unmount()

    for _ in range(3):
        machine.clock.advance(UNMARKED_LOOK)
        with pytest.raises(NotTheDestination):
            process.confirm(name)
    assert machine.files() == []
    machine.mount_or_unmount()
    machine.clock.advance(timedelta(minutes=6))
    process.confirm(name)


def test_a_new_disk_that_refuses_its_marker_is_used_while_it_is_empty(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    store = Unmarkable(machine.point)
    process = machine.process(store)

    for _ in range(4):
        process.confirm(store.name)
        machine.clock.advance(UNMARKED_LOOK)
