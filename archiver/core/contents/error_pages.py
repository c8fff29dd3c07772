"""Recognise error pages that a server sends with status 200 in place of a file.

Type, size and first bytes count together. What only resembles an error page may be the file itself (a transcript in
HTML, a summary whose JSON says "message"), and is stored with a doubt in the end."""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

from archiver.core.contents import texts
from archiver.transfer.base import CHECKED_BYTES, SourceInfo

MAX_ERROR_PAGE_BYTES = 1024 * 1024
"""Error and login pages are smaller, even with inline scripts and images; anything larger is a document."""

_MAX_MESSAGE_CHARACTERS = 500  # longer texts may be prose rather than an error message

_ERROR_TYPES = frozenset(
    {"", "text/html", "application/xhtml+xml", "application/xml", "text/xml", "application/json", "text/json"}
    | {"application/problem+json", "application/problem+xml", "text/plain"}
)
_PROBLEM_TYPES = frozenset({"application/problem+json", "application/problem+xml"})  # RFC 9457
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})

_HTML = re.compile(r"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_PART_OF_HTML = re.compile(r"<(?:title|meta|script|style|center|h[1-6]|p|div)\b", re.IGNORECASE)
_XML_ERROR = re.compile(r"<(?:Error|ErrorResponse)[\s/>]", re.IGNORECASE)
_JSON_ERROR_THAT_IS_CUT = re.compile(
    r'\s*\{\s*"errors?"\s*:(?!\s*(?:null|false|""|\[\s*\]|\{\s*\}))', re.IGNORECASE
)

# Keys in lower case, without `_`, `-` and blanks.
_ERRORS = frozenset(
    {
        "error",
        "errors",
        "err",
        "fault",
        "exception",
        "errorcode",
        "errormessage",
        "errormsg",
        "errordescription",
    }
)
_MESSAGES = frozenset({"message", "msg", "detail"})
_CODES = frozenset({"code", "status", "statuscode", "httpstatus"})
_BESIDE = frozenset(
    {
        "details",
        "title",
        "type",
        "instance",
        "reason",
        "statustext",
        "success",
        "ok",
        "timestamp",
        "path",
        "method",
    }
    | {
        "requestid",
        "xrequestid",
        "traceid",
        "hostid",
        "errorid",
        "correlationid",
        "resource",
        "retryafter",
        "help",
    }
    | {"documentationurl", "errordetails", "data", "result"}
)
_FAILED = frozenset({"error", "fail", "failed", "failure", "unauthorized", "forbidden"})
_PHRASE = re.compile(
    r"\s*(?:http/\d(?:\.\d)?\s+)?(?:error(?: code)?:?\s*)?(?:[45]\d\d)?[\s:-]*"
    r"(?:bad request|unauthorized|forbidden|access ?denied|(?:page |file |object )?not found|too many requests"
    r"|rate limit(?:ed| exceeded)|internal server error|bad gateway|service (?:temporarily )?unavailable"
    r"|gateway time-?out|request time-?out|no healthy upstream|upstream connect error.*|error code: \d+)[.!]?\s*",
    re.IGNORECASE,
)


class Likeness(Enum):
    """How much a response resembles an error page."""

    NONE = "no error answer"
    PERHAPS = "perhaps an error answer"  # or the file itself: never archived without a doubt
    ERROR = "an error answer"


class _Form(Enum):
    HTML = "an HTML page"
    PART_OF_HTML = "a part of an HTML page"
    XML = "an XML error answer"
    JSON = "a JSON error answer"
    LONG_JSON = "a JSON error answer with much to say"
    PHRASE = "the text of an error answer"


_IF_THE_TYPE_SAYS_SO = frozenset({_Form.PART_OF_HTML})
_NEVER_SURE = frozenset({_Form.LONG_JSON, _Form.PHRASE})


def is_error_page(start: bytes, info: SourceInfo | None, api_size_bytes: int | None = None) -> bool:
    """Tell whether a 200 response that begins with `start` (CHECKED_BYTES, or all if there are fewer) is an error page.
    `info`: what the source said about it; None: only its bytes are known."""
    return likeness(start, info, api_size_bytes) is Likeness.ERROR


def likeness(
    start: bytes, info: SourceInfo | None, api_size_bytes: int | None = None, *, is_media: bool = False
) -> Likeness:
    """Rate a response. `is_media`: audio, video or an image is expected, which no document can be, whatever its
    type."""
    form = _form(start)
    kind = _content_type(info)
    if kind in _PROBLEM_TYPES and _is_document(start):
        form = form or _Form.JSON
    if form is None or (form in _IF_THE_TYPE_SAYS_SO and kind not in _HTML_TYPES):
        return Likeness.NONE
    sizes = _sizes(start, info)
    if form is _Form.PHRASE:
        return Likeness.NONE if api_size_bytes and api_size_bytes in sizes else Likeness.PERHAPS
    if form in _NEVER_SURE or (api_size_bytes and api_size_bytes in sizes):
        return Likeness.PERHAPS
    if max(sizes, default=0) > MAX_ERROR_PAGE_BYTES:
        return Likeness.PERHAPS
    return Likeness.ERROR if is_media or kind in _ERROR_TYPES else Likeness.PERHAPS


def description(start: bytes) -> str | None:
    """Describe the kind of error page it resembles, for messages."""
    form = _form(start)
    return f"what looks like {form.value}" if form else None


def is_html(start: bytes) -> bool:
    return _form(start) is _Form.HTML


def is_large(start: bytes, info: SourceInfo | None) -> bool:
    """Tell whether it is larger than any error page."""
    return max(_sizes(start, info), default=0) > MAX_ERROR_PAGE_BYTES


@lru_cache(maxsize=32)  # the same bytes are looked at when a file is opened and when it is copied
def _form(start: bytes) -> _Form | None:
    if (text := texts.decode(start)) is None:
        return _json_error(start)  # UTF-16 without a byte order mark
    text = texts.after_prolog(text)
    if text.startswith("<"):
        if _HTML.match(text):
            return _Form.HTML
        if _XML_ERROR.match(text):
            return _Form.XML
        return _Form.PART_OF_HTML if _PART_OF_HTML.match(text) else None
    if text.startswith(("{", "[")):
        if len(start) < CHECKED_BYTES:
            return _json_error(start)
        return _Form.LONG_JSON if _JSON_ERROR_THAT_IS_CUT.match(text) else None
    return _Form.PHRASE if len(text) < _MAX_MESSAGE_CHARACTERS and _PHRASE.fullmatch(text) else None


def _is_document(start: bytes) -> bool:
    return (texts.decode(start) or "").lstrip().startswith(("{", "<"))


def _json_error(start: bytes) -> _Form | None:
    """Recognise a JSON error in a complete body."""
    if not start.strip(b"\0 \t\r\n\xef\xbb\xbf\xff\xfe").startswith((b"{", b"[")):
        return None
    try:
        value = texts.parse_json(start)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and len(value) == 1:  # Google's batch answers
        value = value[0]
    if not isinstance(value, dict) or not _is_envelope(value):
        return None
    is_long = any(isinstance(held, str) and len(held) > _MAX_MESSAGE_CHARACTERS for held in value.values())
    return _Form.LONG_JSON if is_long else _Form.JSON


def _is_envelope(value: dict[str, object]) -> bool:
    """Tell whether it reports a failure and nothing else."""
    fields = {
        key.lower().translate({ord(each): None for each in "_- "}): held
        for key, held in value.items()
        if held not in (None, "", [], {})
    }
    if (
        not fields.keys() <= _ERRORS | _MESSAGES | _CODES | _BESIDE
        or fields.get("data")
        or fields.get("result")
    ):
        return False
    return (
        any(fields.get(key) for key in _ERRORS)
        or any(isinstance(fields.get(key), str) for key in _MESSAGES)
        or any(_is_failure(fields.get(key)) for key in _CODES)
        or fields.get("type") == "error"
        or False in (fields.get("success"), fields.get("ok"))
    )


def _is_failure(code: object) -> bool:
    if isinstance(code, str):
        return code.lower() in _FAILED or re.fullmatch(r"[45]\d\d", code) is not None
    return isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600


def _content_type(info: SourceInfo | None) -> str:
    return ((info.content_type if info else None) or "").partition(";")[0].strip().lower()


def _sizes(start: bytes, info: SourceInfo | None) -> set[int]:
    """Return its known lengths, compressed and not."""
    sizes = {info.size_bytes, info.encoded_bytes} if info else set()
    if len(start) < CHECKED_BYTES:
        sizes.add(len(start))
    return {size for size in sizes if size is not None}
