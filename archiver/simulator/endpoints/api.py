"""The 100ms API: listing, one asset, its pre-signed URL; deliveries of webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from archiver.simulator.config import LastPage
from archiver.simulator.endpoints.sessions import session_of
from archiver.simulator.endpoints.tokens import TokenRefused, check_token
from archiver.simulator.endpoints.webhooks import Deliveries
from archiver.simulator.recordings.assets import Asset
from archiver.simulator.recordings.catalogue import Filters, UnknownStart
from archiver.simulator.workspace import Workspace

ASSETS = "/v2/recording-assets"
_FEWEST_ROWS, _MOST_ROWS = 10, 100
_DEFAULT_SECONDS = 3 * 24 * 3600  # on S3 and GCS


class ApiError(Exception):
    def __init__(self, status: int, message: str, *details: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": status, "message": message, "details": list(details)}


class Api:
    def __init__(self, workspace: Workspace, deliveries: Deliveries) -> None:
        self._workspace = workspace
        self._deliveries = deliveries

    def list_assets(self, request: Request) -> Response:
        self._authorize(request)
        limit = self._limit(request.query_params.get("limit"))
        start = request.query_params.get("start") or None
        filters = Filters(
            *(request.query_params.get(name) or None for name in ("room_id", "session_id", "status", "type"))
        )
        try:
            assets, more = self._workspace.catalogue.page(filters, start, limit)
        except UnknownStart:
            raise ApiError(400, "bad request", "start names no recording asset") from None
        return JSONResponse(self._page(assets, limit, more=more))

    def one_asset(self, request: Request) -> Response:
        """Answer `<id>` and `<id>/presigned-url`, by the raw path, since an id may hold an encoded slash."""
        self._authorize(request)
        raw = bytes(request.scope["raw_path"]).partition(b"?")[0].decode("latin-1")
        asset_id, _, action = raw.removeprefix(f"{ASSETS}/").partition("/")
        asset = self._workspace.catalogue.by_id(unquote(asset_id))
        if asset is None or action not in ("", "presigned-url"):
            raise ApiError(404, "recording asset not found", "no such id")
        if not action:
            return JSONResponse(dict(asset.row))
        return JSONResponse(self._signed(asset, request.query_params.get("presign_duration")))

    def list_deliveries(self, request: Request) -> Response:
        """Answer `/analytics/webhooks`: filters `start_time`, `end_time`, `room_id`, `status`, `event_names`; pages by
        number."""
        self._authorize(request)
        asked = request.query_params
        status, names, room_id = (
            asked.get("status", "all"),
            asked.getlist("event_names"),
            asked.get("room_id"),
        )
        now = self._workspace.clock.storage_seconds()
        since = _seconds(asked.get("start_time"), now - 24 * 3600)
        until = _seconds(asked.get("end_time"), now)
        limit, page = _number(asked.get("limit"), 50), _number(asked.get("page"), 1)
        if status not in ("all", "failed", "success") or not 1 <= limit <= _MOST_ROWS:
            raise ApiError(400, "bad request", "status must be all, failed or success; limit 1 to 100")
        if not now - 30 * 24 * 3600 - 60 <= since <= until <= since + 14 * 24 * 3600:
            raise ApiError(400, "bad request", "start_time within 30 days, end_time within 14 days after it")
        found = [
            each
            for each in self._deliveries.ended
            if since <= each.seconds <= until + 1
            and (status == "all" or (status == "failed") == (each.error is not None))
            and (not names or each.event["type"] in names)
            and room_id in (None, each.event["data"]["room_id"])
        ]
        shown = found[(page - 1) * limit : page * limit]
        pages = -(-len(found) // limit)
        url = self._workspace.config.webhook_url or ""
        pagination = {
            "current_page": page,
            "page_size": limit,
            "total_pages": pages,
            "total_items": len(found),
            "has_next": page < pages,
            "has_prev": page > 1,
        }
        return JSONResponse(
            {
                "events": [each.row(url) for each in shown],
                "pagination": pagination,
                "summary": {"total_events": len(found)},
            }
        )

    def one_session(self, request: Request) -> Response:
        """Answer `/sessions/<id>` for each session of an asset."""
        self._authorize(request)
        session_id = str(request.path_params["session_id"])
        assets = self._workspace.catalogue.page(Filters(None, session_id, None, None), None, _MOST_ROWS)[0]
        if not assets:
            raise ApiError(404, "session not found", "no such id")
        return JSONResponse(
            session_of([dict(asset.row) for asset in assets], self._workspace.config.session_peers)
        )

    def one_room(self, request: Request) -> Response:
        self._authorize(request)
        room_id = str(request.path_params["room_id"])
        if not self._workspace.catalogue.page(Filters(room_id, None, None, None), None, _FEWEST_ROWS)[0]:
            raise ApiError(404, "room not found", "no such id")
        return JSONResponse({"id": room_id, "name": f"Room {room_id[:6]}", "enabled": True})

    def _signed(self, asset: Asset, duration: str | None) -> dict[str, Any]:
        if duration is not None and not (duration.isascii() and duration.isdigit() and int(duration) > 0):
            raise ApiError(400, "bad request", "presign_duration must be a positive number of seconds")
        if asset.main is None:
            raise ApiError(404, "recording asset not found", "it has no file")
        seconds = int(duration) if duration else _DEFAULT_SECONDS
        url = self._workspace.url_of(asset, seconds)
        return {"id": asset.id, "path": asset.row["path"], "url": url, "expiry": seconds}

    def _page(self, assets: list[Asset], limit: int, *, more: bool) -> dict[str, Any]:
        rows: list[dict[str, Any]] | None = [dict(asset.row) for asset in assets]
        last: str | None = assets[-1].id if assets else ""
        match self._workspace.config.last_page:
            case LastPage.LAST_NULL if not more:
                last = None
            case LastPage.LAST_EMPTY if not more:
                last = ""
            case LastPage.DATA_NULL if not assets:
                rows = None
            case _:
                pass
        return {"limit": limit, "data": rows, "last": last}

    def _limit(self, text: str | None) -> int:
        if not text:
            return _FEWEST_ROWS
        if not (text.isascii() and text.isdigit() and _FEWEST_ROWS <= int(text) <= _MOST_ROWS):
            raise ApiError(400, "bad request", f"limit must be {_FEWEST_ROWS} to {_MOST_ROWS}")
        return int(text)

    def _authorize(self, request: Request) -> None:
        config = self._workspace.config
        try:
            check_token(
                request.headers.get("authorization"),
                config.access_key,
                config.secret,
                self._workspace.clock.api_seconds(),
            )
        except TokenRefused as refused:
            message = "unauthorized" if refused.status == 401 else "forbidden"
            raise ApiError(refused.status, message, refused.reason) from None


def _seconds(text: str | None, default: float) -> float:
    try:
        return datetime.fromisoformat(text).timestamp() if text else default
    except ValueError:
        raise ApiError(400, "bad request", "times must be RFC 3339") from None


def _number(text: str | None, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ApiError(400, "bad request", "limit and page must be positive numbers")
    return int(text)


def build_api(workspace: Workspace, deliveries: Deliveries) -> Starlette:
    """Build the application of the API's origin, without the control endpoints."""
    api = Api(workspace, deliveries)
    return Starlette(
        routes=[
            Route("/v2/analytics/webhooks", _direct(api.list_deliveries)),
            Route("/v2/sessions/{session_id}", _direct(api.one_session)),
            Route("/v2/rooms/{room_id}", _direct(api.one_room)),
            Route(ASSETS, _direct(api.list_assets)),
            Route(f"{ASSETS}/{{rest:path}}", _direct(api.one_asset)),
        ],
        exception_handlers={
            ApiError: _api_error,
            404: lambda _, __: JSONResponse({"code": 404, "message": "not found", "details": []}, 404),
            405: lambda _, __: JSONResponse(
                {"code": 405, "message": "method not allowed", "details": []}, 405
            ),
        },
    )


def _direct(handler: Any) -> Any:
    # Starlette runs plain functions in threads, which takes longer than these do.
    async def endpoint(request: Request) -> Response:
        response: Response = handler(request)
        return response

    return endpoint


def _api_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return JSONResponse(error.body, error.status)
