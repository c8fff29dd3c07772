"""The CDN in front of the bucket, with three kinds of authorization for children of a playlist."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from archiver.simulator.endpoints.serving import answer, answer_xml, serve
from archiver.simulator.endpoints.storage import REDIRECT
from archiver.simulator.recordings.assets import HMS_BUCKET, Asset, Delivery
from archiver.simulator.recordings.catalogue import Found
from archiver.simulator.signing import CDN_NAMES, COOKIE_PREFIX, SignatureVerdict, cookies_of
from archiver.simulator.workspace import Workspace

# The longest default lifetime of 100ms's own URLs, and of a master's cookies.
_COOKIE_SECONDS = 3 * 24 * 3600


class Cdn:
    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await answer_xml(405, "MethodNotAllowed", "The specified method is not allowed", scope, send)
            return
        path = str(scope["path"])
        redirected = path.startswith(f"{REDIRECT}/")
        found = self._workspace.find(f"/{HMS_BUCKET}{path.removeprefix(REDIRECT) if redirected else path}")
        if redirected and found is not None and found.name != found.asset.main:
            found = None
        if found is None or not _published(found):
            # CloudFront does not reveal which keys exist.
            await answer_xml(404 if found is None else 403, "AccessDenied", "Access Denied", scope, send)
            return
        if self._verdict(found.asset, path.removeprefix(REDIRECT), scope) is not SignatureVerdict.GOOD:
            await answer_xml(403, "AccessDenied", "Access Denied", scope, send)
            return
        if redirected:
            await answer(302, b"", [("location", self._target(found.asset, scope))], scope, send)
            return
        await serve(found.content, found.key, self._headers(found), scope, send)

    def _verdict(self, asset: Asset, path: str, scope: Scope) -> SignatureVerdict:
        if asset.delivery in (Delivery.CDN_RELATIVE, Delivery.SIGNED):
            return SignatureVerdict.GOOD
        query = dict(parse_qsl(bytes(scope["query_string"]).decode("latin-1"), keep_blank_values=True))
        values: Mapping[str, str] = query
        if asset.delivery is Delivery.CDN_COOKIES and not any(name in query for name in CDN_NAMES):
            values = cookies_of(Headers(scope=scope).get("cookie", ""))
        url = f"{self._workspace.origins.cdn}{path}"
        return self._workspace.signer.check_folder(url, values, self._workspace.clock.storage_seconds())

    def _target(self, asset: Asset, scope: Scope) -> str:
        target = self._workspace.redirect_target(asset)
        query = bytes(scope["query_string"]).decode("latin-1")
        return f"{target}?{query}" if query and asset.redirect == "here" else target

    def _headers(self, found: Found) -> list[tuple[str, str]]:
        headers = [
            ("server", "CloudFront"),
            ("x-cache", "Hit from cloudfront"),
            ("access-control-allow-origin", "*"),
        ]
        if found.asset.delivery is Delivery.CDN_COOKIES and found.name == found.asset.main:
            folder = f"/{found.asset.main_folder}"
            now = self._workspace.clock.storage_seconds()
            values = self._workspace.signer.sign_folder(
                f"{self._workspace.origins.cdn}{folder}*", now, _COOKIE_SECONDS
            )
            for name, value in values.items():
                headers.append(("set-cookie", f"{COOKIE_PREFIX}{name}={value}; Path={folder}; HttpOnly"))
        return headers


def _published(found: Found) -> bool:
    """Tell whether the CDN serves a file: the folder of a master, and targets of redirects. A thumbnail elsewhere needs
    its own signature."""
    asset = found.asset
    behind_cdn = asset.delivery is not Delivery.SIGNED or asset.redirect == "elsewhere"
    return behind_cdn and found.key.startswith(asset.main_folder)
