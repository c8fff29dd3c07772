"""Route each request to its origin and its fault, and log it."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from archiver.simulator.endpoints.api import ASSETS, build_api
from archiver.simulator.endpoints.cdn import Cdn
from archiver.simulator.endpoints.control import build_control
from archiver.simulator.endpoints.request_log import Request
from archiver.simulator.endpoints.storage import REDIRECT, Storage
from archiver.simulator.endpoints.webhooks import Deliveries
from archiver.simulator.faults.behaviours import FAULTS, Asked, Call
from archiver.simulator.faults.connection import ClientGone, check_client, connection_number
from archiver.simulator.recordings.assets import HMS_BUCKET, Asset
from archiver.simulator.signing import cookies_of, signature_of
from archiver.simulator.workspace import Workspace


class Simulator:
    """An ASGI application for three ports. `ports`: which is `api`, `storage` and `cdn`."""

    def __init__(self, workspace: Workspace, ports: Mapping[int, str]) -> None:
        self._workspace = workspace
        self._ports = ports
        self.deliveries = Deliveries(workspace)
        self._control = build_control(workspace, self.deliveries)
        self._origins: Mapping[str, ASGIApp] = {
            "api": build_api(workspace, self.deliveries),
            "storage": Storage(workspace),
            "cdn": Cdn(workspace),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        on = self._ports[scope["server"][1]]
        dated = self._dated(on, send)
        if on == "api" and (scope["path"] == "/simulator" or scope["path"].startswith("/simulator/")):
            await self._control(scope, receive, dated)
        else:
            await self._answer(on, scope, receive, dated)

    async def _answer(self, on: str, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self._asked(on, scope)
        taken = self._workspace.faults.take(asked)
        status, sent, began = 0, 0, self._workspace.log.now_seconds()

        async def counted(message: Message) -> None:
            nonlocal status, sent
            check_client(scope)
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent += len(message.get("body", b""))

        try:
            if taken is None:
                await self._origins[on](scope, receive, counted)
            else:
                name, args = taken
                call = Call(self._origins[on], scope, receive, counted, asked, self._workspace.faults.revoke)
                await FAULTS[name](call, **args)
        except ClientGone:
            pass
        finally:
            self._workspace.log.add(
                Request(
                    on=on,
                    method=asked.method,
                    path=asked.path,
                    range=asked.range,
                    status=status,
                    bytes=sent,
                    asset=asked.asset_id,
                    fault=None if taken is None else taken[0],
                    seconds=began,
                    took_seconds=self._workspace.log.now_seconds() - began,
                    connection=connection_number(scope),
                )
            )

    def _asked(self, on: str, scope: Scope) -> Asked:
        headers = Headers(scope=scope)
        asset = self._asset(on, scope)
        cookies = cookies_of(headers.get("cookie", ""))
        return Asked(
            on=on,
            method=scope["method"],
            path=scope["path"],
            range=headers.get("range"),
            asset_id=asset.id if asset else None,
            asset_type=str(asset.row["type"]) if asset else None,
            signature=signature_of(bytes(scope["query_string"]).decode("latin-1"), cookies)
            if on != "api"
            else None,
        )

    def _asset(self, on: str, scope: Scope) -> Asset | None:
        if on == "api":
            raw = bytes(scope["raw_path"]).decode("latin-1").removeprefix(f"{ASSETS}/")
            return self._workspace.catalogue.by_id(unquote(raw.partition("/")[0]))
        path = str(scope["path"]).removeprefix(REDIRECT)
        found = self._workspace.find(path if on == "storage" else f"/{HMS_BUCKET}{path}")
        return found.asset if found else None

    def _dated(self, on: str, send: Send) -> Send:
        clock = self._workspace.clock

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                now = clock.api_seconds() if on == "api" else clock.storage_seconds()
                date = (b"date", formatdate(now, usegmt=True).encode())
                message = {**message, "headers": [*message["headers"], date]}
            await send(message)

        return dated


def build_app(workspace: Workspace, ports: Mapping[int, str]) -> Simulator:
    """Build the application. Set `workspace.origins` before the first request."""
    return Simulator(workspace, ports)
