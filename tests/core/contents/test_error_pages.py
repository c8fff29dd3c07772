"""Error answers with status 200 are told by type, size and first bytes together: none is taken for a file, and no
file is refused for ever because it resembles one."""

from __future__ import annotations

import json

import pytest

from archiver.core.contents.error_pages import MAX_ERROR_PAGE_BYTES, Likeness, is_error_page, likeness
from archiver.transfer.base import CHECKED_BYTES, SourceInfo

HTML = b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"
S3 = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


def info(content_type: str | None, size: int | None, encoded: int | None = None) -> SourceInfo:
    return SourceInfo(size_bytes=size, ranges=False, content_type=content_type, encoded_bytes=encoded)


ERRORS = [
    ("an HTML page", HTML, "text/html"),
    ("an HTML page in capitals", b"<HTML><HEAD><TITLE>Error</TITLE>", "text/html; charset=iso-8859-1"),
    ("an HTML page behind a mark, blanks and comments", b"\xef\xbb\xbf\r\n <!-- a --><!-- <b> -->" + HTML, "text/html"),
    ("an HTML page in UTF-16", HTML.decode().encode("utf-16"), "text/html"),
    ("XHTML", b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C"><html/>', "application/xhtml+xml"),
    ("an HTML page without a type", HTML, None),
    ("an HTML page called plain text", HTML, "text/plain"),
    ("a part of an HTML page", b"<center><h1>503</h1></center>", "text/html"),
    ("the XML of S3", S3, "application/xml"),
    ("the XML of S3 without a declaration", b"<Error><Code>NoSuchKey</Code></Error>", "text/xml"),
    ("the XML of AWS", b"<ErrorResponse xmlns='x'><Error/></ErrorResponse>", "text/xml"),
    ("error", b'{"error":"AccessDenied","code":403}', "application/json"),
    ("an error in an error", b'{"error": {"code": 401, "message": "no", "errors": []}}', "application/json; charset=x"),
    ("errors", b'{"errors":[{"message":"no"}],"data":null}', "application/json"),
    ("100ms's error", b'{"code":404,"message":"not found","details":["asset"]}', "application/json"),
    ("a message alone", b'{"message": "rate limited"}', "application/json"),
    ("a detail alone", b'{"detail":"Not Found"}', "application/json"),
    ("AWS's message", b'{"Message":"User is not authorized"}', "application/json"),
    ("a problem", b'{"type":"about:blank","title":"Gone","status":410}', "application/problem+json"),
    ("a problem with members of its own", b'{"balance": 30, "accounts": ["/a"]}', "application/problem+json"),
    ("no success", b'{"success":false,"data":{},"error_message":"expired"}', "application/json"),
    ("no success and nothing else", b'{"success": false}', "application/json"),
    ("a status", b'{"status": "error", "reason": "expired"}', "application/json"),
    ("a status code", b'{"statusCode": 503}', "application/json"),
    ("a batch of one", b'[{"error":{"code":403}}]', "application/json"),
    ("JSON called plain text", b'\n{"error":"x"}', "text/plain"),
    ("JSON in UTF-16", '{"error":"x"}'.encode("utf-16"), "application/json"),
    ("JSON in UTF-16 without a mark", '{"error":"x"}'.encode("utf-16-le"), "application/json"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "body", "kind"), ERRORS, ids=[each[0] for each in ERRORS])
def test_an_error_page_is_recognised(line: str, body: bytes, kind: str | None) -> None:
    assert is_error_page(body, info(kind, len(body)))
    assert is_error_page(body, info(kind, None)), "of a length that is not known"
    assert is_error_page(body, info(kind, len(body)), api_size_bytes=len(body) + 1)
    assert is_error_page(body, info(kind, len(body)), api_size_bytes=0)


@pytest.mark.parametrize(("line", "body", "kind"), ERRORS, ids=[each[0] for each in ERRORS])
def test_an_error_answer_of_exactly_the_size_of_the_file_is_perhaps_the_file(
    line: str, body: bytes, kind: str | None
) -> None:
    assert likeness(body, info(kind, len(body)), len(body)) is Likeness.PERHAPS
    assert likeness(body, info(kind, None, encoded=77), 77) is Likeness.PERHAPS


FILES = [
    ("TTML captions", b'<?xml version="1.0"?><tt xmlns="http://www.w3.org/ns/ttml"><body/></tt>', "application/xml"),
    ("XML of another root", b"<transcript><error>hm</error></transcript>", "text/xml"),
    ("XML whose root only begins so", b"<Errors-and-omissions/>", "text/xml"),
    ("text that begins as a comment", b"<!-- from the meeting --> we said <b>hello</b>", "text/html"),
    ("text that begins as a tag", b"<headline> Breaking: ...", "text/html"),
    ("a picture", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "text/html"),
    ("Markdown", b"# Summary\n\n* **error** handling was discussed", "text/html"),
    ("a list in Markdown", b"[x] 404 page is done", "text/plain"),
    ("a chat", b"SenderPeerID,Message\n1,error", "text/plain"),
    ("a summary", b'{"summary": "...", "error": "the demo failed"}', "application/json"),
    ("a summary with an empty error", b'{"error": null, "sections": []}', "application/json"),
    ("a summary that had no error", b'{"code": 200, "errors": [], "message": null}', "application/json"),
    ("an error deep inside", b'{"sections": [{"error": {"code": 403, "message": "x"}}]}', "application/json"),
    ("a success", b'{"success": true, "data": {"text": "hello"}}', "application/json"),
    ("an answer that has data", b'{"message": "ok", "data": {"text": "hello"}}', "application/json"),
    ("several results", b'[{"error": "x"}, {"text": "hello"}]', "application/json"),
    ("JSON that is none", b'{"error": oops', "application/json"),
    ("a list that is too deep for us", b"[" * 4000, "application/json"),
    ("nothing", b"", "text/html"),
    ("binary data", b"\0\0\0\x18ftypmp42", "text/html"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "body", "kind"), FILES, ids=[each[0] for each in FILES])
def test_a_file_is_no_error_answer_whatever_its_type(line: str, body: bytes, kind: str) -> None:
    assert likeness(body, info(kind, len(body))) is Likeness.NONE


@pytest.mark.parametrize("known", [{"size": MAX_ERROR_PAGE_BYTES + 1}, {"size": None, "encoded": 50_000_000}])
def test_a_document_that_is_larger_than_error_pages_are_is_perhaps_the_file(
    known: dict[str, int | None],
) -> None:
    page = (HTML * 100)[:CHECKED_BYTES]

    assert likeness(page, info("text/html", known["size"], known.get("encoded"))) is Likeness.PERHAPS
    assert likeness(page, info("text/html", MAX_ERROR_PAGE_BYTES)) is Likeness.ERROR


@pytest.mark.parametrize("kind", ["application/octet-stream", "binary/octet-stream", "text/csv", "video/mp4"])
@pytest.mark.parametrize("body", [HTML, S3, b'{"error": "x"}'])
def test_a_type_that_errors_do_not_have_makes_it_perhaps_the_file_unless_media_should_be_there(
    body: bytes, kind: str
) -> None:
    assert likeness(body, info(kind, len(body))) is Likeness.PERHAPS
    assert likeness(body, info(kind, len(body)), is_media=True) is Likeness.ERROR


@pytest.mark.parametrize(
    "text",
    [
        "404 page not found\n",  # Go
        "Forbidden",
        "Access denied.",
        "HTTP/1.1 503 Service Unavailable",
        "no healthy upstream",  # Envoy
        "upstream connect error or disconnect/reset before headers. reset reason: overflow",
        "error code: 1015",  # Cloudflare
        "Too Many Requests",
    ],
)
def test_the_usual_words_of_an_error_are_perhaps_what_was_said(text: str) -> None:
    body = text.encode()

    assert likeness(body, info("text/plain", len(body))) is Likeness.PERHAPS
    assert likeness(body, info("text/plain", len(body)), api_size_bytes=len(body)) is Likeness.NONE
    assert likeness(b"Ann: " + body, info("text/plain", len(body) + 5)) is Likeness.NONE


def test_a_message_of_prose_is_perhaps_a_summary() -> None:
    body = json.dumps({"message": "In this meeting " * 100}).encode()

    assert likeness(body, info("application/json", len(body))) is Likeness.PERHAPS


def test_the_beginning_of_a_long_json_error_is_perhaps_one() -> None:
    start = json.dumps({"error": {"stack": "at line 1\n" * 1000}}).encode()[:CHECKED_BYTES]
    fine = json.dumps({"errors": [], "text": "hello " * 1000}).encode()[:CHECKED_BYTES]

    assert likeness(start, info("application/json", 11_000)) is Likeness.PERHAPS
    assert likeness(fine, info("application/json", 11_000)) is Likeness.NONE


def test_bytes_of_which_nothing_else_is_known_are_judged_alone() -> None:
    assert is_error_page(HTML, None)
    assert not is_error_page(b"hello", None)
    assert not is_error_page(HTML, None, api_size_bytes=len(HTML))
