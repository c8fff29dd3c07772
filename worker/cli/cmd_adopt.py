"""`archiver adopt`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.text import Text

from worker.cli.opening import open_services
from worker.cli.shared import Json, out, print_json, read_settings
from worker.logs.escaping import escaped


def adopt(
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DESTINATION", help="As ARCHIVER_DESTINATIONS or `doctor` names it; or `ledger`."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Accept a destination as it is now: a replaced disk, an emptied bucket, or one of another ledger.

    Until then nothing is written to a destination that the ledger does not know, and nothing is concluded from what
    is missing there. Afterwards `reconcile` copies there what 100ms still has; older assets are only counted.
    `archiver adopt ledger` accepts a ledger that is refused as another workspace's, after an access key was replaced.
    Idempotent. Exit code 2 when it is not among ARCHIVER_DESTINATIONS.

    Examples:
      archiver adopt file:///mnt/nas/recordings
    """
    from archiver.core.workspaces import adopt_ledger
    from storage_backends.registry import open_destination
    from worker.errors import SettingsError
    from worker.identities import workspace_in

    settings = read_settings()
    with open_services(settings) as services:
        if destination == "ledger":
            workspace = workspace_in(settings)
            if workspace is None:
                raise SettingsError("There are no 100ms credentials that name a workspace.")
            adopt_ledger(services.ledger, workspace)
            out.print("The ledger is adopted for the workspace of these credentials.")
            return
        names = [store.name for store in services.stores]
        name = destination if destination in names else open_destination(destination).name
        if name not in names:
            raise typer.BadParameter(f"{name} is not among ARCHIVER_DESTINATIONS: {', '.join(names)}")
        marker = services.identities.adopt(name)
    if as_json:
        print_json(json.dumps({"destination": name, "id": marker.id}))
    else:
        out.print(Text(escaped(f"{name} is adopted. Its id is {marker.id}.")))
