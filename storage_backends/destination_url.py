"""Parse and validate destination URLs.

    s3://bucket/prefix?endpoint_url=https://minio.example:9000&region=eu-west-1
    gs://bucket/prefix
    az://account/container/prefix
    file:///srv/archive    ./archive    ../archive    /srv/archive
    memory://name          anything an installed package adds

Messages never repeat the query's values or what precedes an `@`: either may be a credential.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from storage_backends.base import object_key
from storage_backends.errors import BadDestinationUrl, InvalidKey

_CREDENTIAL_OPTION = re.compile(
    r"access_?key|secret|token|password|passwd|credential|signature|api_?key|account_?key|^sig$|^key$|^user(name)?$",
    re.IGNORECASE,
)
_PLAIN_OPTION = re.compile(r"[a-z_]{1,40}")  # a digit could make it a key
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
CREDENTIALS_HELP = (
    "a destination URL holds no credentials; give them where the SDKs find them "
    "(AWS_* variables, a profile, an instance role, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_*)"
)


@dataclass(frozen=True, slots=True)
class DestinationUrl:
    """`scheme://bucket/prefix?options`."""

    scheme: str
    bucket: str  # empty in `scheme:///path`
    prefix: str  # percent-decoded, no slash at either end; for `file` the absolute directory, which begins with one
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The destination in messages and records: without options, but with the host of `endpoint_url`, which tells
        buckets of one name at two providers apart: `s3://bucket/prefix (minio.example:9000)`."""
        place = f"{self.scheme}://{self.bucket}/{self.prefix.lstrip('/')}".rstrip("/")
        host = _host_of(self.options.get("endpoint_url", ""))
        return f"{place} ({host})" if host else place

    def location(self, key: str) -> str:
        """Return where the object at `key` is, as other tools take it: `s3://bucket/prefix/key`, or a file's path."""
        path = f"{self.prefix}/{key}" if self.prefix else key
        return path if self.scheme == "file" else f"{self.scheme}://{self.bucket}/{path}"

    def only_options(self, known: Collection[str]) -> None:
        """Raise BadDestinationUrl when an option is not one of `known`, such as a misspelt one."""
        for option in self.options:
            if option not in known:
                shown = repr(option) if _PLAIN_OPTION.fullmatch(option) else "(not shown)"
                close = get_close_matches(option, known, n=1) if shown != "(not shown)" else []
                hint = f"did you mean {close[0]}? " if close else ""
                accepts = ", ".join(sorted(known)) or "none"
                raise BadDestinationUrl(
                    f"destination {self.name}: unknown option {shown}; {hint}{self.scheme}:// accepts: {accepts}"
                )

    def one_of(self, option: str, known: Collection[str]) -> str | None:
        """Return the value of `option`; None without it. Raises BadDestinationUrl for any other than `known`."""
        value = self.options.get(option)
        if value is not None and value not in known:
            close = get_close_matches(value, known, n=1, cutoff=0.5)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise BadDestinationUrl(f"destination {self.name}: {option} is one of {', '.join(known)}{hint}")
        return value

    def matching(self, option: str, pattern: str, what: str) -> str | None:
        """Return the value of `option`; None without it. Raises BadDestinationUrl, which calls it `what`."""
        value = self.options.get(option)
        if value is not None and not re.fullmatch(pattern, value):
            raise BadDestinationUrl(f"destination {self.name}: {option} is {what}")
        return value


def _host_of(endpoint_url: str) -> str:
    """Return host and port as written, or an empty text. Never what precedes an `@`."""
    try:
        split = urlsplit(endpoint_url)
        host, port = split.hostname or "", split.port
    except ValueError:
        return ""
    if ":" in host:
        host = f"[{host}]"
    return f"{host}:{port}" if host and port else host


def shown(text: str) -> str:
    """Return as much of a destination URL as a message may repeat."""
    text = re.split(r"[?#]", text, maxsplit=1)[0]
    if "@" in text:
        return repr(text.partition(":")[0] + "://...")
    return repr(text[:120])


def is_plain_path(text: str) -> bool:
    """Return whether `text` is a directory without a scheme. It must begin with `/`, `./`, `../` or `~/`, so that a
    misspelt `s3//bucket` does not become a directory of that name."""
    return text in (".", "..") or text.startswith(("/", "./", "../", "~/"))


def parse_destination(text: str) -> DestinationUrl:
    """Parse a destination of any scheme. Raises BadDestinationUrl, which says what is wrong and what is right."""
    text = text.strip()
    if not text:
        raise BadDestinationUrl("a destination is empty; examples: ./archive, s3://bucket/prefix")
    if is_plain_path(text):
        return _directory(text, {})
    scheme, colon, rest = text.partition(":")
    if not colon or not _SCHEME.fullmatch(scheme):
        raise BadDestinationUrl(
            f"destination {shown(text)} has no scheme; write s3://bucket/prefix, gs://bucket/prefix, "
            "az://account/container/prefix, or ./archive for a directory"
        )
    scheme = scheme.lower()
    if not rest.startswith("//"):
        example = f"{scheme}:///srv/archive" if scheme == "file" else f"{scheme}://bucket/prefix"
        raise BadDestinationUrl(
            f"destination {shown(text)} needs two slashes after '{scheme}:', as in {example}"
        )
    try:
        split = urlsplit(text)
        port = split.port
    except ValueError:
        raise BadDestinationUrl(f"destination {shown(text)} is not a URL that can be read") from None
    if "@" in split.netloc:
        raise BadDestinationUrl(f"destination {shown(text)}: {CREDENTIALS_HELP}")
    if split.fragment or text.endswith("#"):
        raise BadDestinationUrl(f"destination {shown(text)}: '#' must be written %23 in a destination URL")
    options = _options(split.query, text)
    if scheme == "file":
        return _directory_of_file_url(split.netloc, unquote(split.path), options, text)
    if port is not None:
        raise BadDestinationUrl(
            f"destination {shown(text)}: a port does not belong to a bucket's name; "
            f"write {scheme}://bucket/prefix?endpoint_url=https://host:port"
        )
    prefix = unquote(split.path).strip("/")
    if prefix:
        try:
            object_key(prefix)
        except InvalidKey as error:
            raise BadDestinationUrl(
                f"destination {shown(text)}: the prefix cannot be used: {error}"
            ) from None
    return DestinationUrl(scheme, unquote(split.netloc), prefix, options)


def _options(query: str, text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=32)
    except ValueError:
        raise BadDestinationUrl(
            f"destination {shown(text)}: the part after '?' is not a list of name=value joined by '&'"
        ) from None
    options: dict[str, str] = {}
    for option, value in pairs:
        if _CREDENTIAL_OPTION.search(option):
            raise BadDestinationUrl(f"destination {shown(text)}: {CREDENTIALS_HELP}")
        if option in options:
            raise BadDestinationUrl(f"destination {shown(text)}: an option is given twice")
        if not value:
            raise BadDestinationUrl(f"destination {shown(text)}: an option has no value")
        options[option] = value
    return options


def _directory_of_file_url(host: str, path: str, options: Mapping[str, str], text: str) -> DestinationUrl:
    if host in (".", ".."):  # file://./archive, as people write it
        return _directory(host + path, options)
    if host not in ("", "localhost"):
        raise BadDestinationUrl(
            f"destination {shown(text)} names a host; a directory has three slashes: file:///{host}{path}"
        )
    if not path:
        raise BadDestinationUrl(
            "destination file:// names no directory; write file:///srv/archive or ./archive"
        )
    return _directory(path, options)


def _directory(path: str, options: Mapping[str, str]) -> DestinationUrl:
    if "\0" in path:
        raise BadDestinationUrl("the directory of a destination holds a NUL character")
    # resolved once, so that the name of a destination is the same whatever a process's current directory
    resolved = Path(path).expanduser().resolve()
    if str(resolved) == resolved.anchor:
        raise BadDestinationUrl(
            f"destination {shown(path)} is the root of the file system; name a directory in it"
        )
    return DestinationUrl("file", "", str(resolved), options)
