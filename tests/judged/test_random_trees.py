"""Random trees with random faults: archived means that all of it is there, and whole means that it is in the bucket."""

from __future__ import annotations

import random
from typing import Any

import pytest

from archiver.ledger.models import AssetState
from tests.core.contents.origin import Answer, Origin, Request
from tests.core.examples import NOW, RETENTION
from tests.judged.harness import Harness
from tests.judged.test_trees import HTML, media, ts

OF_PLAYLISTS = ("gone", "refused", "error page", "empty")
FAULTS = (*OF_PLAYLISTS, "busy", "cut short")


class RandomTree:
    """A master, some variants and renditions, their segments; and a fault for some of the files. A fault passes after
    some requests, or stays."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.files: dict[str, bytes] = {}
        self.segments = self.random.randint(1, 5)  # streams that differ in length would be a doubt
        lines = ["#EXTM3U"]
        for number in range(self.random.randint(1, 3)):
            folder = f"v{number}"
            lines += [f"#EXT-X-STREAM-INF:BANDWIDTH={number + 1}", f"{folder}/p.m3u8"]
            self._playlist(folder, ".ts")
        if self.random.random() < 0.5:
            lines.insert(1, '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="x",URI="subs/p.m3u8"')
            self._playlist("subs", ".vtt")
        self.files["master.m3u8"] = ("\n".join(lines) + "\n").encode()
        names = sorted(set(self.files) - {"master.m3u8"})
        chosen = self.random.sample(names, self.random.choice([0, 0, 1, 1, 2, len(names) // 2]))
        self.faults = {
            name: self.random.choice(OF_PLAYLISTS if "m3u8" in name else FAULTS) for name in chosen
        }
        self.lasting = {name for name in chosen if self.random.random() < 0.5}
        self.left = {name: self.random.randint(1, 12) for name in chosen}

    def _playlist(self, folder: str, extension: str) -> None:
        names = [f"s{number}{extension}" for number in range(self.segments)]
        self.files[f"{folder}/p.m3u8"] = media(*names)
        for number, name in enumerate(names):
            body = b"WEBVTT\n\n" + bytes(str(number), "ascii") if extension == ".vtt" else ts(b"%d" % number)
            self.files[f"{folder}/{name}"] = body

    def rule(self, request: Request) -> Answer | None:
        name = request.path.removeprefix("/t/")
        fault = self.faults.get(name)
        if fault is None:
            return None
        if name not in self.lasting:
            self.left[name] -= 1
            if self.left[name] < 0:
                return None
        body = self.files[name]
        answers: dict[str, Answer] = {
            "gone": Answer(404),
            "refused": Answer(403),
            "busy": Answer(503),
            "error page": Answer(200, HTML, {"Content-Type": "text/html"}),
            "empty": Answer(200, b""),
            "cut short": Answer(
                200, body[: len(body) // 2], {"Content-Length": str(len(body)), "Connection": "close"}
            ),
        }
        return answers[fault]

    def is_tolerated(self, name: str) -> bool:
        """Captions may be empty."""
        return name.endswith(".vtt") and self.faults.get(name) == "empty"


@pytest.mark.parametrize("seed", range(36))
def test_archived_means_that_all_is_there_and_whole_means_that_it_is_in_the_bucket(seed: int) -> None:
    tree = RandomTree(seed)
    with Origin({f"/t/{name}": body for name, body in tree.files.items()}) as origin:
        origin.rule = tree.rule
        harness = Harness(origin, "/t/master.m3u8", type="room-vod")
        harness.until_settled()
        settled_at = harness.clock()
        row = harness.until_deadline()
        stored: dict[str, Any] = dict(harness.stored)
    harness.close()

    lasting = {name for name in tree.lasting if not tree.is_tolerated(name)}
    if row.state is AssetState.ARCHIVED:
        assert not lasting, (seed, tree.faults, row)
        for name, body in tree.files.items():
            if not tree.is_tolerated(name):
                assert stored.get(name) == body, (seed, name, tree.faults)
        return
    assert lasting, f"seed {seed}: what is whole at the source in the end is archived: {row}"
    readable = reachable(tree, lasting)
    if row.state is not AssetState.QUARANTINED:
        assert not {name for name in readable if not name.endswith("m3u8")}, (seed, tree.faults)
        return
    assert settled_at < NOW + RETENTION, "it is kept before its deadline"
    for name in readable:
        assert stored.get(name) == tree.files[name], (seed, name, tree.faults)


def reachable(tree: RandomTree, lasting: set[str]) -> set[str]:
    """Files that can be read in the end, and whose playlist can."""
    found = {"master.m3u8"}
    for name in tree.files:
        playlist = f"{name.rpartition('/')[0]}/p.m3u8"
        if (
            name != "master.m3u8"
            and name not in lasting
            and playlist not in lasting
            and not tree.is_tolerated(name)
        ):
            found.add(name)
    return found
