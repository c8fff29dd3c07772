"""`python -m archiver.simulator`: a simulated 100ms, as its own process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from archiver.simulator.config import Flavour, LastPage, Order, SessionPeers, SimulatorConfig
from archiver.simulator.recordings.sets import SETS


def main(argv: Sequence[str] | None = None, program: str = "simulator") -> int:
    """Serve until stopped. Return the exit code: 0, or 1 when it could not start. `program`: the command in the
    help."""
    config = _config(argv, program)
    # imported here: the `archiver` command imports this module, and the server takes half a second
    from archiver.simulator.server import run

    try:
        run(config)
    except OSError as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 1
    return 0


def _config(argv: Sequence[str] | None, program: str) -> SimulatorConfig:
    default = SimulatorConfig()
    parser = argparse.ArgumentParser(
        prog=program,
        description="A simulated 100ms: API, storage with expiring URLs, CDN, sample recordings, named faults.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--set", choices=sorted(SETS), default=default.set_name, help="the initial assets")
    add("--state", type=Path, metavar="DIR", help="keep state across restarts here, and write ready.json")
    add("--host", default=default.host, help="the address to listen on")
    add("--public-host", help="the host name in returned URLs, if not --host")
    add("--port", type=int, default=0, help="of the API; 0: any free one")
    add("--storage-port", type=int, default=0, help="of the storage")
    add("--cdn-port", type=int, default=0, help="of the CDN")
    add("--tls-certificate", type=Path, metavar="PEM", help="serve https")
    add("--tls-key", type=Path, metavar="PEM", help="its key")
    add("--access-key", default=default.access_key, help="the app access key (HMS_ACCESS_KEY)")
    add("--secret", default=default.secret, help="the app secret (HMS_SECRET)")
    add(
        "--last-page",
        type=LastPage,
        choices=list(LastPage),
        default=default.last_page.value,
        help="how the listing ends",
    )
    add("--order", type=Order, choices=list(Order), default=default.order.value, help="of the listing")
    add(
        "--flavour", type=Flavour, choices=list(Flavour), default=default.flavour.value, help="of the storage"
    )
    add("--retention-days", type=float, default=15, help="after which files are deleted")
    add("--hide-expired", action="store_true", help="do not list assets whose files are gone")
    add("--count", type=int, default=default.count, help="assets of the set `many`")
    add("--size-bytes", type=int, default=default.size_bytes, help="of the file of the set `large`")
    add("--layers", type=int, default=default.layers, help="of the sets `tree` and `zip-tree`")
    add("--segments", type=int, default=default.segments, help="of each layer")
    add("--segment-bytes", type=int, default=default.segment_bytes, help="of each segment")
    add("--chaos-rate", type=float, default=0.0, help="the share of requests with a random fault, 0 to 1")
    add("--chaos-seed", type=int, help="to repeat the same faults")
    add(
        "--session-peers",
        type=SessionPeers,
        choices=list(SessionPeers),
        default=default.session_peers.value,
        help="how a session names its peers",
    )
    add("--webhook-url", help="where to POST events")
    add("--webhook-header", default=default.webhook_header, help="the header that carries the secret")
    add("--webhook-secret", default=default.webhook_secret, help="its value")
    add(
        "--webhook-retries",
        type=int,
        default=default.webhook_retries,
        help="of an event that is not taken, 0 to 3",
    )
    add("--access-log", action="store_true", help="a line for each request on stderr")
    add(
        "--until-stdin-closes",
        action="store_true",
        help="exit when stdin closes, so that it cannot outlive its parent",
    )
    chosen = vars(parser.parse_args(argv))
    if bool(chosen["tls_certificate"]) != bool(chosen["tls_key"]):
        parser.error("--tls-certificate and --tls-key belong together")
    return SimulatorConfig(
        set_name=chosen.pop("set"),
        state_dir=chosen.pop("state"),
        retention=timedelta(days=chosen.pop("retention_days")),
        lists_expired=not chosen.pop("hide_expired"),
        **chosen,
    )


if __name__ == "__main__":
    sys.exit(main())
