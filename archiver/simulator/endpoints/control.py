"""`/simulator/...`: control of the simulator, for tests and people. Needs no token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from archiver.simulator.config import OWN_BUCKET
from archiver.simulator.endpoints.truth import truth_of
from archiver.simulator.endpoints.webhooks import Deliveries, event_of
from archiver.simulator.faults.plan import Match
from archiver.simulator.recordings.assets import Asset
from archiver.simulator.workspace import Workspace


class Control:
    def __init__(self, workspace: Workspace, deliveries: Deliveries) -> None:
        self._workspace = workspace
        self._deliveries = deliveries

    async def state(self, _: Request) -> Response:
        config = self._workspace.config
        return JSONResponse(
            {
                "set": config.set_name,
                "assets": len(self._workspace.catalogue),
                "chaos_seed": self._workspace.faults.chaos_seed,
                "chaos_rate": config.chaos_rate,
                "clock": self._clock(),
                "own_paths": f"s3://{OWN_BUCKET}/",
            }
        )

    async def assets(self, request: Request) -> Response:
        """Return the truth about `?asset=<id>`, or about all; `?checksums=no` reads no file."""
        checksums = request.query_params.get("checksums") != "no"
        asset_id = request.query_params.get("asset")
        chosen = list(self._workspace.catalogue) if asset_id is None else [self._known(asset_id)]
        # Digests of large files take seconds, during which the simulator must keep serving.
        truths = await asyncio.to_thread(
            lambda: [truth_of(self._workspace, asset, checksums=checksums) for asset in chosen]
        )
        return JSONResponse({"own_paths": f"s3://{OWN_BUCKET}/", "assets": truths})

    async def add_asset(self, request: Request) -> Response:
        """Add `{kind, age_seconds, options, row}`; return its truth, without checksums."""
        body = await _body(request, {"kind", "age_seconds", "options", "row"})
        asset = self._workspace.add(
            str(body.get("kind", "composite")),
            float(body.get("age_seconds", 0)),
            body.get("options") or {},
            body.get("row") or {},
        )
        self._deliveries.send(asset)
        return JSONResponse(truth_of(self._workspace, asset, checksums=False), 201)

    async def content(self, request: Request) -> Response:
        """Return the bytes of `?asset=<id>&path=<path>`, a path of the truth's objects, without a signature."""
        asset = self._known(request.query_params.get("asset", ""))
        content = asset.whole.get(request.query_params.get("path", ""))
        if content is None:
            raise ValueError("the asset has no such path")

        async def pieces() -> AsyncIterator[bytes]:
            for piece in content.read(0, content.size_bytes):
                yield piece

        return StreamingResponse(pieces(), headers={"content-length": str(content.size_bytes)})

    async def faults(self, _: Request) -> Response:
        return JSONResponse([asdict(fault) for fault in self._workspace.faults.all()])

    async def add_fault(self, request: Request) -> Response:
        """Add `{fault, match: {on, path, asset, type, method}, times, skip, args}`; `times` null: until cleared."""
        body = await _body(request, {"fault", "match", "times", "skip", "args"})
        try:
            match = Match(**(body.get("match") or {}))
        except TypeError as error:
            raise ValueError(f"match: {error}") from error
        times = body.get("times", 1)
        fault = self._workspace.faults.add(
            str(body.get("fault")),
            match,
            None if times is None else int(times),
            int(body.get("skip", 0)),
            body.get("args") or {},
        )
        return JSONResponse(asdict(fault), 201)

    async def clear_faults(self, _: Request) -> Response:
        self._workspace.faults.clear()
        return Response(status_code=204)

    async def requests(self, request: Request) -> Response:
        """Return the request log; `?rows=no` for totals only."""
        rows = [] if request.query_params.get("rows") == "no" else list(self._workspace.log.rows())
        return JSONResponse({"totals": self._workspace.log.totals(), "requests": rows})

    async def clear_requests(self, _: Request) -> Response:
        self._workspace.log.clear()
        return Response(status_code=204)

    async def clock(self, _: Request) -> Response:
        return JSONResponse(self._clock())

    async def set_clock(self, request: Request) -> Response:
        """Set `{shift_seconds}` of retention and URL expiry, `{api_skew_seconds}` of the API's clock."""
        body = await _body(request, {"shift_seconds", "api_skew_seconds"})
        if "shift_seconds" in body:
            self._workspace.shift_clock(timedelta(seconds=float(body["shift_seconds"])))
        if "api_skew_seconds" in body:
            self._workspace.clock.api_skew = timedelta(seconds=float(body["api_skew_seconds"]))
        return JSONResponse(self._clock())

    async def webhooks(self, _: Request) -> Response:
        """Return every asset's event, signed now, and the receiver's responses."""
        events = [event_of(self._workspace, asset) for asset in self._workspace.catalogue]
        return JSONResponse(
            [
                {"event": event, "answers": self._deliveries.answers.get(str(event["id"]), [])}
                for event in events
                if event is not None
            ]
        )

    def _known(self, asset_id: str) -> Asset:
        asset = self._workspace.catalogue.by_id(asset_id)
        if asset is None:
            raise ValueError(f"no asset {asset_id!r}")
        return asset

    def _clock(self) -> dict[str, float]:
        clock = self._workspace.clock
        return {
            "shift_seconds": clock.shift.total_seconds(),
            "api_skew_seconds": clock.api_skew.total_seconds(),
            "storage_seconds": clock.storage_seconds(),
            "api_seconds": clock.api_seconds(),
        }


def build_control(workspace: Workspace, deliveries: Deliveries) -> Starlette:
    control = Control(workspace, deliveries)
    return Starlette(
        routes=[
            Route("/simulator", control.state),
            Route("/simulator/assets", control.assets, methods=["GET"]),
            Route("/simulator/assets", control.add_asset, methods=["POST"]),
            Route("/simulator/content", control.content),
            Route("/simulator/faults", control.faults, methods=["GET"]),
            Route("/simulator/faults", control.add_fault, methods=["POST"]),
            Route("/simulator/faults", control.clear_faults, methods=["DELETE"]),
            Route("/simulator/requests", control.requests, methods=["GET"]),
            Route("/simulator/requests", control.clear_requests, methods=["DELETE"]),
            Route("/simulator/clock", control.clock, methods=["GET"]),
            Route("/simulator/clock", control.set_clock, methods=["POST"]),
            Route("/simulator/webhooks", control.webhooks),
        ],
        exception_handlers={ValueError: _bad_request},
    )


async def _body(request: Request, known: set[str]) -> dict[str, Any]:
    body = await request.json()
    if not isinstance(body, dict) or body.keys() - known:
        raise ValueError(f"expected a JSON object with any of {sorted(known)}")
    return body


def _bad_request(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)
