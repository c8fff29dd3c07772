"""The storage: `/<bucket>/<key>` with a signature in the query, as S3 answers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import lru_cache

from starlette.types import Receive, Scope, Send

from archiver.simulator.config import Flavour
from archiver.simulator.endpoints.serving import answer, answer_xml, serve
from archiver.simulator.recordings.content import Content, Held, crc32c_of
from archiver.simulator.signing import SignatureVerdict
from archiver.simulator.workspace import Workspace

REDIRECT = "/redirect"
_REFUSALS: Mapping[SignatureVerdict, tuple[str, str]] = {
    SignatureVerdict.MISSING: ("AccessDenied", "Access Denied"),
    SignatureVerdict.EXPIRED: ("AccessDenied", "Request has expired"),
    SignatureVerdict.WRONG: (
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match yours",
    ),
}
# Larger files are not hashed for a header; GCS omits x-goog-hash for some objects too.
_HASHED_BYTES = 64 << 20


class Storage:
    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await answer_xml(405, "MethodNotAllowed", "The specified method is not allowed", scope, send)
            return
        path, query = str(scope["path"]), bytes(scope["query_string"]).decode("latin-1")
        now = self._workspace.clock.storage_seconds()
        verdict = self._workspace.signer.check_path(scope["method"], path, query, now)
        if verdict is not SignatureVerdict.GOOD:
            await answer_xml(403, *_REFUSALS[verdict], scope, send)
            return
        if _has_unsigned_headers(scope):
            await answer_xml(
                403, "AccessDenied", "There were headers present which were not signed", scope, send
            )
            return
        if path.startswith(f"{REDIRECT}/"):
            await self._redirect(path, scope, send)
            return
        found = self._workspace.find(path)
        if found is None:
            await answer_xml(404, "NoSuchKey", "The specified key does not exist.", scope, send)
            return
        await serve(found.content, found.key, self._headers(found.content), scope, send)

    async def _redirect(self, path: str, scope: Scope, send: Send) -> None:
        found = self._workspace.find(path.removeprefix(REDIRECT))
        if found is None or found.asset.redirect is None:
            await answer_xml(404, "NoSuchKey", "The specified key does not exist.", scope, send)
            return
        target = self._workspace.redirect_target(found.asset)
        await answer(302, b"", [("location", target)], scope, send)

    def _headers(self, content: Content) -> list[tuple[str, str]]:
        request_id = self._workspace.request_id()
        if self._workspace.config.flavour is Flavour.S3:
            return [("server", "AmazonS3"), ("x-amz-request-id", request_id)]
        headers = [
            ("server", "UploadServer"),
            ("x-guploader-uploadid", request_id),
            ("x-goog-generation", "1"),
        ]
        if content.size_bytes <= _HASHED_BYTES:
            headers += [("x-goog-hash", value) for value in _goog_hashes(content)]
        return headers


@lru_cache(maxsize=4096)
def _goog_hashes(content: Content) -> tuple[str, ...]:
    crc32c = base64.b64encode(crc32c_of(content).to_bytes(4, "big")).decode()
    if not isinstance(content, Held):
        return (f"crc32c={crc32c}",)
    md5 = base64.b64encode(hashlib.md5(content.data, usedforsecurity=False).digest()).decode()
    return f"crc32c={crc32c}", f"md5={md5}"


def _has_unsigned_headers(scope: Scope) -> bool:
    # S3 refuses a pre-signed request with unsigned x-amz- headers, so a client cannot request checksums.
    return any(name.startswith(b"x-amz-") for name, _ in scope["headers"])
