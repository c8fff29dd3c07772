"""Assets come back whole from the nearest copy that has them, object by object, into a folder that nothing escapes."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archiver.core.errors import FileRefused, FolderBusy, FolderFull, FolderUnusable
from archiver.core.records import tombstones
from archiver.core.records.commit import mark_damaged
from archiver.core.records.tombstones import Tombstone
from archiver.core.restore.folder import WORK, RestoreFolder
from archiver.core.restore.reading import BlockReader
from archiver.core.restore.restorer import AWAY_AFTER, Restored, Restorer, Stopped
from archiver.core.upkeep.copies import Selection, find
from archiver.hms.models import parse_time
from archiver.ledger.models import AssetState
from storage_backends.base import object_key
from storage_backends.errors import ObjectCold, TransientStorageError
from storage_backends.memory import MemoryBackend
from storage_backends.registry import open_destination
from tests.core.archived import archive_at, flip_a_bit, manifest_of, put
from tests.core.examples import NOW, asset

TREE = {
    "master.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlow/low.m3u8\n",
    "low/low.m3u8": b"#EXTM3U\n#EXTINF:1,\ns0.ts\n",
    "low/s0.ts": b"0" * 300,
    "low/s1.ts": b"1" * 70,
    "empty.vtt": b"",
}
PLACE = f"room-1/session-1/room-composite/{asset().id}"
BLOCK = 64


@pytest.fixture
def near() -> MemoryBackend:
    return MemoryBackend("near")


@pytest.fixture
def far() -> MemoryBackend:
    return MemoryBackend("far")


def restore(folder: Path, *stores: MemoryBackend, sha256: bool = False, **selected: Any) -> list[Restored]:
    selection = Selection(**selected) if selected else Selection((asset().id,))
    with RestoreFolder(folder) as opened, BlockReader(3, BLOCK) as reader:
        restorer = Restorer(opened, reader, sha256=sha256)
        return [restorer.restore(copies) for copies in find(stores, selection)]


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: data for path, data in found.items() if not path.endswith("manifest.json")}


def restored(tree: dict[str, bytes] = TREE) -> dict[str, bytes]:
    return {f"{PLACE}/{path}": data for path, data in tree.items()}


def test_a_tree_comes_back_as_it_was_with_its_manifest(near: MemoryBackend, tmp_path: Path) -> None:
    archive_at([near], asset(), TREE)

    (result,) = restore(tmp_path, near)

    assert result.ok
    assert files(tmp_path) == restored()
    assert (tmp_path / PLACE / "manifest.json").read_bytes() == manifest_of(asset(), TREE).to_bytes()
    assert (result.opens, result.read_bytes) == (f"{PLACE}/master.m3u8", sum(map(len, TREE.values())))
    assert not (tmp_path / WORK).exists()


def test_what_is_there_and_whole_is_kept_and_what_is_not_is_replaced(
    near: MemoryBackend, tmp_path: Path
) -> None:
    archive_at([near], asset(), TREE)
    restore(tmp_path, near)
    (tmp_path / PLACE / "low/s1.ts").write_bytes(b"?" * 70)
    (tmp_path / PLACE / "low/s0.ts").write_bytes(b"0" * 299)
    (tmp_path / PLACE / "empty.vtt").unlink()
    before = (tmp_path / PLACE / "master.m3u8").stat()

    (result,) = restore(tmp_path, near)

    assert (result.ok, result.kept, result.read_bytes) == (True, 2, 370)
    assert files(tmp_path) == restored()
    assert (tmp_path / PLACE / "master.m3u8").stat().st_mtime_ns == before.st_mtime_ns


def test_an_object_that_one_copy_lacks_or_has_wrong_comes_from_another(
    near: MemoryBackend, far: MemoryBackend, tmp_path: Path
) -> None:
    key = archive_at([near, far], asset(), TREE)
    flip_a_bit(near, key)  # its first object
    del near.store.objects[f"recordings/{asset().id}/low/s0.ts"]
    put(near, f"recordings/{asset().id}/low/s1.ts", b"1" * 71)  # longer

    (result,) = restore(tmp_path, near, far)

    assert result.ok
    assert files(tmp_path) == restored()
    assert result.sources == {"memory://near": 2, "memory://far": 3}


def test_what_no_copy_has_whole_is_named_and_the_rest_is_there(
    near: MemoryBackend, far: MemoryBackend, tmp_path: Path
) -> None:
    key = archive_at([near, far], asset(), TREE)
    del near.store.objects[f"recordings/{asset().id}/low/s0.ts"]
    put(far, f"recordings/{asset().id}/low/s0.ts", b"0" * 299 + b"?")
    assert key

    (result,) = restore(tmp_path, near, far)

    (problem,) = result.problems
    assert "low/s0.ts" in problem
    assert "memory://near: low/s0.ts is missing" in problem
    assert "memory://far: low/s0.ts has CRC32C" in problem
    assert set(restored()) - set(files(tmp_path)) == {f"{PLACE}/low/s0.ts"}
    assert not (tmp_path / WORK).exists()
    assert not (tmp_path / PLACE / "manifest.json").exists()


def test_a_copy_that_is_neither_damaged_nor_doubted_is_chosen_although_it_is_farther(
    near: MemoryBackend, far: MemoryBackend, tmp_path: Path
) -> None:
    key = archive_at([near, far], asset(), TREE)
    mark_damaged(near, key, ["master.m3u8: missing"])

    (result,) = restore(tmp_path, near, far)

    assert result.sources == {"memory://far": 5}


def test_another_whole_version_is_restored_when_the_nearest_is_not_whole(
    near: MemoryBackend, far: MemoryBackend, tmp_path: Path
) -> None:
    archive_at([near], asset(), {"old.mp4": b"o" * 100, "movie.mp4": b"1" * 100})
    archive_at([far], asset(), {"movie.mp4": b"2" * 100})
    del near.store.objects[f"recordings/{asset().id}/movie.mp4"]

    (result,) = restore(tmp_path, near, far)

    assert result.ok
    assert files(tmp_path) == restored({"movie.mp4": b"2" * 100})
    assert "memory://near lists another version" in result.notes[0]


class Cut(Exception):
    """The process dies here."""


def test_a_large_file_resumes_where_the_last_run_ended(
    near: MemoryBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_at([near], asset(), {"movie.mp4": bytes(range(256)) * 4})
    read, asked = near.read, []

    def dying(key: Any, start: int = 0, length_bytes: int | None = None, **more: Any) -> bytes:
        asked.append(start)
        if key.endswith("movie.mp4") and start >= 8 * BLOCK:
            raise Cut
        return read(key, start, length_bytes, **more)

    monkeypatch.setattr(near, "read", dying)
    with pytest.raises(Cut):
        restore(tmp_path, near)
    assert files(tmp_path).keys() != restored({"movie.mp4": b""}).keys()
    monkeypatch.setattr(near, "read", read)

    (result,) = restore(tmp_path, near)

    assert files(tmp_path) == restored({"movie.mp4": bytes(range(256)) * 4})
    assert result.read_bytes == 1024 - 8 * BLOCK
    assert not (tmp_path / WORK).exists()


DYING = """
import os, signal, sys
from pathlib import Path
from archiver.core.upkeep.copies import Selection, find
from archiver.core.restore.folder import RestoreFolder
from archiver.core.restore.reading import BlockReader
from archiver.core.restore.restorer import Restorer
from storage_backends.registry import open_destination

store, asked = open_destination(sys.argv[1]), []
read = store.read
def dying(key, *arguments, **more):
    asked.append(key)
    if len(asked) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(key, *arguments, **more)
store.read = dying
with RestoreFolder(Path(sys.argv[2])) as folder, BlockReader(2, 64) as reader:
    for copies in find([store], Selection()):
        Restorer(folder, reader).restore(copies)
"""


@pytest.mark.parametrize("reads", [1, 4, 9])
def test_a_restore_that_was_killed_is_resumed_and_ends_the_same(tmp_path: Path, reads: int) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    archive.mkdir()
    store = open_destination(f"file://{archive}")
    movie = {**TREE, "movie.mp4": bytes(range(256)) * 8}
    archive_at([store], asset(), movie)
    command = [sys.executable, "-c", DYING, f"file://{archive}", str(out), str(reads)]

    killed = subprocess.run(command, timeout=60, check=False)
    with RestoreFolder(out) as folder, BlockReader(2, 64) as reader:
        (result,) = (Restorer(folder, reader).restore(copies) for copies in find([store], Selection()))

    assert killed.returncode == -signal.SIGKILL
    assert result.ok
    assert files(out) == restored(movie)
    assert not (out / WORK).exists()


def test_a_restore_that_is_stopped_ends_at_its_next_block(
    near: MemoryBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_at([near], asset(), {"movie.mp4": b"m" * 64 * BLOCK})
    moved: list[int] = []
    with RestoreFolder(tmp_path) as folder, BlockReader(1, BLOCK) as reader:

        def stop_at_once(size_bytes: int) -> None:
            moved.append(size_bytes)
            restorer.stop()

        restorer = Restorer(folder, reader, moved=stop_at_once)
        (copies,) = find([near], Selection((asset().id,)))
        with pytest.raises(Stopped):
            restorer.restore(copies)

    assert sum(moved) <= 2 * BLOCK
    (result,) = restore(tmp_path, near)
    assert result.ok


def test_what_a_power_failure_left_wrong_is_read_again(near: MemoryBackend, tmp_path: Path) -> None:
    archive_at([near], asset(), {"movie.mp4": b"m" * 500})
    with RestoreFolder(tmp_path) as folder, folder.partial(f"{PLACE}/movie.mp4") as partial:
        partial.write(b"?" * 100)

    (result,) = restore(tmp_path, near)

    assert result.ok
    assert files(tmp_path) == restored({"movie.mp4": b"m" * 500})


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_full_disk_ends_the_run_and_the_next_one_resumes(
    near: MemoryBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    archive_at([near], asset(), TREE)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing_after(2, getattr(os, call), OSError(errno.ENOSPC, "no space")))
        with pytest.raises(FolderFull, match="make room, then run the same command again"):
            restore(tmp_path, near)

    (result,) = restore(tmp_path, near)

    assert result.ok
    assert files(tmp_path) == restored()


def failing_after(calls: int, call: Any, error: Exception) -> Any:
    left, lock = [calls], threading.Lock()

    def counted(*arguments: Any) -> Any:
        with lock:
            left[0] -= 1
            if left[0] < 0:
                raise error
        return call(*arguments)

    return counted


def test_what_cannot_fit_is_said_before_the_work(
    near: MemoryBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_at([near], asset(), TREE)
    monkeypatch.setattr(RestoreFolder, "free_bytes", lambda _: 100)

    with pytest.raises(FolderFull, match=f"{asset().id} needs"):
        restore(tmp_path, near)

    assert files(tmp_path) == {}


def test_cold_objects_are_told_apart(
    near: MemoryBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_at([near], asset(), TREE)
    read = near.read

    def cold(key: Any, *arguments: Any, **more: Any) -> bytes:
        if key.endswith("s0.ts"):
            raise ObjectCold(f"{key} is in Glacier")
        return read(key, *arguments, **more)

    monkeypatch.setattr(near, "read", cold)

    (result,) = restore(tmp_path, near)

    assert [each.key for each in result.cold] == [f"recordings/{asset().id}/low/s0.ts"]
    assert not result.ok


def test_a_destination_that_keeps_failing_is_asked_last(
    near: MemoryBackend, far: MemoryBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {f"s{number:02}.ts": b"x" * (BLOCK + 10) for number in range(20)}
    archive_at([near, far], asset(), many)
    asked = []

    def away(key: Any, *_arguments: Any, **_more: Any) -> bytes:
        asked.append(key)
        raise TransientStorageError("it does not answer")

    manifests = near.read
    monkeypatch.setattr(
        near,
        "read",
        lambda key, *a, **more: manifests(key, *a, **more) if key.startswith("manifests") else away(key),
    )

    (result,) = restore(tmp_path, near, far)

    assert result.ok
    assert result.sources == {"memory://far": 20}
    assert len(set(asked)) == AWAY_AFTER


# -- hostile manifests and folders ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    "path",
    ["../../../../escaped", "/etc/escaped", "a/../../../../../escaped", "a\\..\\escaped", "a//b", "a\x00b"],
)
def test_a_path_that_leads_out_of_the_folder_makes_no_file(
    near: MemoryBackend, tmp_path: Path, path: str
) -> None:
    manifest = manifest_of(asset(), {"movie.mp4": b"x"})
    hostile = manifest.model_copy(update={"objects": (replace(manifest.objects[0], path=path),)})
    put(near, f"manifests/2026/03/01/{asset().id}.json", hostile.to_bytes())
    folder = tmp_path / "in/here"

    (result,) = restore(folder, near)

    assert not result.ok
    assert files(tmp_path) == {}


@pytest.mark.parametrize("field", ["room_id", "session_id", "type"])
@pytest.mark.parametrize("value", ["../../..", "..", "/etc", ".ssh", "a/b", "x" * 3000, ""])
def test_the_names_in_a_manifest_stay_below_the_folder(
    near: MemoryBackend, tmp_path: Path, field: str, value: str
) -> None:
    archive_at([near], asset(**{field: value}), {"authorized_keys": b"x"})
    folder = tmp_path / "in"

    (result,) = restore(folder, near)

    assert result.ok
    (path,) = files(tmp_path)
    assert len(Path(path).parts) == 6
    assert not any(part.startswith(".") for part in Path(path).parts)


def test_a_manifest_of_another_asset_is_not_followed(near: MemoryBackend, tmp_path: Path) -> None:
    archive_at([near], asset(id="b" * 24))
    data = near.read(object_key(f"manifests/2026/03/01/{'b' * 24}.json"))
    put(near, f"manifests/2026/03/01/{asset().id}.json", data)

    (result,) = restore(tmp_path, near)

    assert "it is a manifest of 'bbb" in result.problems[0]


def test_a_symbolic_link_in_the_folder_is_not_followed(near: MemoryBackend, tmp_path: Path) -> None:
    archive_at([near], asset(), TREE)
    outside, folder = tmp_path / "outside", tmp_path / "in"
    outside.mkdir()
    (outside / "victim").write_bytes(b"theirs")
    (folder / PLACE).mkdir(parents=True)
    (folder / PLACE / "low").symlink_to(outside)
    (folder / PLACE / "master.m3u8").symlink_to(outside / "victim")

    (result,) = restore(folder, near)

    assert len(result.problems) == 3  # what is below `low`
    assert {path.name for path in outside.iterdir()} == {"victim"}
    assert (outside / "victim").read_bytes() == b"theirs"
    assert (folder / PLACE / "master.m3u8").read_bytes() == TREE["master.m3u8"]


def test_a_fifo_or_a_folder_in_the_place_of_a_file_ends_nothing(near: MemoryBackend, tmp_path: Path) -> None:
    archive_at([near], asset(), TREE)
    (tmp_path / PLACE / "empty.vtt").mkdir(parents=True)
    os.mkfifo(tmp_path / PLACE / "master.m3u8")

    (result,) = restore(tmp_path, near)

    assert [problem.partition(":")[0] for problem in result.problems] == [f"{PLACE}/empty.vtt"]
    assert (tmp_path / PLACE / "master.m3u8").read_bytes() == TREE["master.m3u8"]


def test_names_that_differ_in_case_alone_are_both_there_where_that_can_be(
    near: MemoryBackend, tmp_path: Path
) -> None:
    both = {"A.mp4": b"A" * 10, "a.mp4": b"a" * 10}
    archive_at([near], asset(), both)

    restore(tmp_path, near)

    assert files(tmp_path) == restored(both)


@pytest.mark.parametrize("second", ["x/y/Movie.mp4", "x/Y/movie.mp4"])
def test_of_names_that_differ_in_case_alone_none_replaces_the_other_where_case_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    """No file system here ignores case: `stat`, `mkdir` and `open` find what is there in lower case."""
    for name in ("stat", "mkdir", "open"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path, *a, call=call, **more: call(_folded(path), *a, **more))
    with RestoreFolder(tmp_path) as folder:
        folder.write("x/y/movie.mp4", b"first")
        with pytest.raises(FileRefused, match="ignores case"):
            folder.write(second, b"second")

    assert files(tmp_path) == {"x/y/movie.mp4": b"first"}


def _folded(path: Any) -> Any:
    return path.lower() if isinstance(path, str) and path.lower() in ("y", "movie.mp4") else path


def test_of_two_restores_to_one_folder_the_second_ends_at_once(tmp_path: Path) -> None:
    with RestoreFolder(tmp_path), pytest.raises(FolderBusy), RestoreFolder(tmp_path):
        pass
    with RestoreFolder(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(FolderUnusable, match="cannot be written"), RestoreFolder(tmp_path / "file/x"):
        pass


# -- what is chosen ------------------------------------------------------------------------------------------
@pytest.fixture
def several(near: MemoryBackend) -> MemoryBackend:
    for number, (room, session, day) in enumerate(
        [("r1", "s1", "2026-03-01"), ("r1", "s2", "2026-03-31"), ("r2", "s3", "2026-05-02")]
    ):
        archive_at(
            [near],
            asset(id=f"{number:024x}", room_id=room, session_id=session, created_at=f"{day}T10:00:00Z"),
        )
    archive_at([near], asset(id="f" * 24, room_id="r1", created_at=None))
    return near


@pytest.mark.parametrize(
    ("selected", "numbers"),
    [
        ({}, "0 1 2 f"),
        ({"room": "r1"}, "0 1 f"),
        ({"session": "s2"}, "1"),
        ({"since": "2026-03-31T10:00:00Z"}, "1 2"),
        ({"until": "2026-03-31T10:00:00Z"}, "0"),
        ({"since": "2026-03-01T00:00:00Z", "until": "2026-04-01T00:00:00Z", "room": "r1"}, "0 1"),
        ({"asset_ids": (f"{2:024x}", "f" * 24)}, "2 f"),
        ({"asset_ids": (f"{2:024x}", "f" * 24), "room": "r1"}, "f"),
    ],
)
def test_assets_are_found_in_the_manifests_alone(
    several: MemoryBackend, selected: dict[str, Any], numbers: str
) -> None:
    times = {name: parse_time(value) for name, value in selected.items() if name in ("since", "until")}

    found = [copies.asset_id[-1] for copies in find([several], Selection(**{**selected, **times}))]

    assert sorted(found) == sorted(numbers.split())


def test_an_id_of_today_is_found_without_listing_the_archive(
    near: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_at([near], asset(id="69a3c2d0e1b2a3c4d5e6f708", created_at="2026-03-01T04:00:00Z"))
    listed, list_all = [], near.list

    def listing(prefix: str = "") -> Iterator[Any]:
        listed.append(prefix)
        return list_all(prefix)

    monkeypatch.setattr(near, "list", listing)

    (copies,) = find([near], Selection(("69a3c2d0e1b2a3c4d5e6f708",)))

    assert copies.keys
    assert "manifests/" not in listed


def test_an_id_that_is_nowhere_is_yielded_without_a_copy(near: MemoryBackend, tmp_path: Path) -> None:
    (result,) = restore(tmp_path, near)

    assert result.problems == ["no destination has a manifest of it"]


def test_an_erased_asset_does_not_come_back_whatever_manifest_is_left(
    near: MemoryBackend, far: MemoryBackend, tmp_path: Path
) -> None:
    archive_at([near, far], asset(), TREE)
    tombstones.write(far, Tombstone(asset().id, AssetState.ERASED, "GDPR-1", NOW))

    (result,) = restore(tmp_path, near, far)
    (alone,) = find([near], Selection((asset().id,)), witnesses=[near, far])

    assert result.problems == [
        f"{asset().id} was erased: memory://far holds its tombstone. It does not come back"
    ]
    assert files(tmp_path) == {}
    assert alone.best() is None


def test_sha256_is_of_every_file(near: MemoryBackend, tmp_path: Path) -> None:
    archive_at([near], asset(), TREE)
    for _ in range(2):  # the second finds all of it there
        (result,) = restore(tmp_path, near, sha256=True)

        there = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert result.files == {
            str(path.relative_to(tmp_path)): (
                path.stat().st_size,
                hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path in there
        }
