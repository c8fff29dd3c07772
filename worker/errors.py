"""Errors that keep a command from starting. Imports nothing, for a fast `archiver --help`.

├── SettingsError       the environment or `.env` holds something that cannot be used
└── SupervisorError     the processes on this machine cannot start (worker/embedded/errors.py)
"""

from __future__ import annotations


class SettingsError(Exception):
    """Something in the environment or in `.env` cannot be used. The message has a line for each variable: its name,
    what is wrong and what would be right; never the value of a secret."""


class SupervisorError(Exception):
    """The processes on this machine cannot start."""
