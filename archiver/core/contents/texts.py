"""Recognise text in the first bytes of a file: encoding, JSON, markup or binary data."""

from __future__ import annotations

import codecs
import json
import re

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is a prefix of it
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LONGEST_TOKEN = 12  # a literal or escape that the end cuts, where the decoder reports an error

_PROLOG = re.compile(r"(?:\s+|<\?xml[^>]*\?>|<!--.*?-->)*", re.DOTALL | re.IGNORECASE)
_MARKUP = re.compile(r"<(?:\?xml|!doctype|html|head|body|script|svg|tt)\b|<\w+[^>]*\sxmlns", re.IGNORECASE)


def decode(start: bytes) -> str | None:
    """Return the text without its byte order mark; None for binary data. Without a mark it is read as UTF-8, with
    U+FFFD for invalid bytes (other 8-bit encodings cannot be told apart)."""
    text = _decode(start, _encoding(start) or "utf-8")
    return None if "\0" in text else text


def after_prolog(text: str) -> str:
    """Strip leading blanks, comments and the XML declaration."""
    return text[_PROLOG.match(text).end() :]  # type: ignore[union-attr]  # it matches nothing, too


def is_markup(start: bytes) -> bool:
    """Tell whether a browser might render it as HTML, SVG or XML."""
    if start.lstrip()[:1] != b"<" and _encoding(start) is None:
        return False
    text = decode(start) or ""
    return any(_MARKUP.match(each) for each in (text.lstrip(), after_prolog(text)))


def parse_json(start: bytes) -> object:
    """Parse a complete JSON text in UTF-8, UTF-16 or UTF-32. Raises ValueError, RecursionError."""
    return json.loads(_decode(start, _encoding(start) or json.detect_encoding(start)), strict=False)


def begins_as_json(start: bytes, *, is_whole: bool) -> bool:
    """Tell whether it is JSON or JSON Lines, or unless `is_whole` the first bytes of such."""
    text = _decode(start, _encoding(start) or json.detect_encoding(start))
    decoder = json.JSONDecoder(strict=False)
    at = len(text) - len(text.lstrip())
    if at == len(text) or "\0" in text:
        return False
    while at < len(text):
        begins = text[at]
        try:
            _, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            is_cut = error.msg.startswith("Unterminated string") or error.pos >= len(text) - _LONGEST_TOKEN
            return not is_whole and is_cut
        except RecursionError:
            return True
        rest = text[at:].lstrip()
        at = len(text) - len(rest)
        if rest and not (
            begins in "{[" and rest[0] == begins
        ):  # a number and prose, but not two lines of JSON
            return False
    return True


def begins_as_one_value(start: bytes) -> bool:
    """Tell whether it is one JSON value or the first bytes of one, not JSON Lines."""
    text = _decode(start, _encoding(start) or json.detect_encoding(start)).strip()
    try:
        _, end = json.JSONDecoder(strict=False).raw_decode(text)
    except (ValueError, RecursionError):
        return text[:1] in ("{", "[")
    return end == len(text)


def _encoding(start: bytes) -> str | None:
    """Return the encoding of the byte order mark."""
    return next((encoding for mark, encoding in _BOMS if start.startswith(mark)), None)


def _decode(start: bytes, encoding: str) -> str:
    """Decode without the character that the end of `start` cuts."""
    name = "utf-8" if encoding == "utf-8-sig" else encoding
    return codecs.getincrementaldecoder(name)("replace").decode(start).removeprefix("\ufeff")
