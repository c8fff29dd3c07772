"""A URL whose query is a credential, and what may be said of it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, NoReturn
from urllib.parse import quote, urlsplit

from archiver.transfer.errors import SourceNotAllowed

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.(?!-)[a-z0-9_-]{1,63})*")
_IPV6 = re.compile(r"[0-9a-f:.]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_REFERENCE = re.compile(
    r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL
)
"""RFC 3986, appendix B: scheme, authority, path, query, fragment. It matches any text."""

_PLAIN = re.compile(
    r"(https?)://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::([1-9][0-9]{0,4}))?((?:/[!-\"$-\[\]-~]*)?)"
)
"""A URL whose parts all parsers read alike: nearly every one. A tree has tens of thousands."""

_BLANKS = "".join(map(chr, range(0x21)))  # around a reference they mean nothing, as in browsers
_TO_ENCODE = re.compile(r"[^\x21-\x7e]+")


class Origin(NamedTuple):
    """Scheme, host and port: what connections, cookies and trust are bound to. The host is in lower case, in
    its IDNA form, without brackets or trailing dot."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As the Host header wants it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return _origin_text(self)


@lru_cache(maxsize=1024)
def _origin_text(origin: Origin) -> str:
    return f"{origin.scheme}://{origin.authority}"


class SecretUrl:
    """A URL that shows scheme, host and path, never its query, and refuses to be pickled."""

    __slots__ = ("_folder", "_origin", "_target", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        # worked out once: they are asked for several times a request
        self._origin: Origin | None = None
        self._target: str | None = None
        self._folder: tuple[str, str] | None = None

    def reveal(self) -> str:
        """The whole URL, secret included. For requests and for resolving references; never for messages."""
        return self._text

    @property
    def name(self) -> str:
        """`https://host/path`, for messages."""
        try:
            parts = urlsplit(self._text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return "(a URL that cannot be parsed)"
        host = f"[{host}]" if ":" in host else host
        return f"{parts.scheme}://{host}{f':{port}' if port is not None else ''}{parts.path}"

    @property
    def origin(self) -> Origin:
        """Raises SourceNotAllowed for anything but a plain http or https URL that all parsers read alike."""
        if self._origin is None:
            self._read_plain()
        if self._origin is None:
            self._origin = self._checked_origin()
        return self._origin

    def _read_plain(self) -> None:
        """Origin and target, when both are plain to see."""
        found = _PLAIN.fullmatch(self._text)
        if found is not None and not self._text.endswith("?"):  # whose empty query is left out
            self._origin = _plain_origin(found[1], found[2], found[3])
            self._target = found[4] or "/"

    def _checked_origin(self) -> Origin:
        if _CONTROL.search(self._text):
            self._refuse("it holds a control character or a backslash")
        try:
            parts = urlsplit(self._text)
            host, port = parts.hostname, parts.port
        except ValueError:
            self._refuse("it cannot be parsed")
        if parts.scheme not in _DEFAULT_PORTS:
            self._refuse("only https is read")
        if "@" in parts.netloc:
            self._refuse("it carries a user name or password")
        if port == 0:
            self._refuse("port 0 does not exist")
        return Origin(parts.scheme, self._normal_host(host or ""), port or _DEFAULT_PORTS[parts.scheme])

    @property
    def target(self) -> str:
        """Path and query as they go into the request line: what is not printable ASCII is percent-encoded, the
        rest stays as it is, for a signature covers it."""
        if self._target is None:
            self._read_plain()
        if self._target is None:
            parts = urlsplit(self._text)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            self._target = _percent_encoded(target)
        return self._target

    def join(self, reference: str) -> SecretUrl:
        """Return what `reference` means when it stands in the document at this URL (see `resolve`). Raises
        SourceNotAllowed."""
        text = resolve(self._text, reference.strip(_BLANKS))
        if "//" in reference:  # perhaps another host
            try:
                urlsplit(text)
            except ValueError:
                self._refuse("a reference in it cannot be parsed")
        return SecretUrl(text)

    def beside(self, name: str) -> SecretUrl:
        """The file `name` in the folder of this URL, without a query: what `join` says of a name of letters, digits
        and `.=_-`. Nothing is parsed for it: a playlist names tens of thousands. Raises SourceNotAllowed."""
        if self._folder is None:
            text = self._text.partition("#")[0].partition("?")[0]
            self._folder = (
                text.rpartition("/")[0] + "/",
                self.target.partition("?")[0].rpartition("/")[0] + "/",
            )
        text, target = self._folder
        url = SecretUrl(text + name)
        url._origin, url._target = self.origin, target + name
        return url

    def with_query(self, more: str) -> SecretUrl:
        """This URL with the parameters `more` after its own. Raises SourceNotAllowed."""
        text, target = self._text.partition("#")[0], self.target
        url = SecretUrl(f"{text}{'&' if '?' in text else '?'}{more}")
        url._origin, url._target = (
            self.origin,
            f"{target}{'&' if '?' in target else '?'}{_percent_encoded(more)}",
        )
        return url

    def _normal_host(self, host: str) -> str:
        host = host.removesuffix(".")
        if ":" in host:
            if not _IPV6.fullmatch(host):
                self._refuse("its IPv6 address has a zone or is malformed")
            return host
        if not host.isascii():
            try:
                host = host.encode("idna").decode()
            except UnicodeError:
                self._refuse("its host name is not valid")
        if not _HOST.fullmatch(host) or len(host) > 253:
            self._refuse("its host name is not valid")
        return host

    def _refuse(self, why: str) -> NoReturn:
        raise SourceNotAllowed(f"{self.name} is not read: {why}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretUrl) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"SecretUrl({self.name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretUrl is not pickled: it is a credential")


@lru_cache(maxsize=1024)
def _plain_origin(scheme: str, host: str, port: str | None) -> Origin | None:
    """None: to be looked at more closely."""
    number = _DEFAULT_PORTS[scheme] if port is None else int(port)
    plain = _HOST.fullmatch(host) and len(host) <= 253 and number <= 65535
    return Origin(scheme, host, number) if plain else None


def resolve(base: str, reference: str) -> str:
    """The URL that `reference` means in the document at `base`: RFC 3986, section 5.2. Empty segments are kept, which
    urllib's `urljoin` drops. As browsers do, and section 5.2.2 allows, `http:a` is relative where `base` is http."""
    scheme, authority, path, query, fragment = _parts(reference)
    base_scheme, base_authority, base_path, base_query, _ = _parts(base)
    if scheme is not None and authority is None and base_scheme is not None:
        scheme = None if scheme.lower() == base_scheme.lower() else scheme
    if scheme is not None or authority is not None:
        path = without_dots(path)
    else:
        authority = base_authority
        if not path:
            path, query = base_path, base_query if query is None else query
        elif path.startswith("/"):
            path = without_dots(path)
        elif base_authority is not None and not base_path:
            path = without_dots(f"/{path}")
        else:
            path = without_dots(f"{base_path.rpartition('/')[0]}/{path}" if "/" in base_path else path)
    return "".join(
        (
            f"{scheme or base_scheme}:" if scheme or base_scheme else "",
            "" if authority is None else f"//{authority}",
            path,
            "" if query is None else f"?{query}",
            "" if fragment is None else f"#{fragment}",
        )
    )


def without_dots(path: str) -> str:
    """RFC 3986, section 5.2.4: `.` and `..` are gone, `..` never leads above the root, empty segments stay."""
    if "." not in path:
        return path
    root = "/" if path.startswith("/") else ""
    *folders, name = path[len(root) :].split("/")
    kept: list[str] = []
    for segment in folders:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if name == "..":
        del kept[-1:]
    return root + "/".join([*kept, "" if name in (".", "..") else name])


def _parts(text: str) -> tuple[str | None, str | None, str, str | None, str | None]:
    match = _REFERENCE.fullmatch(text)
    assert match is not None
    scheme, authority, path, query, fragment = match.groups()
    return scheme, authority, path, query, fragment


def _percent_encoded(text: str) -> str:
    return _TO_ENCODE.sub(lambda found: quote(found.group()), text)
