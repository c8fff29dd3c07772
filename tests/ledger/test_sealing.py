from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from archiver.ledger.sealing import Seal


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_sealed_comes_back(text: str) -> None:
    seal = Seal(SecretStr("one"))

    assert seal.unseal(seal.seal(text)) == text


def test_every_process_with_the_same_secret_unseals_it() -> None:
    assert Seal(SecretStr("one")).unseal(Seal(SecretStr("one")).seal("token")) == "token"


def test_under_another_secret_it_is_nothing() -> None:
    assert Seal(SecretStr("two")).unseal(Seal(SecretStr("one")).seal("token")) is None


@pytest.mark.parametrize("text", ["", "token", "gAAAAAB", "ä"])
def test_what_was_never_sealed_is_nothing(text: str) -> None:
    assert Seal(SecretStr("one")).unseal(text) is None


def test_what_was_tampered_with_is_nothing() -> None:
    sealed = Seal(SecretStr("one")).seal("token")

    assert Seal(SecretStr("one")).unseal(sealed[:-6] + "AAAA==") is None


def test_the_text_cannot_be_seen_in_what_is_sealed_nor_twice_the_same() -> None:
    seal = Seal(SecretStr("one"))

    assert "token" not in seal.seal("token")
    assert seal.seal("token") != seal.seal("token")


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Seal(SecretStr(""))
