from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.logs.escaping import escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 世界 🎬", "Grüße, 世界 🎬"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\u2028\u202egpj.exe", r"\u2028\u202egpj.exe"),
        ("\ud83c", r"\ud83c"),
        ("\x00\x7f", r"\x00\x7f"),
    ],
)
def test_what_would_act_on_a_terminal_is_shown_as_python_writes_it(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert escaped(shown) == shown


@given(st.text())
def test_nothing_active_is_left_in_any_text(text: str) -> None:
    shown = escaped(text)

    assert shown.splitlines() in ([], [shown])
    assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cs", "Zl", "Zp"}
