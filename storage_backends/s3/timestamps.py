"""Read the times in botocore's responses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import botocore.utils


def parse_timestamp(value: Any) -> datetime:
    """Do what botocore does, which takes 50 times as long for the usual form: most of the CPU of listing a bucket."""
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return botocore.utils.parse_timestamp(value)
    return moment if moment.tzinfo is not None else botocore.utils.parse_timestamp(value)
