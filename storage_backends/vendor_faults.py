"""Raw exceptions of a vendor's library: where an answer is cut or malformed, some let those of urllib3, of a parser or
a plain ValueError through. They are faults of the store; the same ones raised by our own code are defects."""

from __future__ import annotations

from collections.abc import Collection


def came_through(error: BaseException, packages: Collection[str]) -> bool:
    """Return whether a function of one of `packages` was running when `error` was raised."""
    traceback = error.__traceback__
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0] in packages:
            return True
        traceback = traceback.tb_next
    return False


def unreadable(error: BaseException, doing: object) -> str:
    """Return a message with the error's class only: its text may hold a URL."""
    return f"{doing}: {type(error).__name__}: the response was cut, or cannot be parsed"
