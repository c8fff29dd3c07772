"""Random trees with random faults: what is mandatory is an item or named in a doubt, what is whole is copied, and a
tree without faults has no doubts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from archiver.core.errors import BadContents
from archiver.transfer.errors import SourceError
from archiver.transfer.http import HttpClient
from tests.core.contents.origin import Answer, Origin
from tests.core.contents.trees import BUSY, PAGE, PNG, media, numbered, walk

ROOT = "/vod/"
SIGNATURE = "?X-Amz-Signature=s&X-Amz-Credential=k"
EMPTY, UNFINISHED, SHORT = "empty", "unfinished", "cut short"
GONE = Answer(404)
REFUSED = Answer(403)
A_PAGE = Answer(200, PAGE, {"Content-Type": "text/html"})
AN_IMAGE = Answer(200, PNG)
FAULTS_OF_PLAYLISTS: list[Answer | str] = [GONE, REFUSED, BUSY, A_PAGE, AN_IMAGE, EMPTY, UNFINISHED, SHORT]
FAULTS_OF_FILES: list[Answer | str] = [GONE, REFUSED, BUSY, A_PAGE, AN_IMAGE, Answer(200), SHORT]


@dataclass
class Tree:
    """A tree of plain names below ROOT, each of which the copy keeps."""

    random: random.Random
    fault_rate: float
    url: str
    files: dict[str, bytes] = field(default_factory=dict)  # as they should be
    faults: dict[str, Answer | str] = field(default_factory=dict)
    named_in: dict[str, list[str]] = field(default_factory=dict)  # playlist -> what it needs
    optional: set[str] = field(default_factory=set)
    captions: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.segments = self.random.randint(1, 5)
        lines, needed = ["#EXTM3U"], []
        for kind in ("AUDIO", "SUBTITLES", "I-FRAME"):
            if self.random.random() < 0.4:
                path = self.playlist(kind.lower(), captions=kind == "SUBTITLES")
                needed.append(path)
                lines.append(
                    f'#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="{self.written(path, "")}"'
                    if kind == "I-FRAME"
                    else f'#EXT-X-MEDIA:TYPE={kind},GROUP-ID="g",NAME="n",URI="{self.written(path, "")}"'
                )
        for number in range(self.random.randint(1, 4)):
            path = self.playlist(f"stream_{number}")
            needed.append(path)
            lines += ["#EXT-X-STREAM-INF:BANDWIDTH=1", self.written(path, "")]
        if self.random.random() < 0.3:
            self.files["chapters.json"] = b'[{"images": [{"url": "1.png"}, {"url": "gone.png"}]}]'
            self.files["1.png"] = PNG
            self.optional |= {"1.png", "gone.png"}
            lines.append('#EXT-X-SESSION-DATA:DATA-ID="d",URI="chapters.json"')
            needed.append(self.perhaps_broken("chapters.json", [GONE, REFUSED, BUSY, A_PAGE]))
        self.random.shuffle(needed)
        self.named_in["master.m3u8"] = needed
        self.files["master.m3u8"] = "\n".join([*lines, ""]).encode()

    def playlist(self, folder: str, *, captions: bool = False) -> str:
        path = f"{folder}/list.m3u8"
        lines, needed = [], []
        if not captions and self.random.random() < 0.3:
            needed.append(self.file(f"{folder}/init.mp4"))
            lines.append(f'#EXT-X-MAP:URI="{self.written(needed[-1], folder)}"')
        for number in range(self.segments):
            name = f"{folder}/{number}.{'vtt' if captions else 'ts'}"
            if not captions and self.random.random() < 0.1:
                name = f"shared/{number}.ts"
            if self.random.random() < 0.2:
                part = self.random.choice([name, f"{folder}/part_{number}.ts"])
                self.optional.add(part)
                lines.append(f'#EXT-X-PART:DURATION=1,URI="{self.written(part, folder)}"')
            needed.append(self.file(name))
            lines.append(f"#EXTINF:2.0,\n{self.written(name, folder)}")
            if captions:
                self.captions.add(name)
        self.files[path] = media(*lines)
        self.named_in[path] = needed
        self.perhaps_broken(path, FAULTS_OF_PLAYLISTS)
        if self.faults.get(path) == EMPTY:
            self.files[path], self.named_in[path] = media(), []
        if self.faults.get(path) == UNFINISHED:
            self.files[path] = media(*lines, end="")
        return path

    def file(self, path: str) -> str:
        if path not in self.files:
            self.files[path] = (
                b"WEBVTT\n" if path.endswith("vtt") else b"\0\0\0\x18ftypiso5" + bytes(100) if path.endswith("mp4")
                else numbered(self.random.randrange(256))
            )  # fmt: skip
            self.perhaps_broken(path, FAULTS_OF_FILES)
        return path

    def perhaps_broken(self, path: str, faults: Sequence[Answer | str]) -> str:
        if path not in self.faults and self.random.random() < self.fault_rate:
            self.faults[path] = self.random.choice(faults)
        return path

    def written(self, path: str, folder: str) -> str:
        relative = path.removeprefix(f"{folder}/") if folder and path.startswith(f"{folder}/") else None
        plain = relative or (path if not folder else f"../{path}")
        return self.random.choice(
            [plain, plain, plain, f"{ROOT}{path}", f"{self.url}{ROOT}{path}", f"{plain}{SIGNATURE}"]
        )

    def answer(self, path: str) -> Answer | None:
        fault = self.faults.get(path)
        if isinstance(fault, Answer):
            return fault
        if fault == SHORT:
            length = {"Content-Length": str(len(self.files[path]) + 1), "Connection": "close"}
            return Answer(200, self.files[path], length)
        return None

    def is_read(self, path: str) -> bool:
        """Return whether the playlist at `path` can be followed."""
        return self.faults.get(path) in (None, EMPTY, UNFINISHED)

    def reachable(self) -> set[str]:
        found = {"master.m3u8"}
        for name in self.named_in["master.m3u8"]:
            found.add(name)
            if name in self.named_in and self.is_read(name):
                found |= set(self.named_in[name])
        return found

    def is_fine(self, path: str) -> bool:
        """Return whether nothing is wrong with it; captions, their list, and one of I-frames may be empty."""
        fault = self.faults.get(path)
        if fault == EMPTY:
            return path.startswith(("subtitles/", "i-frame/"))
        return fault is None or (path in self.captions and fault == Answer(200))


@pytest.mark.parametrize("fault_rate", [0.0, 0.05, 0.3, 0.8])
@pytest.mark.parametrize("seed", range(20))
def test_nothing_mandatory_is_lost_in_silence(
    client: HttpClient, origin: Origin, monkeypatch: pytest.MonkeyPatch, seed: int, fault_rate: float
) -> None:
    monkeypatch.setattr(
        "archiver.retry_policy.random.uniform", lambda low, high: 0.0
    )  # retries without pauses
    tree = Tree(random.Random(f"{seed} {fault_rate}"), fault_rate, origin.url)
    origin.files = {ROOT + path: body for path, body in tree.files.items()}
    origin.rule = lambda request: tree.answer(request.path.removeprefix(ROOT))
    needed = tree.reachable()
    has_media = any(path.endswith((".ts", ".vtt")) for path in needed)

    try:
        walked = walk(client, origin, f"{ROOT}master.m3u8")
    except (SourceError, BadContents):
        assert not has_media
        return

    assert has_media
    reported = {doubt.path for doubt in walked.notes.doubts} | set(walked.copy.failures)
    for path in needed:
        if tree.is_fine(path):
            assert path in walked.paths, f"{path} is whole at the source, and not in the copy"
        else:
            assert path in reported, f"{path} is {tree.faults[path]}, and nothing tells of it"
    for path, body in walked.copy.files.items():
        if not path.endswith((".m3u8", ".json")) and path not in tree.captions:
            assert body == tree.files[path]
    assert walked.paths <= needed | tree.optional
    if not tree.faults:
        assert walked.doubts == []
        assert walked.copy.failures == {}
