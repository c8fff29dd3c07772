"""Every setting: its name, unit, default and the reason for the default. One file per group.

Read from the environment and `.env` once, by the wiring. Imports only defaults and checks from below `worker`.
"""

from __future__ import annotations

from worker.settings.destinations import VodZip
from worker.settings.loading import load_settings
from worker.settings.model import Settings, variables

__all__ = ["Settings", "VodZip", "load_settings", "variables"]
