"""Read the bodies of the API's responses. Odd values in single fields are tolerated (`hms.models`); a body that is not
what the API documents raises HmsInvalidResponse."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr, ValidationError

from archiver.hms.connections import Answer
from archiver.hms.errors import HmsInvalidResponse
from archiver.hms.models import Asset, Page, SignedUrl

PAGE_ROWS = 100  # the most the API gives: a tenth of the requests of its default
LIST = "/recording-assets"

_JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+(\.[\w-]*)?")
_QUERY = re.compile(r"(?<=\S)\?\S+")


def asset_path(asset_id: str) -> str:
    """Return the path of an asset, percent-encoded (RFC 3986, section 2.1). Dots too: the id `..` must not be
    removed as a dot segment (section 5.2.4)."""
    return f"{LIST}/{quote(asset_id, safe='', errors='replace').replace('.', '%2E')}"


def endpoint(path: str) -> str:
    """Name a request for messages, without its query."""
    return f"100ms API, GET {path[:200]}"


def json_object(body: bytes, asked: str, answer: Answer) -> Mapping[str, Any]:
    """Return the JSON object of a 200 response."""
    try:
        # NaN is not JSON (RFC 8259, section 6), but one odd number must not hide an asset
        value = json.loads(body, parse_constant=lambda _: None)
        if b"\\ud" in body or b"\\uD" in body:  # replace half surrogate pairs: they cannot be encoded
            value = json.loads(
                json.dumps(value, ensure_ascii=False)
                .encode("utf-16", "surrogatepass")
                .decode("utf-16", "replace")
            )
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    kind = "an HTML page" if is_html(body) else f"{len(body)} bytes that are not a JSON object"
    raise HmsInvalidResponse(
        f"{asked}: answered 200 with {kind} ({(answer.headers.get('content-type') or 'no content type')[:80]})"
    )


def read_page(body: Mapping[str, Any]) -> tuple[Page, bool]:
    """Return the page, and whether it is full. A missing `data` beside `last` or `limit` counts as null: encoders that
    omit empty fields are common."""
    rows = body.get("data")
    last = body.get("last")
    if not body.keys() & {"data", "last", "limit"}:
        raise HmsInvalidResponse(f"{endpoint(LIST)}: answered 200 without `data`")
    if not isinstance(rows, list | None) or not isinstance(last, str | None):
        raise HmsInvalidResponse(
            f"{endpoint(LIST)}: answered 200 with a `data` that is not a list or a `last` that is not text"
        )
    rows = rows or []
    limit = body.get("limit")
    limit = limit if isinstance(limit, int) and 1 <= limit <= PAGE_ROWS else PAGE_ROWS
    assets = []
    for row in rows:
        try:
            assets.append(Asset.parse(row))
        except (ValidationError, TypeError):  # TypeError: the row is not an object
            continue
    page = Page(
        assets=tuple(assets),
        next_start=last or None,
        invalid_rows=len(rows) - len(assets),
    )
    return page, len(rows) >= limit


def read_asset(body: Mapping[str, Any], asset_id: str) -> Asset:
    if body.get("id") == asset_id:
        try:
            return Asset.parse(body)
        except ValidationError:
            pass
    raise HmsInvalidResponse(f"{endpoint(asset_path(asset_id))}: answered 200 without this asset's `id`")


def read_signed_url(body: Mapping[str, Any], asset_id: str) -> SignedUrl:
    url = body.get("url")
    if isinstance(url, str) and url.strip() and body.get("id") in (asset_id, "", None):
        return SignedUrl.model_validate(body)
    what = "the URL of another asset" if isinstance(url, str) and url.strip() else "no `url`"
    raise HmsInvalidResponse(f"{endpoint(asset_path(asset_id))}/presigned-url: answered 200 with {what}")


def error_text(answer: Answer, body: bytes, token: SecretStr) -> str:
    """Return the API's explanation of an error: the documented `message` and `details`, and the request id. One short
    line, without our token or the query of any URL."""
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        error = None
    parts: list[object] = []
    if isinstance(error, dict):
        details = error.get("details")
        parts += [error.get("message"), *(details if isinstance(details, list) else [])]
    elif is_html(body):
        parts.append("an HTML page")
    if request_id := answer.headers.get("x-request-id"):
        parts.append(f"request id {request_id}")
    text = "; ".join(part for part in parts if isinstance(part, str) and part)
    text = text.replace(token.get_secret_value(), "[token]")
    text = _QUERY.sub("?[query]", _JWT.sub("[token]", text))
    text = "".join(c if c.isprintable() else " " for c in text)
    return f" ({text[:300]})" if text else ""


def is_html(body: bytes) -> bool:
    """Tell an HTML page, as proxies and wrong addresses send, from the API's JSON."""
    return body[:512].lstrip().startswith(b"<")
