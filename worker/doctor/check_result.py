"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """`remedy`: how to fix it; for all but OK."""

    subject: str
    verdict: Verdict
    detail: str
    remedy: str = ""
