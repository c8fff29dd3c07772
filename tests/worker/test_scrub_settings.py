"""The scrub's settings arrive at the scrub."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from archiver.core.upkeep.scrub_plan import ScrubRules
from worker.bootstrap import build_scrub_rules
from worker.settings import Settings


def rules(**given: Any) -> ScrubRules:
    return build_scrub_rules(Settings(_env_file=None, destinations=("memory://one",), **given))


def test_the_defaults_are_those_of_the_core() -> None:
    assert rules() == ScrubRules()


def test_each_setting_is_used() -> None:
    assert rules(
        scrub_days=90, scrub_full_days=100, scrub_bytes_a_day=2**30, retention_days=7, at_risk_days=2
    ) == ScrubRules(
        every=timedelta(days=90),
        full_every=timedelta(days=100),
        retention=timedelta(days=7),
        bytes_a_day=2**30,
        urgent_within=timedelta(days=2),
    )


@pytest.mark.parametrize("given", [{"scrub_days": 0}, {"scrub_full_days": 0}, {"scrub_bytes_a_day": 1}])
def test_what_would_check_nothing_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="greater than or equal"):
        rules(**given)
