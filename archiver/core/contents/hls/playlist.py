"""Find the URIs of an HLS playlist (RFC 8216, section 4) and replace them; all other bytes stay the same.

Parser libraries rewrite a playlist from their model and lose what they do not know, so this reads lines for the
spans that can hold a URI. Lines end at LF, CRLF or a single CR, never at U+2028 or the like; the encoding does not
matter."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from archiver.core.contents.hls.credentials_in_text import SUSPECT, credential_spans
from archiver.core.contents.hls.references import Reference, Role, Span
from archiver.core.contents.hls.variables import Variables
from archiver.core.errors import BadContents

MAX_REMARKS = 20  # of one playlist, each at most 200 bytes of it
MAX_ERROR_BYTES = 200

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class _Attribute:
    name: bytes
    span: Span  # of the value, without its quotes
    whole: Span  # of NAME=value


MAX_PATHWAYS = 1000
MAX_PATHWAY_BYTES = 64
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
# Tags of draft-pantos-hls-rfc8216bis without a URI, which need no remark in the manifest.
_WITHOUT_URI = {
    b"EXTM3U", b"EXTINF", b"EXT-X-VERSION", b"EXT-X-BYTERANGE", b"EXT-X-DISCONTINUITY", b"EXT-X-GAP",
    b"EXT-X-PROGRAM-DATE-TIME", b"EXT-X-BITRATE", b"EXT-X-TARGETDURATION", b"EXT-X-MEDIA-SEQUENCE",
    b"EXT-X-DISCONTINUITY-SEQUENCE", b"EXT-X-ENDLIST", b"EXT-X-PLAYLIST-TYPE", b"EXT-X-I-FRAMES-ONLY",
    b"EXT-X-PART-INF", b"EXT-X-SERVER-CONTROL", b"EXT-X-STREAM-INF", b"EXT-X-INDEPENDENT-SEGMENTS",
    b"EXT-X-START", b"EXT-X-SKIP", b"EXT-X-ALLOW-CACHE",
}  # fmt: skip
_INTERSTITIAL = {b"X-ASSET-URI", b"X-ASSET-LIST", b"X-URI"}
_MEDIA_TYPES = {b"EXT-X-I-FRAME-STREAM-INF": "I-FRAME", b"EXT-X-IMAGE-STREAM-INF": "IMAGE"}
_MASTER_TAGS = (b"#EXT-X-STREAM-INF", b"#EXT-X-MEDIA:", b"#EXT-X-I-FRAME-STREAM-INF")
_MEDIA_TAGS = (b"#EXTINF", b"#EXT-X-TARGETDURATION")
# A line without leading blanks, and the tag it begins with.
_LINE = re.compile(rb"(?:#(EXT[A-Za-z0-9-]*)(:?)|[^ \t\r\n])[^\r\n]*")
# The same for text whose every CR precedes an LF: searching for one line ending is faster than for two.
_LF_LINE = re.compile(rb"(?:#(EXT[A-Za-z0-9-]*)(:?)|[^ \t\r\n])[^\n]*")
_URL_INSIDE = re.compile(rb"https?://|(?:^|[,:])[A-Z0-9-]*UR[IL]=", re.IGNORECASE)
_NOT_URI_ASCII = re.compile(rb"[^\x21-\x7e]")
_OTHER_SCHEME = re.compile(rb"(?!https?:)[A-Za-z][A-Za-z0-9+.-]*:", re.IGNORECASE)
_PLAYLIST_NAME = re.compile(r"[^?#]*\.m3u8?(?:[?#]|\Z)", re.IGNORECASE)
_ERROR_TAG = re.compile(rb"EXT-(?:[A-Z0-9-]*-)?ERROR(?:-[A-Z0-9-]*)?", re.IGNORECASE)
_QUERY_IN_TEXT = re.compile(rb"\?\S*")
_HOLDS_MORE = re.compile(SUSPECT.pattern + rb"|\{\$")  # text with credentials or variables in it
_PLAIN_DURATION = re.compile(rb"\s*(\d{1,9}(?:\.\d{1,9})?)")


class Playlist:
    """One playlist, read once from top to bottom. Its counts are final when `references` has ended.

    `variables`: those of the multivariant playlist that led here, for EXT-X-DEFINE:IMPORT; `query`: of this playlist's
    own URL, for QUERYPARAM.

    `neutralised`: replacements that remove queries which may be credentials and keep players inside the copy. They
    overlap no fetchable reference. `error`: the text of an EXT-X-ERROR tag or the like, which some servers write
    instead of a recording."""

    def __init__(self, data: bytes, variables: Mapping[bytes, bytes] | None = None, query: str = "") -> None:
        """Raises BadContents when `data` is not a playlist."""
        if not data.removeprefix(BOM).startswith(b"#EXTM3U"):
            raise BadContents(f"this is no playlist: it begins with {data[:24]!r}, not with #EXTM3U")
        self.data = data
        self._variables = Variables(variables or {}, query)
        self.variables = self._variables.values
        self.neutralised: dict[Span, bytes] = {}  # see the class
        self.remarks: list[str] = []  # for the manifest: kept text that names something outside
        self.is_master = False
        self.is_media = False
        self.segments = 0  # URIs, gaps included
        self.gaps = 0
        self.variants = 0
        self.error: str | None = None
        self.duration_seconds = 0.0
        self._pathways: list[str] = []
        self._steering: list[_Attribute] = []
        # players load stray lines, except in a multivariant playlist
        self._is_plain_list = not _has_tag(data, _MEDIA_TAGS)
        self._loads_stray = not self._is_plain_list or not _has_tag(data, _MASTER_TAGS)

    @property
    def has_media(self) -> bool:
        """Return whether it names a segment that is not a gap."""
        return self.segments > self.gaps

    @property
    def is_empty(self) -> bool:
        """Return whether it names neither media nor a variant."""
        return not self.has_media and not self.variants

    def references(self) -> Iterator[Reference]:
        """Yield every URI in file order; call once. Raises BadContents for an undefined variable."""
        data = self.data
        lines = _LF_LINE if data.count(b"\r") == data.count(b"\r\n") else _LINE
        holds_more = _HOLDS_MORE.search(data) is not None
        variant = segment = gap = encrypted = ranged = False
        for line in lines.finditer(data, len(BOM) if data.startswith(BOM) else 0):
            start, end = line.span()
            while data[end - 1] in b" \t\r":
                end -= 1
            name, at = line.group(1), line.end(2)
            taken: list[Span] | None = None  # of references in this line
            if name is None:
                if data[start] == ord("#"):
                    pass
                elif variant or segment or self._loads_stray:
                    reference = self._reference((start, end), Role.SEGMENT, gap, encrypted)
                    if variant or (self._is_plain_list and _PLAYLIST_NAME.match(reference.uri)):
                        reference.role = Role.VARIANT
                        self.variants += 1
                        self.is_master = True
                    else:
                        reference.ranged = ranged
                        self.segments += 1
                        self.gaps += gap
                        self.is_media = True
                    yield reference
                    variant = segment = gap = ranged = False
                    continue
                else:
                    self._remark("a line that no tag introduces", start, end)
                    gap = ranged = False
            elif name == b"EXTINF":
                self.is_media = segment = True
                if seconds := _PLAIN_DURATION.match(data, at, end):
                    self.duration_seconds += float(seconds.group(1))
            elif name == b"EXT-X-TARGETDURATION":
                self.is_media = True
            elif name == b"EXT-X-GAP":
                gap = True
            elif name == b"EXT-X-BYTERANGE":
                ranged = True
            elif name == b"EXT-X-STREAM-INF":
                self.is_master = variant = True
                self._note_pathway(at, end)
            elif name == b"EXT-X-DEFINE":
                taken = self._define(at, end)
            elif name == b"EXT-X-CONTENT-STEERING":
                found = [each for each in self._attributes(at, end) if each.name == b"SERVER-URI"]
                taken = [each.span for each in found]
                self._steering += found
                if len(self._steering) > MAX_STEERING:
                    raise BadContents(f"the playlist names more than {MAX_STEERING} steering servers")
            elif name in _ROLES:
                if name == b"EXT-X-KEY":
                    encrypted = self._value(at, end, b"METHOD").startswith((b"AES-128", b"AES-256"))
                self.is_master |= name in _FOLLOWED
                taken = []
                for reference in self._tag_references(name, at, end, encrypted):
                    taken.append(reference.span)
                    yield reference
            elif name == b"EXT-X-DATERANGE":
                for each in self._attributes(at, end):
                    if each.name in _INTERSTITIAL:
                        self._remark(f"EXT-X-DATERANGE {each.name.decode()}", *each.span)
            elif _ERROR_TAG.fullmatch(name):
                self._note_error(name, at, end)
            elif name not in _WITHOUT_URI and _URL_INSIDE.search(data, at, end):
                self._remark(f"the unknown tag {name.decode()}", at, end)
            if holds_more and _HOLDS_MORE.search(data, start, end):
                self._clean(name, start, end, taken or [])
        self._neutralise_steering()
        self.blank(())

    @property
    def used_in_queries(self) -> frozenset[bytes]:
        """Names of variables used in queries, for `blank` of the playlist they are imported from."""
        return frozenset(self._variables.used_in_queries)

    def blank(self, names: Iterable[bytes]) -> None:
        """Neutralise the values of these variables too: another playlist uses them in queries."""
        self._variables.used_in_queries.update(names)
        for span in self._variables.secret_values(is_master=self.is_master):
            self.neutralised[span] = b""

    def _tag_references(self, tag: bytes, at: int, end: int, encrypted: bool) -> Iterator[Reference]:
        attributes = list(self._attributes(at, end))
        values = {each.name: self._text(each) for each in reversed(attributes)}
        role = _ROLES[tag]
        for each in attributes:
            if each.name == b"URI" and self._text(each):
                reference = self._reference(each.span, role, values.get(b"GAP") == b"YES", encrypted)
                reference.ranged = b"BYTERANGE" in values or b"BYTERANGE-START" in values
                if role is Role.KEY:
                    if values.get(b"KEYFORMAT", b"identity") == b"identity":
                        reference.key_bytes = 32 if values.get(b"METHOD", b"").startswith(b"AES-256") else 16
                    reference.encrypted = False
                elif role is Role.RENDITION:
                    kind = values.get(b"TYPE", b"").strip().decode("ascii", "replace")
                    reference.media_type = _MEDIA_TYPES.get(tag, kind)
                yield reference

    def _reference(self, span: Span, role: Role, gap: bool, encrypted: bool) -> Reference:
        written = self.data[span[0] : span[1]]
        if b"{$" not in written:
            text = _NOT_URI_ASCII.sub(_percent, written)
            return Reference(span, text.decode("ascii"), role, text == written, gap, encrypted)
        variables = self._variables
        variables.note_uses(written)
        text = _NOT_URI_ASCII.sub(_percent, variables.expand(written))
        if _OTHER_SCHEME.match(text):  # not fetched or rewritten, but its variables may be blanked
            self.neutralised[span] = text
        names = [_NOT_URI_ASCII.sub(_percent, name) for name in variables.parameters_from_query(written)]
        return Reference(
            span,
            text.decode("ascii"),
            role,
            False,
            gap,
            encrypted,
            from_query=tuple(name.decode("ascii") for name in names),
        )

    def _define(self, at: int, end: int) -> list[Span]:
        """Read EXT-X-DEFINE; return the spans that `neutralised` may replace."""
        self._variables.count()
        attributes = {each.name: each for each in self._attributes(at, end)}
        if (name := attributes.get(b"NAME")) and (value := attributes.get(b"VALUE")):
            self._variables.define(self._text(name), self._text(value), value.span)
            return [value.span]
        if imported := attributes.get(b"IMPORT"):
            self._variables.inherit(self._text(imported))
        elif parameter := attributes.get(b"QUERYPARAM"):
            key = self._text(parameter)
            self._variables.take_from_query(key)
            self.neutralised[parameter.whole] = b'NAME="' + key + b'",VALUE=""'
            return [parameter.whole]
        return []

    def _clean(self, name: bytes | None, start: int, end: int, taken: list[Span]) -> None:
        """Neutralise queries in a line outside the spans `taken`, and record the variables it uses."""
        at = start
        for low, high in [*taken, (end, end)]:
            for span in credential_spans(self.data, at, low, in_tag=name not in (None, b"EXTINF")):
                self.neutralised[span] = b""
            if self.data.find(b"{$", at, low) >= 0:
                shown = name == b"EXT-X-STREAM-INF" or name in _ROLES
                self._variables.note_uses(self.data[at:low], counts_as_kept=shown)
            at = high + 1  # behind the quote, if there is one

    def _note_error(self, name: bytes, at: int, end: int) -> None:
        text = _QUERY_IN_TEXT.sub(b"", self.data[at : min(end, at + 4 * MAX_ERROR_BYTES)]).strip(b' \t"')
        self.error = self.error or (text or name)[:MAX_ERROR_BYTES].decode("utf-8", "replace")

    def _note_pathway(self, at: int, end: int) -> None:
        pathway = self._value(at, end, b"PATHWAY-ID").decode("utf-8", "replace") or "."
        if pathway in self._pathways:
            return
        if len(self._pathways) >= MAX_PATHWAYS or len(pathway) > MAX_PATHWAY_BYTES:
            raise BadContents(f"the playlist has a very long pathway id, or more than {MAX_PATHWAYS} of them")
        self._pathways.append(pathway)

    def _neutralise_steering(self) -> None:
        """Replace steering servers by a manifest inside the playlist, so that players make no outside request."""
        manifest = {"VERSION": 1, "TTL": 86400, "PATHWAY-PRIORITY": self._pathways or ["."]}
        encoded = base64.b64encode(json.dumps(manifest).encode())
        for attribute in self._steering:
            self.neutralised[attribute.span] = b"data:application/json;base64," + encoded

    def _attributes(self, at: int, end: int) -> Iterator[_Attribute]:
        """Yield the attributes of a tag (RFC 8216, section 4.2); quoted values may hold commas, `=` and `{$x}`."""
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


def _percent(byte: re.Match[bytes]) -> bytes:
    return b"%%%02X" % byte.group()[0]


def _has_tag(data: bytes, tags: tuple[bytes, ...]) -> bool:
    """Tell whether a line of `data` begins with one of `tags`."""
    for tag in tags:
        at = data.find(tag)
        while at >= 0:
            begin = at
            while begin and data[begin - 1] in b" \t":
                begin -= 1
            if begin == 0 or data[begin - 1] in b"\r\n":
                return True
            at = data.find(tag, at + 1)
    return False


def is_unfinished(data: bytes) -> bool:
    """Tell whether this is a media playlist without EXT-X-ENDLIST (RFC 8216, section 4.3.3.4), as of a live stream."""
    return _has_tag(data, _MEDIA_TAGS) and not _has_tag(data, (b"#EXT-X-ENDLIST",))
