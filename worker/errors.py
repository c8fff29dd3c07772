"""Why a command cannot begin. Imports nothing, so that `archiver --help` need not.

├── SettingsError       the environment or `.env` holds something that cannot be used
└── SupervisorError     the set-up on this machine cannot start (worker.embedded.supervisor has its kinds)
"""

from __future__ import annotations


class SettingsError(Exception):
    """Something in the environment or in `.env` cannot be used. The message has a line for each variable: its name,
    what is wrong and what would be right; never the value of a secret."""


class SupervisorError(Exception):
    """The set-up on this machine cannot start."""
