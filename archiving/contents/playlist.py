"""An HLS playlist as bytes: where in it URIs are, and the same bytes with some of them replaced.

No parser library is fit to write an archive (hls.md), so nothing here models a playlist: it is read line by
line for the spans that can carry a URI, and every byte outside the spans that are replaced stays what it was.
Lines end at LF alone (a CR before it is stripped), never at U+2028 or the like; the encoding does not matter.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qs

from archiving.errors import BadContents

Span = tuple[int, int]

MAX_REMARKS = 20  # of one playlist, each at most 200 bytes of it

BOM = b"\xef\xbb\xbf"


class Role(Enum):
    """What a reference points to, and so what is done with it."""

    VARIANT = "variant playlist"
    RENDITION = "rendition playlist"
    SEGMENT = "segment"
    INIT = "init segment"
    KEY = "key"
    DATA = "session data"
    PART = "partial segment"  # a low-latency leftover: copied if it is there
    LINK = "link"  # rewritten so that it stays inside the copy, never fetched for its own sake


@dataclass(
    slots=True
)  # not frozen: one for each of 86,400 segments, and to freeze it costs more than to find it
class Reference:
    """One URI. `span` is where it stands; `uri` is its text with variables expanded, as ASCII (other bytes are
    percent-encoded); `verbatim` says whether it stands there exactly so."""

    span: Span
    uri: str = field(repr=False)  # its query may be a credential
    role: Role
    verbatim: bool
    gap: bool = False  # the segment is meant to be missing
    encrypted: bool = False  # the whole file is ciphertext: its first bytes say nothing
    plain_key: bool = False  # a key of the 16 bytes that HLS itself defines


@dataclass(frozen=True, slots=True)
class _Attribute:
    name: bytes
    span: Span  # of the value, without its quotes
    whole: Span  # of NAME=value


# Real playlists have a handful of short ones; without a bound a few kB of text expand to more than any memory holds.
MAX_URI_BYTES = 64 * 1024
MAX_DEFINITIONS = 1000  # of variables, of pathways
MAX_STEERING = 16

_FOLLOWED = {b"EXT-X-MEDIA", b"EXT-X-I-FRAME-STREAM-INF", b"EXT-X-IMAGE-STREAM-INF"}
_ROLES = {
    **dict.fromkeys(_FOLLOWED, Role.RENDITION),
    b"EXT-X-MAP": Role.INIT,
    b"EXT-X-KEY": Role.KEY,
    b"EXT-X-SESSION-KEY": Role.KEY,
    b"EXT-X-SESSION-DATA": Role.DATA,
    b"EXT-X-PART": Role.PART,
    b"EXT-X-PRELOAD-HINT": Role.LINK,
    b"EXT-X-RENDITION-REPORT": Role.LINK,
}
# Tags of RFC 8216bis without a URI in them, and what has no business in the manifest's remarks.
_WITHOUT_URI = {
    b"EXTM3U", b"EXTINF", b"EXT-X-VERSION", b"EXT-X-BYTERANGE", b"EXT-X-DISCONTINUITY", b"EXT-X-GAP",
    b"EXT-X-PROGRAM-DATE-TIME", b"EXT-X-BITRATE", b"EXT-X-TARGETDURATION", b"EXT-X-MEDIA-SEQUENCE",
    b"EXT-X-DISCONTINUITY-SEQUENCE", b"EXT-X-ENDLIST", b"EXT-X-PLAYLIST-TYPE", b"EXT-X-I-FRAMES-ONLY",
    b"EXT-X-PART-INF", b"EXT-X-SERVER-CONTROL", b"EXT-X-STREAM-INF", b"EXT-X-INDEPENDENT-SEGMENTS",
    b"EXT-X-START", b"EXT-X-SKIP", b"EXT-X-ALLOW-CACHE",
}  # fmt: skip
_INTERSTITIAL = {b"X-ASSET-URI", b"X-ASSET-LIST", b"X-URI"}
# A line without the blanks before it, and the tag that it begins with. It ends at LF alone.
_LINE = re.compile(rb"(?:#(EXT[A-Za-z0-9-]*)(:?)|[^ \t\r\n])[^\n]*")
_URL_INSIDE = re.compile(rb"https?://|(?:^|[,:])[A-Z0-9-]*UR[IL]=", re.IGNORECASE)
_VARIABLE = re.compile(rb"\{\$([A-Za-z0-9_-]+)\}")
_NOT_URI_ASCII = re.compile(rb"[^\x21-\x7e]")
_ENDLIST = re.compile(rb"^[ \t]*#EXT-X-ENDLIST", re.MULTILINE)
_MEDIA_TAG = re.compile(rb"^[ \t]*#(?:EXTINF|EXT-X-TARGETDURATION)", re.MULTILINE)
_PLAIN_DURATION = re.compile(rb"\s*(\d{1,9}(?:\.\d{1,9})?)")


class Playlist:
    """One playlist, read once from top to bottom.

    `variables` are those of the multivariant playlist that led here, for `EXT-X-DEFINE:IMPORT`; `query` is
    that of this playlist's own URL, for `QUERYPARAM`. The facts are known when `references` has ended.
    """

    def __init__(self, data: bytes, variables: Mapping[bytes, bytes] | None = None, query: str = "") -> None:
        """Raises BadContents when `data` is no playlist."""
        if not data.removeprefix(BOM).startswith(b"#EXTM3U"):
            raise BadContents(f"this is no playlist: it begins with {data[:24]!r}, not with #EXTM3U")
        self.data = data
        self.variables: dict[bytes, bytes] = {}
        self.neutralised: dict[Span, bytes] = {}  # replacements that make the copy stand alone
        self.remarks: list[str] = []  # for the manifest: what names something outside and is kept
        self.is_master = False
        self.is_media = False
        self.segments = 0
        self.gaps = 0
        self.duration_seconds = 0.0
        self._inherited = variables or {}
        self._query = query
        self._definitions = 0
        self._pathways: list[str] = []
        self._steering: list[_Attribute] = []

    def references(self) -> Iterator[Reference]:
        """Every URI in the order of the file. Once only. Raises BadContents for a variable nobody defined."""
        data = self.data
        variant = segment = gap = encrypted = False
        for line in _LINE.finditer(data, len(BOM) if data.startswith(BOM) else 0):
            start, end = line.span()
            while data[end - 1] in b" \t\r":
                end -= 1
            name, at = line.group(1), line.end(2)
            if name is None:
                if data[start] == ord("#"):
                    continue
                if variant or segment:
                    role = Role.VARIANT if variant else Role.SEGMENT
                    self.gaps += gap and segment
                    yield self._reference((start, end), role, gap, encrypted)
                else:
                    self._remark("a line that no tag introduces", start, end)
                variant = segment = gap = False
            elif name == b"EXTINF":
                self.is_media = segment = True
                self.segments += 1
                if seconds := _PLAIN_DURATION.match(data, at, end):
                    self.duration_seconds += float(seconds.group(1))
            elif name == b"EXT-X-TARGETDURATION":
                self.is_media = True
            elif name == b"EXT-X-GAP":
                gap = True
            elif name == b"EXT-X-STREAM-INF":
                self.is_master = variant = True
                self._note_pathway(at, end)
            elif name == b"EXT-X-DEFINE":
                self._define(at, end)
            elif name == b"EXT-X-CONTENT-STEERING":
                self._steering += [each for each in self._attributes(at, end) if each.name == b"SERVER-URI"]
                if len(self._steering) > MAX_STEERING:
                    raise BadContents(f"the playlist names more than {MAX_STEERING} steering servers")
            elif name == b"EXT-X-KEY":
                encrypted = self._value(at, end, b"METHOD").startswith(b"AES-128")
                yield from self._tag_references(name, at, end)
            elif name in _ROLES:
                self.is_master |= name in _FOLLOWED
                yield from self._tag_references(name, at, end, encrypted)
            elif name == b"EXT-X-DATERANGE":
                for each in self._attributes(at, end):
                    if each.name in _INTERSTITIAL:
                        self._remark(f"EXT-X-DATERANGE {each.name.decode()}", *each.span)
            elif name not in _WITHOUT_URI and _URL_INSIDE.search(data, at, end):
                self._remark(f"the unknown tag {name.decode()}", at, end)
        self._neutralise_steering()

    def _tag_references(self, tag: bytes, at: int, end: int, encrypted: bool = False) -> Iterator[Reference]:
        attributes = list(self._attributes(at, end))
        gap = any(each.name == b"GAP" and self._text(each) == b"YES" for each in attributes)
        formats = [self._text(each) for each in attributes if each.name == b"KEYFORMAT"]
        for each in attributes:
            if each.name == b"URI" and self._text(each):
                role = _ROLES[tag]
                plain_key = role is Role.KEY and formats in ([], [b"identity"])
                yield self._reference(each.span, role, gap, encrypted, plain_key)

    def _reference(
        self, span: Span, role: Role, gap: bool, encrypted: bool, plain_key: bool = False
    ) -> Reference:
        written = self.data[span[0] : span[1]]
        text = self._expand(written) if b"{$" in written else written
        text = _NOT_URI_ASCII.sub(lambda byte: b"%%%02X" % byte.group()[0], text)
        return Reference(span, text.decode("ascii"), role, text == written, gap, encrypted, plain_key)

    def _expand(self, text: bytes) -> bytes:
        names = (match.group(1) for match in _VARIABLE.finditer(text))
        if len(text) + sum(len(self.variables.get(name, b"")) for name in names) > MAX_URI_BYTES:
            raise BadContents(f"a URI of the playlist expands to more than {MAX_URI_BYTES} bytes")

        def value(match: re.Match[bytes]) -> bytes:
            try:
                return self.variables[match.group(1)]
            except KeyError:
                name = match.group(1).decode()
                raise BadContents(f"the playlist uses a variable {name!r} that it does not define") from None

        return _VARIABLE.sub(value, text)

    def _define(self, at: int, end: int) -> None:
        """EXT-X-DEFINE. Values from the URL's query, and values that hold a query, are not left in the copy:
        they may be signatures, and every URI that uses them is written out anyway."""
        self._definitions += 1
        if self._definitions > MAX_DEFINITIONS:
            raise BadContents(f"the playlist defines more than {MAX_DEFINITIONS} variables")
        attributes = {each.name: each for each in self._attributes(at, end)}
        if (name := attributes.get(b"NAME")) and (value := attributes.get(b"VALUE")):
            text = self._text(value)
            self.variables[self._text(name)] = text
            if b"=" in text or b"?" in text or b"://" in text:
                self.neutralised[value.span] = b""
        elif imported := attributes.get(b"IMPORT"):
            key = self._text(imported)
            if key in self._inherited:
                self.variables[key] = self._inherited[key]
        elif parameter := attributes.get(b"QUERYPARAM"):
            key = self._text(parameter)
            values = parse_qs(self._query, keep_blank_values=True).get(key.decode("utf-8", "replace"))
            if values:
                self.variables[key] = values[0].encode()
            self.neutralised[parameter.whole] = b'NAME="' + key + b'",VALUE=""'

    def _note_pathway(self, at: int, end: int) -> None:
        pathway = self._value(at, end, b"PATHWAY-ID").decode("utf-8", "replace") or "."
        if pathway in self._pathways:
            return
        if len(self._pathways) >= MAX_DEFINITIONS or len(pathway) > MAX_URI_BYTES // MAX_DEFINITIONS:
            raise BadContents(
                f"the playlist has a very long pathway id, or more than {MAX_DEFINITIONS} of them"
            )
        self._pathways.append(pathway)

    def _neutralise_steering(self) -> None:
        """A steering manifest inside the playlist itself plays, and no player asks outside (hls.md)."""
        manifest = {"VERSION": 1, "TTL": 86400, "PATHWAY-PRIORITY": self._pathways or ["."]}
        encoded = base64.b64encode(json.dumps(manifest).encode())
        for attribute in self._steering:
            self.neutralised[attribute.span] = b"data:application/json;base64," + encoded

    def _attributes(self, at: int, end: int) -> Iterator[_Attribute]:
        """The attributes of a tag, by automaton: quoted values hold commas, `=` and `{$x}`."""
        data = self.data
        while at < end:
            if data[at] in b", \t":
                at += 1
                continue
            equals = data.find(b"=", at, end)
            if equals < 0:
                return
            begin = equals + 1
            if begin < end and data[begin] == ord('"'):
                stop = data.find(b'"', begin + 1, end)
                span = (begin + 1, end if stop < 0 else stop)
                after = end if stop < 0 else stop + 1
            else:
                stop = data.find(b",", begin, end)
                span = (begin, end if stop < 0 else stop)
                after = span[1]
            yield _Attribute(data[at:equals].strip(), span, (at, after))
            at = after

    def _value(self, at: int, end: int, name: bytes) -> bytes:
        return next((self._text(each) for each in self._attributes(at, end) if each.name == name), b"")

    def _text(self, attribute: _Attribute) -> bytes:
        return self.data[slice(*attribute.span)]

    def _remark(self, what: str, start: int, end: int) -> None:
        if len(self.remarks) >= MAX_REMARKS:
            return
        shown = self.data[start : min(end, start + 200)].decode("utf-8", "replace")
        self.remarks.append(f"{what} was kept as it is: {re.split('[?#]', shown)[0]}")


def is_unfinished(data: bytes) -> bool:
    """Whether this is a media playlist without EXT-X-ENDLIST, as that of a live stream is."""
    return _MEDIA_TAG.search(data) is not None and _ENDLIST.search(data) is None


def rewrite(data: bytes, replacements: Mapping[Span, bytes]) -> bytes:
    """`data` with each span replaced. Every byte outside the spans is the same; without spans, `data` itself."""
    if not replacements:
        return data
    pieces, at = [], 0
    for (start, end), new in sorted(replacements.items()):
        if start < at:
            raise ValueError(f"spans overlap at byte {start}")
        pieces += [data[at:start], new]
        at = end
    return b"".join([*pieces, data[at:]])
