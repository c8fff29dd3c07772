"""Did an exception come out of a vendor's library? Some let raw ones through where an answer is cut or malformed: of
urllib3, of a parser, a plain ValueError. Those are the store's; the same ones raised by our own code are defects."""

from __future__ import annotations

from collections.abc import Collection


def came_through(error: BaseException, packages: Collection[str]) -> bool:
    """Whether a function of one of `packages` was running when `error` was raised."""
    traceback = error.__traceback__
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0] in packages:
            return True
        traceback = traceback.tb_next
    return False


def unreadable(error: BaseException, doing: object) -> str:
    """Its text may hold a URL: only its class is told."""
    return f"{doing}: {type(error).__name__}: the answer was broken off, or cannot be read"
