"""The source: ranges of files over keep-alive connections, in two guises.

`/signed/...` is like a pre-signed URL: the query must be there, and a HEAD is refused. `/open/...` answers HEAD and
lists its folders, for tools that need that (rclone's :http:): the harder bar, for their users have no such source.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from benchmarks.content import Body
from benchmarks.server import Connection, Request

TOKEN = "token=2f6c1d"  # noqa: S105 - guards random bytes
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_MODIFIED = "Wed, 01 May 2024 00:00:00 GMT"


class Source:
    def __init__(self, pattern: Path, files: Mapping[str, Body]) -> None:
        """`files` by path, such as `A/0.mp4`."""
        self._fd = os.open(pattern, os.O_RDONLY)
        self._pattern = memoryview(mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ))
        self._files = files
        self._folders: dict[str, list[str]] = {}
        for path in files:
            folder, _, name = path.rpartition("/")
            self._folders.setdefault(folder, []).append(name)
            while "/" in folder:
                folder, _, name = folder.rpartition("/")
                if f"{name}/" not in self._folders.setdefault(folder, []):
                    self._folders[folder].append(f"{name}/")

    def handle(self, connection: Connection, request: Request) -> None:
        connection.pacer.round_trip()
        guise, _, path = unquote(request.path).lstrip("/").partition("/")
        if request.method not in ("GET", "HEAD"):
            return connection.answer("405 Method Not Allowed")
        if guise == "signed" and (request.query != TOKEN or request.method == "HEAD"):
            return connection.answer("403 Forbidden")
        body = self._files.get(path)
        if body is not None:
            return self._file(connection, request, path, body)
        if guise == "open" and path.rstrip("/") in self._folders:
            return self._index(connection, path.rstrip("/"))
        return connection.answer("404 Not Found")

    def _index(self, connection: Connection, folder: str) -> None:
        links = "".join(f'<a href="{name}">{name}</a>\n' for name in self._folders[folder])
        page = f"<html><body><pre>\n{links}</pre></body></html>"
        connection.answer("200 OK", {"Content-Type": "text/html"}, page.encode())

    def _file(self, connection: Connection, request: Request, path: str, body: Body) -> None:
        etag = f'"{abs(hash((path, body.size_bytes))):x}"'
        if request.headers.get("if-match", etag) != etag:
            return connection.answer("412 Precondition Failed")
        start, stop, status = 0, body.size_bytes, "200 OK"
        headers = {
            "ETag": etag,
            "Last-Modified": _MODIFIED,
            "Accept-Ranges": "bytes",
            "Content-Type": _type(path),
        }
        wanted = _RANGE.fullmatch(request.headers.get("range", ""))
        if wanted:
            first, last = wanted.groups()
            if not first:
                start = max(0, body.size_bytes - int(last))
            else:
                start, stop = int(first), min(body.size_bytes, int(last) + 1 if last else body.size_bytes)
            if start >= stop:
                empty = {"Content-Range": f"bytes */{body.size_bytes}"}
                return connection.answer("416 Range Not Satisfiable", empty)
            status = "206 Partial Content"
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{body.size_bytes}"
        head = connection.head(status, {"Content-Length": str(stop - start), **headers})
        if request.method == "HEAD":
            return connection.send(head)
        return self._send(connection, head, body, start, stop)

    def _send(self, connection: Connection, head: bytes, body: Body, start: int, stop: int) -> None:
        pending = head
        for piece in body.part(start, stop):
            if isinstance(piece, bytes):
                pending += piece
                continue
            if pending:
                connection.pacer.pass_on(len(pending))
                connection.send(pending)
                pending = b""
            at, end = piece.offset, piece.offset + piece.size_bytes
            while at < end:
                size = min(connection.pacer.piece_bytes, end - at)
                connection.pacer.pass_on(size)
                if connection.tls:
                    connection.send(self._pattern[at : at + size])
                    at += size
                else:
                    at = self._send_file(connection, at, at + size)
        if pending:
            connection.pacer.pass_on(len(pending))
            connection.send(pending)

    def _send_file(self, connection: Connection, at: int, end: int) -> int:
        socket_fd = connection.sock.fileno()
        while at < end:
            sent = os.sendfile(socket_fd, self._fd, at, end - at)
            if not sent:
                raise ConnectionResetError("the client left")
            at += sent
        return at


def _type(path: str) -> str:
    return {
        "ts": "video/mp2t",
        "m3u8": "application/vnd.apple.mpegurl",
        "mp4": "video/mp4",
        "zip": "application/zip",
    }.get(path.rpartition(".")[2], "application/octet-stream")
