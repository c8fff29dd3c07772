"""Unpack a zipped VOD while streaming it: the directory, then the playlists, then all other members in one pass over
the zip. Nothing is written to the local disk. Members that are stored already are not fetched again.

A zip that cannot be unpacked is stored as it is, with a doubt that says why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum

from archiver.core.contents import sniff
from archiver.core.contents.base import Doubt, Item, Notes
from archiver.core.contents.hls.facts import MAX_REMARKS, Expected
from archiver.core.contents.hls.layout import new_text, what_changed
from archiver.core.contents.hls.references import Reference, Role, Span, rewrite
from archiver.core.contents.hls.session_data import check_of_session_data, json_urls, without_other_queries
from archiver.core.contents.read_ahead import WINDOW_BYTES, RangeReader
from archiver.core.contents.sniff import Kind
from archiver.core.contents.zip.directory import Member, ZipLimits, read_directory
from archiver.core.contents.zip.end import check_whole
from archiver.core.contents.zip.playlists import ZipPlaylists
from archiver.core.contents.zip.references import MemberNames, candidates, shown
from archiver.core.contents.zip.stream import MemberBroken, MemberChunks, ZipPass
from archiver.core.contents.zip.structure import ZipStructure
from archiver.core.contents.zip.tree import ZipTree, as_packed
from archiver.core.errors import BadContents
from archiver.core.records.keys import ZIP_FOLDER, safe_path
from archiver.retry_policy import REQUEST, RetryPolicy
from archiver.transfer.base import Source, SourceInfo
from archiver.transfer.errors import RangesUnreliable, SourceChanged, SourceMismatch, SourceUnavailable
from archiver.transfer.memory import MemoryBudget

MAX_SESSION_DATA_BYTES = 16 * 1024 * 1024  # larger ones are stored unchanged


class ZipMode(StrEnum):
    """`ARCHIVER_VOD_ZIP`."""

    UNPACK = "unpack"
    KEEP = "keep"
    BOTH = "both"


class ZipContents:
    """`core.contents.base.Contents` of a zip. `name`: file name of the zip, if it is kept."""

    form = "zip"

    def __init__(
        self,
        source: Source,
        info: SourceInfo,
        *,
        name: str,
        version: str,
        version_is_exact: bool = False,
        mode: ZipMode = ZipMode.UNPACK,
        expected: Expected = Expected(),  # noqa: B008 - frozen
        limits: ZipLimits = ZipLimits(),  # noqa: B008 - frozen
        window_bytes: int = WINDOW_BYTES,
        policy: RetryPolicy = REQUEST,
        memory: MemoryBudget | None = None,
    ) -> None:
        """Read and validate the directory; with KEEP, only check that the zip is whole. Raises SourceError."""
        self._source = source
        self._info = info
        self._name = name
        self._expected = expected
        self._window_bytes = window_bytes
        self._policy = policy
        self._memory = memory
        self._version_is_exact = version_is_exact
        self._notes = Notes(facts={"zip_size": info.size_bytes} if info.size_bytes is not None else {})
        self._looked_into = False
        self._reader: RangeReader | None = None
        self._members: dict[str, Member] = {}
        try:
            self._open(mode, limits)
        except BadContents as error:
            mode = ZipMode.KEEP
            self._looked_into = True
            self._notes.doubts.append(Doubt(f"the zip is kept packed: {error}", self._path_packed(mode)))
        except SourceMismatch:  # wrong ranges, or servers of a CDN with different ETags
            if mode is not ZipMode.KEEP:
                mode = ZipMode.KEEP
                self._notes.doubts.append(Doubt(_NOT_BY_RANGE, self._path_packed(mode)))
        self._mode = mode
        self._version = f"{version}-{mode}"

    @property
    def version(self) -> str:
        return self._version

    @property
    def version_is_exact(self) -> bool:
        return self._version_is_exact

    @property
    def notes(self) -> Notes:
        return self._notes

    def items(self) -> Iterator[Item]:
        """See `Contents.items`. The chunks of a member with a wrong size or CRC-32 raise MemberBroken; the zip is then
        stored as well, so that nothing is lost."""
        if self._mode is not ZipMode.UNPACK:
            yield self._packed()
        if self._mode is not ZipMode.KEEP:
            yield from self._unpacked()

    # -- opening -------------------------------------------------------------------------------------------
    def _open(self, mode: ZipMode, limits: ZipLimits) -> None:
        """Raises BadContents if it cannot be unpacked (with KEEP: is not whole), SourceMismatch if it cannot be read by
        range, SourceError."""
        if not self._info.ranges and mode is not ZipMode.KEEP:
            self._open_again()
        if not self._info.ranges or self._info.size_bytes is None:
            raise RangesUnreliable(f"{self._source.name} cannot be read by range")
        self._reader = RangeReader(self._source, self._info, self._policy)
        if mode is ZipMode.KEEP:
            check_whole(self._reader.read, self._info.size_bytes)
        else:
            members = read_directory(self._reader.read, self._info.size_bytes, limits)
            self._members = {member.name: member for member in members}
        self._looked_into = True

    def _open_again(self) -> None:
        """Retry: one response without ranges must not decide how the zip is stored."""

        def attempt() -> None:
            info, reader = self._source.open(sniff.SNIFF_BYTES)
            reader.close()
            if not info.ranges:
                raise RangesUnreliable(f"{self._source.name} cannot be read by range")
            if self._info.etag is not None and info.etag != self._info.etag:
                raise SourceChanged(f"{self._source.name} has another ETag than at the start")
            self._info = info

        self._policy.call(attempt, lambda error: isinstance(error, SourceUnavailable | RangesUnreliable))

    # -- the zip itself ------------------------------------------------------------------------------------
    def _path_packed(self, mode: ZipMode) -> str:
        return self._name if mode is ZipMode.KEEP else f"{ZIP_FOLDER}/{self._name}"

    def _packed(self) -> Item:
        is_doubtful = self._looked_into and bool(self._notes.doubts)
        return Item(
            path=self._path_packed(self._mode),
            content_type="application/zip",
            source=self._source,
            # a doubtful zip may have other bytes before it
            check=sniff.check_for(Kind.ANY if is_doubtful else Kind.ZIP, self._name),
            structure=None if self._looked_into else ZipStructure(self._name),
            size_bytes=self._info.size_bytes,
        )

    # -- its members ---------------------------------------------------------------------------------------
    def _unpacked(self) -> Iterator[Item]:
        broken: list[str] = []
        has_media = False
        try:
            with self._pass() as zip_pass:
                names = MemberNames(self._members)
                playlists = ZipPlaylists(self._members, names, zip_pass)
                playlists.find(self._notes)
                broken += playlists.broken.values()
                tree = ZipTree(playlists.held, self._members, names)
                tree.judge(self._notes, self._expected, len(self._members) - len(playlists.held))
                for member in self._members.values():
                    if member.name in playlists.held or member.name in playlists.broken:
                        continue
                    if member.name in tree.session_data and _is_small(member):
                        yield from self._session_data(member, names, zip_pass, broken)
                    else:
                        has_media = True
                        yield from self._media(member, tree, zip_pass, broken)
        except SourceMismatch:
            self._notes.doubts.append(Doubt(_NOT_BY_RANGE, self._path_packed(self._mode)))
            if self._mode is ZipMode.UNPACK:
                yield self._packed()
            return
        if broken:
            words = f"{len(broken)} members are damaged in the zip, the first: {broken[0]}; it is kept packed as well"
            self._notes.doubts.append(Doubt(words, self._path_packed(self._mode)))
        # rewritten texts do not show what the source had
        if (broken or not has_media) and self._mode is ZipMode.UNPACK:
            yield self._packed()
        yield from tree.items()

    def _pass(self) -> ZipPass:
        assert self._reader is not None
        stop = max((member.end_bound for member in self._members.values()), default=0)
        return ZipPass(self._reader, stop, self._window_bytes, self._memory)

    def _media(self, member: Member, tree: ZipTree, zip_pass: ZipPass, broken: list[str]) -> Iterator[Item]:
        chunks = MemberChunks(zip_pass, member)
        path = safe_path(member.name)
        yield Item(
            path=path,
            content_type=sniff.content_type(path),
            chunks=chunks,
            check=tree.check(member.name),
            size_bytes=member.size_bytes,
        )
        chunks.finish()
        if chunks.broken is not None:
            broken.append(str(chunks.broken))

    def _session_data(
        self, member: Member, names: MemberNames, zip_pass: ZipPass, broken: list[str]
    ) -> Iterator[Item]:
        """Yield session data, with the images it names rewritten to their paths in the copy."""
        path = safe_path(member.name)
        try:
            data = zip_pass.whole(member)
        except MemberBroken as error:
            broken.append(str(error))
            self._notes.doubts.append(Doubt(str(error), path, missing=True))
            return
        replacements: dict[Span, bytes] = {}
        for found in json_urls(data):
            reference = Reference(found.span, found.uri, Role.LINK, verbatim=True)
            target = names.target(reference, member.name)
            if target is None:
                if next(candidates(reference, member.name), None) and len(self._notes.warnings) < MAX_REMARKS:
                    self._notes.warnings.append(f"{path} names {shown(reference)}, which is not in the zip")
                continue
            if (text := new_text(reference, path, safe_path(target))) is not None:
                replacements[found.span] = json.dumps(text.decode()).encode()
        without_other_queries(data, replacements)
        yield Item(
            path=path,
            content_type=sniff.content_type(path),
            data=rewrite(data, replacements),
            check=as_packed(check_of_session_data(path, data)),
            rewritten=what_changed(data, replacements),
        )


_NOT_BY_RANGE = "the zip cannot be read by range, so it is kept packed and was not looked into"


def _is_small(member: Member) -> bool:
    return max(member.size_bytes, member.packed_bytes) <= MAX_SESSION_DATA_BYTES
