"""A bag is complete or is none, and takes nothing into its payload that was not restored."""

from __future__ import annotations

from pathlib import Path

import bagit
import pytest

from archiver.core.errors import RestoreError
from archiver.core.restore.bag import begin_bag, finish_bag
from archiver.core.restore.folder import RestoreFolder
from tests.core.examples import NOW

SHA256_OF_X = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


def bagged(root: Path, *paths: str, finish: bool = True) -> dict[str, tuple[int, str]]:
    with RestoreFolder(root) as top:
        with RestoreFolder(root / "data") as payload:
            files = begin_bag(top, payload, [path.split("/")[0] for path in paths])
            for path in paths:
                payload.write(path, b"x")
                files[path] = (1, SHA256_OF_X)
        if finish:
            finish_bag(top, files, agent="archiver test", now=NOW)
    return files


def test_a_bag_is_valid_and_another_run_adds_to_it(tmp_path: Path) -> None:
    bagged(tmp_path, "a/1.mp4", "a/grün 2.mp4")
    (tmp_path / "notes.txt").write_text("of the library")
    bagged(tmp_path, "b/3.mp4")

    bag = bagit.Bag(str(tmp_path))

    assert bag.is_valid()
    assert set(bag.payload_files()) == {"data/a/1.mp4", "data/a/grün 2.mp4", "data/b/3.mp4"}
    assert bag.info["Payload-Oxum"] == "3.3"
    assert bag.algorithms == ["sha256"]


def test_a_run_that_was_interrupted_is_continued_with_the_same_assets_alone(tmp_path: Path) -> None:
    bagged(tmp_path, "a/1.mp4", "b/2.mp4", finish=False)
    assert not (tmp_path / "bagit.txt").exists()

    with pytest.raises(RestoreError, match=r"data/b/2\.mp4"):
        bagged(tmp_path, "a/1.mp4")
    bagged(tmp_path, "a/1.mp4", "b/2.mp4")

    assert bagit.Bag(str(tmp_path)).is_valid()


@pytest.mark.parametrize("strange", ["notes.txt", "data/notes.txt"])
def test_a_folder_with_other_files_is_no_place_for_a_bag(tmp_path: Path, strange: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / strange).write_text("mine")

    with pytest.raises(RestoreError, match=strange):
        bagged(tmp_path, "a/1.mp4")
    assert (tmp_path / strange).read_text() == "mine"


def test_a_percent_sign_in_a_name_is_escaped(tmp_path: Path) -> None:
    """RFC 8493, section 2.1.3; the `bagit` package does not read it back."""
    bagged(tmp_path, "a/100%.mp4")
    files = bagged(tmp_path, "b/2.mp4")

    assert "data/a/100%25.mp4" in (tmp_path / "manifest-sha256.txt").read_text()
    assert set(files) == {"a/100%.mp4", "b/2.mp4"}
