"""Errors of the supervisor.

SupervisorError (worker.errors)
├── AlreadyRunning   another supervisor uses this state directory
└── StartFailed      a process did not start
"""

from __future__ import annotations

from worker.errors import SupervisorError


class AlreadyRunning(SupervisorError):
    """Another supervisor uses this state directory."""


class StartFailed(SupervisorError):
    """A process did not start. The message ends with the last lines of its log."""
