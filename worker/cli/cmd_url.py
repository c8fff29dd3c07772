"""`archiver url`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.shared import ExitCode, Json, err, fail, print_json, read_settings

if TYPE_CHECKING:
    from archiver.core.restore.links import Links


def url(
    asset_id: Annotated[str, typer.Argument(metavar="ID", help="An asset id.")],
    minutes: Annotated[
        int, typer.Option("--minutes", min=1, help="How long the URLs work; 7 days (10080) at most.")
    ] = 60,
    folder: Annotated[
        str,
        typer.Option(
            "--into",
            metavar="DIR",
            help="Where the playlists of an HLS tree are written. Default ./ID-signed.",
        ),
    ] = "",
    source: Annotated[
        str, typer.Option("--from", metavar="DESTINATION", help="Only this one, by its name or URL.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Print a signed URL of an asset, which anybody can open for a while: treat it as a secret.

    S3, Google Cloud Storage and Azure sign; of a directory the path of the file is printed. An asset of several files
    gives a line for each: path, tab, URL. An HLS tree gives the path of a local playlist whose segments are signed,
    so that it plays from a private bucket; nothing is written there. With the credentials of a role,
    URLs end when these do.

    Exit code 0 when there is one, 1 when no copy is whole and can be linked to, 3 when a destination cannot be reached.

    Examples:
      archiver url 6400c0d3e1b2a3c4d5e6f708 --minutes 15
      ffplay "$(archiver url 6400c0d3e1b2a3c4d5e6f708)"
      ffplay -protocol_whitelist file,https,tls,tcp,crypto "$(archiver url 6502aa...)"   an HLS tree
    """
    from archiver.core.errors import RestoreError
    from archiver.core.restore.links import link, longest
    from archiver.core.upkeep.copies import Selection, find
    from worker.restoring import all_of, sources
    from worker.views.text import shown

    settings = read_settings()
    lifetime = timedelta(minutes=minutes)
    with ExitStack() as stack:
        stores = sources(settings.destinations, source)
        witnesses = all_of(settings.destinations, stores)
        for store in witnesses:
            stack.callback(store.close)
        for store in stores:
            most = longest(store)
            if most is not None and lifetime > most:
                raise typer.BadParameter(
                    f"{store.name} signs URLs for {most // timedelta(minutes=1)} minutes at most",
                    param_hint="--minutes",
                )
        (copies,) = find(stores, Selection((asset_id,)), witnesses=witnesses)
        try:
            links = link(copies, lifetime)
            opened = _write(links, Path(folder or f"{asset_id}-signed")) if links.playlists else None
        except RestoreError as error:
            unreachable = bool(copies.errors)
            fail(
                RestoreError(f"{asset_id}: {error}"),
                ExitCode.UNREACHABLE if unreachable else ExitCode.NOT_SAVED,
            )
    until = datetime.now(UTC) + lifetime if links.signed else None
    if as_json:
        found = {
            "asset_id": asset_id,
            "destination": links.destination,
            "opens": str(opened) if opened else links.urls[links.opens],
            "urls": dict(links.urls),
            "until": until.isoformat() if until else None,
        }
        print_json(json.dumps(found))
        return
    for line in _lines(links, opened):
        print(line)  # noqa: T201 # as it is: neither wrapped nor redacted
    if links.outside:
        err.print(
            shown(
                f"{links.outside:,} references of the playlists lead to nothing that is archived.", "yellow"
            )
        )
    if until is not None:
        err.print(f"Until {until:%Y-%m-%d %H:%M} UTC, to anybody who has it.", style="dim")
    sys.stdout.flush()


def _write(links: Links, folder: Path) -> Path:
    """Write the playlists, for this user alone. Raises RestoreError."""
    from archiver.core.restore.folder import RestoreFolder

    with RestoreFolder(folder, private=True) as opened:
        for path, data in links.playlists.items():
            opened.write(path, data)
    return folder / links.opens


def _lines(links: Links, opened: Path | None) -> list[str]:
    if opened is not None:
        return [str(opened)]
    if len(links.urls) == 1:
        return list(links.urls.values())
    if not links.signed and links.opens.endswith(".m3u8"):
        return [links.urls[links.opens]]
    return [f"{path}\t{signed}" for path, signed in links.urls.items()]
