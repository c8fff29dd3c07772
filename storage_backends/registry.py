"""Open destinations by the scheme of their URL, through the entry-point group `archiver.storage_backends`.

Our own backends are registered in the same way (pyproject.toml). An entry point names a callable
`open_backend(url: DestinationUrl) -> StorageBackend`; see docs/storage-backends.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

from storage_backends.base import StorageBackend
from storage_backends.destination_url import DestinationUrl, parse_destination
from storage_backends.errors import BadDestinationUrl
from storage_backends.unconditional import with_conditional_reads

GROUP = "archiver.storage_backends"

OpenBackend = Callable[[DestinationUrl], StorageBackend]


def schemes() -> dict[str, EntryPoint]:
    """Return every scheme of the installed packages. Raises BadDestinationUrl when two packages offer the same one."""
    found: dict[str, EntryPoint] = {}
    for entry_point in entry_points(group=GROUP):
        other = found.setdefault(entry_point.name, entry_point)
        if other.value != entry_point.value:
            raise BadDestinationUrl(
                f"two installed packages offer {entry_point.name}:// destinations ({other.value} and "
                f"{entry_point.value}); uninstall one"
            )
    return found


def open_destination(text: str) -> StorageBackend:
    """Return the backend for a destination URL (or a directory's path beginning with `/`, `./` or `../`).

    Touches neither network nor disk: a backend makes its clients at first use, in the process that uses it. Raises
    BadDestinationUrl, whose message holds no credential.
    """
    url = parse_destination(text)
    offered = schemes()
    if url.scheme not in offered:
        close = get_close_matches(url.scheme, offered, n=1)
        hint = f"did you mean {close[0]}://? " if close else ""
        raise BadDestinationUrl(
            f"destination {url.name}: unknown scheme '{url.scheme}'; {hint}known: "
            f"{', '.join(f'{s}://' for s in sorted(offered))}. Example: s3://bucket/prefix"
        )
    try:
        open_backend: OpenBackend = offered[url.scheme].load()
    except (ImportError, AttributeError) as error:
        raise BadDestinationUrl(
            f"destination {url.name}: the package that offers {url.scheme}:// "
            f"({offered[url.scheme].value}) cannot be loaded: {error}"
        ) from error
    return with_conditional_reads(open_backend(url))


def open_destinations(texts: Iterable[str]) -> list[StorageBackend]:
    """Return the backends for several destinations. Raises BadDestinationUrl for two of one name: the ledger and
    manifests tell destinations apart by name."""
    backends: list[StorageBackend] = []
    for text in texts:
        backend = open_destination(text)
        if any(backend.name == other.name for other in backends):
            raise BadDestinationUrl(
                f"destination {backend.name} is given twice (two destinations differ in bucket, prefix or the host "
                "of endpoint_url: give one of them another prefix)"
            )
        backends.append(backend)
    return backends
