"""`object_key`: its rules, and that the fast path for plain keys allows nothing that they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_backends.base import _PLAIN_KEY, _check_key, object_key
from storage_backends.errors import InvalidKey

TEXT = st.text(st.sampled_from(list("aZ09_.=-/\\ \0\n\x7fé\u0301\u2028\udc80")), max_size=12) | st.text()


@pytest.mark.parametrize(
    "text",
    [
        "", "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", "../a", "a\\b", "a\nb", "a\n", "a\0", "a\x7f", "e\u0301",
        "a\u2028b", "\udc80", "s" * 256, "a/" + "s" * 256, "é" * 128, "a/" * 512 + "b", "é/" * 342 + "b",
        ".well-known/acme-challenge/a",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_key_that_some_store_would_misread_is_refused(text: str) -> None:
    with pytest.raises(InvalidKey):
        object_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a b",
        "...",
        ".a",
        "_a=b/c-d.ts",
        "s" * 255,
        "é" * 127,
        "a/" * 511 + "bb",
        ".well-known/a",
        "🎬/a+b",
    ],
    ids=ascii,
)
def test_any_other_key_is_as_it_is_written(text: str) -> None:
    assert object_key(text) == text


@given(TEXT | st.from_regex(_PLAIN_KEY))
def test_the_short_way_agrees_with_the_rules(text: str) -> None:
    assert _allows(object_key, text) == _allows(_check_key, text)


def _allows(check: object, text: str) -> bool:
    assert callable(check)
    try:
        check(text)
    except InvalidKey:
        return False
    return True
