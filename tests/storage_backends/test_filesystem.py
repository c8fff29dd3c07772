"""What is particular to a directory: full disks, links, crashes between two system calls."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storage_backends.base import ObjectInfo, ObjectSpec, Part, Upload, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    ChecksumRejected,
    DestinationFull,
    InvalidKey,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.filesystem import FilesystemBackend
from storage_backends.filesystem.errors import translate

KEY = object_key("recordings/one.mp4")
DATA = b"0123456789"
PART_BYTES = 4


@pytest.fixture
def store(tmp_path: Path) -> FilesystemBackend:
    return FilesystemBackend(tmp_path / "archive")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def put(
    store: FilesystemBackend,
    data: bytes = DATA,
    key: str = KEY,
    *,
    if_absent: bool = False,
    if_match: str | None = None,
) -> ObjectInfo:
    spec = ObjectSpec(object_key(key), "video/mp4", len(data), if_absent=if_absent, if_match=if_match)
    return store.put(spec, data, crc32c_of(data))


def etag_of(store: FilesystemBackend) -> str:
    info = store.stat(KEY)
    assert info is not None
    assert info.etag is not None
    return info.etag


def begin(store: FilesystemBackend, *, if_absent: bool = False) -> Upload:
    return store.begin(ObjectSpec(KEY, "video/mp4", len(DATA), PART_BYTES, if_absent=if_absent))


def put_parts(upload: Upload, data: bytes = DATA) -> list[Part]:
    pieces = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    return [upload.put_part(number, piece, crc32c_of(piece)) for number, piece in enumerate(pieces, start=1)]


def leftovers(root: Path) -> list[Path]:
    return list((root / ".uploads").iterdir())


def failing(number: int, call: Callable[..., Any], times: int = 1) -> Callable[..., Any]:
    """`call`, which fails with this errno the first `times` times."""
    left = [times]

    def fail(*arguments: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return call(*arguments, **named)

    return fail


# -- the root


def test_the_root_is_made_at_first_use_when_its_parent_exists(store: FilesystemBackend, root: Path) -> None:
    assert not root.exists()

    put(store)

    assert (root / KEY).read_bytes() == DATA


def test_a_root_that_vanishes_is_not_made_again(store: FilesystemBackend, root: Path) -> None:
    put(store)
    root.rename(root.with_name("unmounted"))

    with pytest.raises(BucketMissing, match="mounted"):
        put(store)

    assert not root.exists()


def test_a_root_that_is_a_file_is_refused(store: FilesystemBackend, root: Path) -> None:
    root.write_text("a file")

    with pytest.raises(BucketMissing, match="not a directory"):
        put(store)


def test_a_root_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")

    with pytest.raises(BucketMissing):
        put(FilesystemBackend(tmp_path / "file" / "archive"))


# -- full disks and missing permissions


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_disk_that_fills_up_while_an_object_is_stored_leaves_nothing(
    store: FilesystemBackend, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, call, failing(errno.ENOSPC, getattr(os, call)))

    with pytest.raises(DestinationFull, match="free space"):
        put(store)

    assert store.stat(KEY) is None
    assert leftovers(root) == []


def test_a_disk_too_small_for_an_upload_says_so_before_the_work(
    store: FilesystemBackend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.ENOSPC, os.posix_fallocate))

    with pytest.raises(DestinationFull):
        begin(store)

    assert leftovers(root) == []


def test_a_part_for_which_there_is_no_room_is_not_held_and_can_be_sent_again(
    store: FilesystemBackend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(store)
    put_parts(upload)
    monkeypatch.setattr(os, "pwrite", failing(errno.ENOSPC, os.pwrite))

    with pytest.raises(DestinationFull):
        upload.put_part(2, DATA[4:8], crc32c_of(DATA[4:8]))

    assert sorted(upload.parts() or {}) == [1, 3]
    upload.complete(put_parts(upload), crc32c_of(DATA))
    assert (root / KEY).read_bytes() == DATA


def test_an_object_larger_than_a_file_may_be_is_refused_alone_with_its_key_and_the_limit(
    tmp_path: Path,
) -> None:
    """The kernel's own refusal, not an injected one."""
    program = f"""
import resource
from pathlib import Path
from storage_backends.base import ObjectInfo, ObjectSpec, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import StorageError
from storage_backends.filesystem import FilesystemBackend
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, {resource.RLIM_INFINITY}))
store = FilesystemBackend(Path({str(tmp_path / "archive")!r}))
large = ObjectSpec(object_key("k"), "a/b", 100000, 50000)
for store_it in (lambda: store.put(large, bytes(100000), crc32c_of(bytes(100000))), lambda: store.begin(large)):
    try:
        store_it()
    except StorageError as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], timeout=60, check=True, capture_output=True, text=True
    )

    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("StorageError "), "not DestinationFull, which holds the destination for all"
        assert "'k' in file://" in line
        assert "larger than the 65536 bytes" in line
    assert [path for path in (tmp_path / "archive").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *((number, DestinationFull) for number in (errno.ENOSPC, errno.EDQUOT)),
        (errno.EFBIG, StorageError),
        *((number, AccessDenied) for number in (errno.EACCES, errno.EPERM, errno.EROFS)),
        *(
            (number, InvalidKey)
            for number in (
                errno.EISDIR,
                errno.ENOTDIR,
                errno.ENAMETOOLONG,
                errno.EINVAL,
                errno.ELOOP,
                errno.EILSEQ,
            )
        ),
        *(
            (number, TransientStorageError)
            for number in (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EBUSY, errno.ETIMEDOUT)
        ),
        *(
            (number, TransientStorageError)
            for number in (errno.ENOENT, errno.EMLINK, errno.ENOMEM, errno.EINTR)
        ),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else value.__name__,
)
def test_each_errno_has_its_error(number: int, expected: type[StorageError]) -> None:
    error = translate(OSError(number, os.strerror(number)), "storing 'k' in file:///x")

    assert type(error) is expected
    assert errno.errorcode[number] in str(error)
    assert str(error).startswith("storing 'k' in file:///x: ")


# -- links out of the root, and files in the way


@pytest.mark.parametrize("key", [".uploads", ".uploads/x", ".uploads/x/data"])
def test_a_key_cannot_reach_the_unfinished_uploads(store: FilesystemBackend, key: str) -> None:
    with pytest.raises(InvalidKey):
        put(store, key=key)
    with pytest.raises(InvalidKey):
        store.read(object_key(key))


def test_the_unfinished_uploads_are_not_listed(store: FilesystemBackend) -> None:
    put_parts(begin(store))

    assert list(store.list()) == []
    assert list(store.list(".uploads/")) == []
    assert list(store.list(".up")) == []


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "one.mp4").write_bytes(b"theirs")
    return folder


def test_a_link_to_a_directory_outside_is_not_followed(
    store: FilesystemBackend, root: Path, outside: Path
) -> None:
    root.mkdir()
    (root / "recordings").symlink_to(outside)

    with pytest.raises(InvalidKey):
        put(store)
    with pytest.raises(ObjectMissing):
        store.read(KEY)
    store.delete(KEY)

    assert store.stat(KEY) is None
    assert list(store.list()) == []
    assert (outside / "one.mp4").read_bytes() == b"theirs"


def test_a_link_to_a_file_outside_is_replaced_and_not_written_through(
    store: FilesystemBackend, root: Path, outside: Path
) -> None:
    (root / "recordings").mkdir(parents=True)
    (root / KEY).symlink_to(outside / "one.mp4")

    assert store.stat(KEY) is None
    put(store)

    assert (outside / "one.mp4").read_bytes() == b"theirs"
    assert not (root / KEY).is_symlink()
    assert store.read(KEY) == DATA


def test_a_link_in_place_of_the_uploads_is_not_followed(
    store: FilesystemBackend, root: Path, outside: Path
) -> None:
    root.mkdir()
    (root / ".uploads").symlink_to(outside)

    with pytest.raises(InvalidKey):
        put(store)

    assert [path.name for path in outside.iterdir()] == ["one.mp4"]


@pytest.mark.parametrize("token", ["../outside", "..", "/etc", "a/b"])
def test_a_token_cannot_lead_out(store: FilesystemBackend, outside: Path, token: str) -> None:
    with pytest.raises(UploadGone):
        store.resume(begin(store).spec, token)

    assert (outside / "one.mp4").exists()


def test_a_pipe_or_a_directory_is_no_object(store: FilesystemBackend, root: Path) -> None:
    (root / "recordings").mkdir(parents=True)
    os.mkfifo(root / KEY)

    assert store.stat(KEY) is None
    assert store.stat(object_key("recordings")) is None
    assert list(store.list()) == []


def test_a_key_where_a_directory_stands_is_refused(store: FilesystemBackend) -> None:
    put(store)

    with pytest.raises(InvalidKey):
        put(store, key="recordings")
    with pytest.raises(InvalidKey):
        put(store, key=f"{KEY}/below")

    assert store.read(KEY) == DATA


# -- crashes and repeated calls


def test_a_file_that_came_to_hold_other_bytes_is_not_published(
    store: FilesystemBackend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def wrong(file: int, data: bytes, offset: int) -> int:
        return real(file, bytes(len(data)), offset)

    monkeypatch.setattr(os, "pwrite", wrong)

    with pytest.raises(ChecksumRejected):
        put(store)

    assert store.stat(KEY) is None
    assert leftovers(root) == []


@pytest.mark.parametrize("if_absent", [False, True])
def test_completing_again_cleans_up_after_a_crash_that_followed_publishing(
    store: FilesystemBackend, root: Path, monkeypatch: pytest.MonkeyPatch, if_absent: bool
) -> None:
    upload = begin(store, if_absent=if_absent)
    parts = put_parts(upload)
    with monkeypatch.context() as patch:
        patch.setattr(upload, "abort", failing(errno.EIO, upload.abort))
        with pytest.raises(OSError, match="Input/output"):
            upload.complete(parts, crc32c_of(DATA))
    assert (root / KEY).exists()
    assert len(leftovers(root)) == 1

    info = FilesystemBackend(root).resume(upload.spec, upload.token).complete(parts, crc32c_of(DATA))

    assert info.crc32c == crc32c_of(DATA)
    assert leftovers(root) == []


def test_a_line_of_the_journal_that_was_cut_by_a_crash_does_not_count(
    store: FilesystemBackend, root: Path
) -> None:
    upload = begin(store)
    put_parts(upload)
    (journal,) = root.glob(".uploads/*/parts")

    for cut in (b"2 4 0123", b"2 4", b"2", b"\0\0\0\0"):
        with journal.open("ab") as file:
            file.write(cut)
        assert sorted(upload.parts() or {}) == [1, 2, 3]
    upload.put_part(1, DATA[:4], crc32c_of(DATA[:4]))

    assert sorted(upload.parts() or {}) == [1, 2, 3]


def test_a_part_whose_replacement_was_cut_by_a_crash_does_not_count(
    store: FilesystemBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(store)
    parts = put_parts(upload)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(errno.EIO, os.pwrite))
        with pytest.raises(TransientStorageError):
            upload.put_part(2, b"xxxx", crc32c_of(b"xxxx"))

    assert sorted(upload.parts() or {}) == [1, 3]
    with pytest.raises(UploadGone):
        upload.complete(parts, crc32c_of(DATA))


def test_a_part_may_not_reach_into_the_next(store: FilesystemBackend) -> None:
    upload = begin(store)

    with pytest.raises(StorageError, match="does not fit its slot"):
        upload.put_part(1, DATA[:5], crc32c_of(DATA[:5]))


def test_an_upload_if_absent_meets_an_object_of_the_same_content_by_someone_else(
    store: FilesystemBackend,
) -> None:
    upload = begin(store, if_absent=True)
    parts = put_parts(upload)
    put(store)

    with pytest.raises(ObjectExists):
        upload.complete(parts, crc32c_of(DATA))


def test_what_crashed_puts_left_is_swept_and_nothing_else(store: FilesystemBackend, root: Path) -> None:
    put(store)
    upload = begin(store)
    (root / ".uploads" / f"{'0' * 32}.put").write_bytes(b"left by a crash")
    (root / ".uploads" / "a note").write_text("by a person")

    assert store.abort_stale_uploads(timedelta(hours=1)) == 0
    assert store.abort_stale_uploads(timedelta(0)) == 2

    assert [path.name for path in leftovers(root)] == ["a note"]
    with pytest.raises(UploadGone):
        put_parts(upload)
    assert store.read(KEY) == DATA


def test_no_file_stays_open(store: FilesystemBackend) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    put(store)
    before = open_files()

    upload = begin(store)
    upload.complete(put_parts(upload), crc32c_of(DATA))
    put(store)
    list(store.list())
    store.stat(object_key("missing/key"))
    with pytest.raises(ObjectMissing):
        store.read(object_key("missing"))
    with pytest.raises(InvalidKey):
        put(store, key=f"{KEY}/below")
    store.delete(KEY)

    assert open_files() == before


# -- without hard links, without locks


NO_LINKS = [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK]


@pytest.mark.parametrize("number", NO_LINKS, ids=lambda number: errno.errorcode[number])
def test_without_hard_links_the_key_is_looked_at_first(
    store: FilesystemBackend, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", failing(number, os.link, times=99))

    put(store, if_absent=True)
    with pytest.raises(ObjectExists):
        put(store, b"other", if_absent=True)

    assert (root / KEY).read_bytes() == DATA
    assert leftovers(root) == []
    assert not store.limits.conditional_create


@pytest.mark.parametrize("number", NO_LINKS, ids=lambda number: errno.errorcode[number])
def test_without_hard_links_an_upload_completes_and_completes_again(
    store: FilesystemBackend, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", failing(number, os.link, times=99))
    upload = begin(store, if_absent=True)
    parts = put_parts(upload)

    upload.complete(parts, crc32c_of(DATA))
    upload.complete(parts, crc32c_of(DATA))

    assert (root / KEY).read_bytes() == DATA
    with pytest.raises(ObjectExists):
        put(store, b"other", if_absent=True)


def test_a_full_directory_still_counts_as_one_with_links(
    store: FilesystemBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.ENOSPC, os.link))

    with pytest.raises(DestinationFull):
        put(store, if_absent=True)

    assert store.limits.conditional_create


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF])
def test_without_locks_the_object_is_compared_first(
    store: FilesystemBackend, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(number, fcntl.flock, times=99))
    put(store)
    expected = etag_of(store)

    put(store, b"second", if_match=expected)
    with pytest.raises(ObjectChanged):
        put(store, b"third", if_match=expected)

    assert store.read(KEY) == b"second"
    assert not store.limits.conditional_replace


def test_an_object_that_another_process_is_replacing_is_a_transient_error(
    store: FilesystemBackend, root: Path
) -> None:
    put(store)
    with (root / KEY).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        with pytest.raises(TransientStorageError):
            put(store, b"second", if_match=etag_of(store))

    put(store, b"second", if_match=etag_of(store))


# -- overwriting refused


def test_where_overwriting_is_refused_the_same_content_is_success(
    store: FilesystemBackend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store)
    monkeypatch.setattr(os, "rename", failing(errno.EPERM, os.rename, times=99))

    put(store)
    upload = begin(store)
    upload.complete(put_parts(upload), crc32c_of(DATA))
    with pytest.raises(AccessDenied):
        put(store, b"other")

    assert (root / KEY).read_bytes() == DATA


def test_an_object_is_stored_where_nothing_may_be_deleted(
    store: FilesystemBackend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "unlink", failing(errno.EPERM, os.unlink, times=99))
    monkeypatch.setattr(os, "rmdir", failing(errno.EPERM, os.rmdir, times=99))

    put(store, if_absent=True, key="ends/one.json")
    upload = begin(store, if_absent=True)
    upload.complete(put_parts(upload), crc32c_of(DATA))

    assert (root / KEY).read_bytes() == DATA
    assert (root / "ends" / "one.json").read_bytes() == DATA
    with pytest.raises(AccessDenied):
        store.delete(KEY)


# -- flushes that fail


def of_a_folder(call: Callable[[int], None]) -> Callable[[int], None]:
    """`call`, which fails with EIO the first time that it is called with a directory outside `.uploads`."""
    left = [1]

    def fail(file: int) -> None:
        path = Path(f"/proc/self/fd/{file}").readlink()
        if left[0] and path.is_dir() and ".uploads" not in path.parts:
            left[0] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        call(file)

    return fail


def counting(calls: list[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def count(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        return call(*arguments, **named)

    return count


@pytest.mark.parametrize("if_absent", [False, True])
@pytest.mark.parametrize("flush", ["of the file", "of the folder"])
def test_a_put_whose_flush_failed_is_written_again(
    store: FilesystemBackend, root: Path, monkeypatch: pytest.MonkeyPatch, flush: str, if_absent: bool
) -> None:
    put(store, key="recordings/other.mp4")
    with monkeypatch.context() as patch:
        if flush == "of the file":
            patch.setattr(os, "fdatasync", failing(errno.EIO, os.fdatasync))
        else:
            patch.setattr(os, "fsync", of_a_folder(os.fsync))
        with pytest.raises(TransientStorageError):
            put(store, if_absent=if_absent)
    written: list[str] = []
    monkeypatch.setattr(os, "pwrite", counting(written, "pwrite", os.pwrite))

    put(store, if_absent=if_absent)

    assert written, "what could not be flushed must not be taken for kept"
    assert (root / KEY).read_bytes() == DATA


@pytest.mark.parametrize("sync", ["fdatasync", "fsync", "fsync of the folder"])
@pytest.mark.parametrize("if_absent", [False, True])
def test_an_upload_whose_flush_failed_restarts(
    store: FilesystemBackend, root: Path, monkeypatch: pytest.MonkeyPatch, sync: str, if_absent: bool
) -> None:
    put(store, key="recordings/other.mp4")
    upload = begin(store, if_absent=if_absent)
    parts = put_parts(upload)

    with monkeypatch.context() as patch:
        if sync == "fsync of the folder":
            patch.setattr(os, "fsync", of_a_folder(os.fsync))
        else:
            patch.setattr(os, sync, failing(errno.EIO, getattr(os, sync)))
        doing: dict[bool, Callable[[], object]] = {
            True: lambda: upload.put_part(1, DATA[:4], crc32c_of(DATA[:4])),
            False: lambda: upload.complete(parts, crc32c_of(DATA)),
        }
        with pytest.raises(UploadGone, match="EIO"):
            doing[sync == "fdatasync"]()

    assert leftovers(root) == []
    with pytest.raises(UploadGone):
        upload.put_part(1, DATA[:4], crc32c_of(DATA[:4]))
    again = begin(store, if_absent=if_absent)
    again.complete(put_parts(again), crc32c_of(DATA))
    assert (root / KEY).read_bytes() == DATA


def test_a_disk_that_is_full_at_the_flush_is_named_as_such(
    store: FilesystemBackend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(store)
    monkeypatch.setattr(os, "fdatasync", failing(errno.ENOSPC, os.fdatasync))

    with pytest.raises(DestinationFull):
        put_parts(upload)

    assert leftovers(root) == []


def test_a_directory_that_could_not_be_flushed_is_made_again(
    store: FilesystemBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.stat(KEY)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", of_a_folder(os.fsync))
        with pytest.raises(TransientStorageError):
            put(store)
    made: list[str] = []
    monkeypatch.setattr(os, "mkdir", counting(made, "mkdir", os.mkdir))

    put(store)

    assert made
    assert store.read(KEY) == DATA


# -- file systems that ignore case or normal form


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> None:
    """System calls below a directory find names by any case and in any normal form, as macOS does."""

    def folded(name: str) -> str:
        return unicodedata.normalize("NFD", name).casefold()

    def there(name: Any, folder: int | None) -> Any:
        if folder is None or not isinstance(name, str):
            return name
        with os.scandir(f"/proc/self/fd/{folder}") as entries:
            return next((entry.name for entry in entries if folded(entry.name) == folded(name)), name)

    def finding(call: Callable[..., Any]) -> Callable[..., Any]:
        def find(name: Any, *arguments: Any, dir_fd: int | None = None, **named: Any) -> Any:
            return call(there(name, dir_fd), *arguments, dir_fd=dir_fd, **named)

        return find

    def finding_two(call: Callable[..., Any]) -> Callable[..., Any]:
        def find(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int, **named: Any) -> Any:
            target = there(target, dst_dir_fd)
            return call(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **named)

        return find

    for name in ("open", "stat", "mkdir", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, finding(getattr(os, name)))
    for name in ("link", "rename"):
        monkeypatch.setattr(os, name, finding_two(getattr(os, name)))


COLLIDING = [
    ("recordings/a/Video.mp4", "recordings/a/video.mp4"),
    ("recordings/A/video.mp4", "recordings/a/video.mp4"),
    ("recordings/A/video.mp4", "recordings/a/other.mp4"),
    ("Recordings/é.mp4", "recordings/É.mp4"),
    ("recordings/straße.mp4", "recordings/STRASSE.mp4"),
]


@pytest.mark.usefixtures("folding")
@pytest.mark.parametrize(("first", "second"), COLLIDING)
@pytest.mark.parametrize("how", ["put", "if absent", "upload"])
def test_one_key_never_replaces_another_that_the_file_system_takes_for_it(
    store: FilesystemBackend, first: str, second: str, how: str
) -> None:
    put(store, key=first)

    def store_second() -> None:
        if how != "upload":
            put(store, b"other", key=second, if_absent=how == "if absent")
            return
        upload = store.begin(ObjectSpec(object_key(second), "video/mp4", 5, 8))
        upload.complete([upload.put_part(1, b"other", crc32c_of(b"other"))], crc32c_of(b"other"))

    with pytest.raises(InvalidKey, match="ignores case"):
        store_second()

    assert store.read(object_key(first)) == DATA
    assert {info.key for info in store.list()} == {first}


@pytest.mark.usefixtures("folding")
@pytest.mark.parametrize(("first", "second"), COLLIDING)
def test_what_is_stored_under_one_key_is_not_seen_under_another(
    store: FilesystemBackend, first: str, second: str
) -> None:
    put(store, key=first)

    store.delete(object_key(second))

    assert store.stat(object_key(second)) is None
    with pytest.raises(ObjectMissing):
        store.read(object_key(second))
    assert store.read(object_key(first)) == DATA


@pytest.mark.usefixtures("folding")
def test_a_key_is_replaced_and_deleted_by_its_own_name(store: FilesystemBackend) -> None:
    put(store, key="recordings/É.mp4")
    put(store, b"second", key="recordings/É.mp4")

    assert store.read(object_key("recordings/É.mp4")) == b"second"
    store.delete(object_key("recordings/É.mp4"))
    assert list(store.list()) == []


@pytest.mark.usefixtures("folding")
def test_names_that_the_file_system_keeps_in_form_d_are_listed_by_their_keys(
    store: FilesystemBackend, root: Path
) -> None:
    put(store, key="recordings/other.mp4")
    kept_as = unicodedata.normalize("NFD", "é.mp4")
    (root / "recordings" / kept_as).write_bytes(DATA)

    key = object_key("recordings/é.mp4")
    assert store.stat(key) is not None
    assert key in {info.key for info in store.list("recordings/")}
    put(store, b"second", key=key)
    assert (root / "recordings" / kept_as).read_bytes() == b"second"


def test_a_name_in_form_d_is_no_key_where_names_are_kept_as_they_are(
    store: FilesystemBackend, root: Path
) -> None:
    put(store, key="recordings/é.mp4")
    (root / "recordings" / unicodedata.normalize("NFD", "é.mp4")).write_bytes(b"a person's")

    assert [(info.key, info.size_bytes) for info in store.list()] == [("recordings/é.mp4", len(DATA))]
