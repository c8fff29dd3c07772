"""`archiver webhook`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.text import Text

from archiver.hms.errors import HmsInvalidResponse
from worker.cli.opening import open_services
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings
from worker.logs.escaping import escaped

MAX_EVENT_BYTES = 4 * 1024 * 1024  # a webhook has some kilobytes


def webhook(
    file: Annotated[
        typer.FileBinaryRead, typer.Argument(metavar="FILE|-", help="The body of the webhook.")
    ] = "-",  # type: ignore[assignment]
    as_json: Json = False,
) -> None:
    """Keep the thumbnail URLs of an `hls.recording.success` webhook of 100ms.

    The API returns their storage paths without a signature; only the webhook signs them. Call this from your webhook
    receiver at once: after it has checked the secret header, and before the asset is archived. The URLs are kept
    encrypted, for 3 days. Idempotent.

    Exit code 1 when the event names no asset with thumbnails, 2 when it is not an event.

    Examples:
      archiver webhook event.json
      curl -s https://... | archiver webhook -
    """
    from archiver.core.contents.thumbnails import webhook as webhook_thumbnails
    from archiver.hms.webhooks import parse_event

    try:
        event = parse_event(file.read(MAX_EVENT_BYTES))
    except HmsInvalidResponse as error:
        raise typer.BadParameter(str(error)) from None
    with open_services(read_settings()) as services:
        assets = webhook_thumbnails.remember(services.ledger, event)
    if as_json:
        print_json(json.dumps({"type": event.type, "thumbnails": len(event.thumbnails), "assets": assets}))
    elif assets:
        kept = (
            f"{len(event.thumbnails)} thumbnails are kept for {assets} assets: {', '.join(event.asset_ids)}."
        )
        out.print(Text(escaped(kept)))
    else:
        err.print(Text(escaped(f"The event {event.type} names no asset with thumbnails; nothing is kept.")))
    sys.exit(ExitCode.OK if assets else ExitCode.NOT_SAVED)
