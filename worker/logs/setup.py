"""Set up logging: events with a constant name and fields, without secrets.

Every record, ours or a library's, from structlog or `logging`, goes through one handler, which converts it to plain
text, including tracebacks, redacts secrets and escapes control characters.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.logs.escaping import escaped
from worker.logs.redaction import redact, remember_secrets, secrets_of
from worker.settings import Settings

__all__ = ["log_uncaught_exceptions", "redact", "setup_celery_logging", "setup_logging"]

QUIET = (
    # below WARNING httpx and urllib3 log whole URLs, and botocore what it signs
    *(
        "httpx",
        "httpcore",
        "hpack",
        "urllib3",
        "botocore",
        "boto3",
        "s3transfer",
        "google",
        "azure",
        "msal",
        "asyncio",
    ),
)
_DEPTH = 8  # of nested fields; deeper ones are written as text
_log = logging.getLogger(__name__)


def setup_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Log to `stream` (default: stderr). Idempotent; the last call wins.

    Replaces every handler that writes to a stream, so that nothing is written unredacted.
    """
    remember_secrets(secrets_of(settings))
    target = stream if stream is not None else sys.stderr
    handler = _Handler(target)
    handler.setFormatter(_formatter(settings.log_format, colors=target.isatty()))
    root = logging.getLogger()
    for other in list(root.handlers):
        if type(other) in (logging.StreamHandler, _Handler):
            root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(settings.log_level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *_context(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # a later set-up reaches loggers that were used before
    )


def setup_celery_logging(settings: Settings) -> None:
    """Set up logging in a process that `celery` started, and replace Celery's own set-up, whose handlers do not redact.
    ARCHIVER_LOG_LEVEL overrides Celery's `--loglevel`."""

    def instead_of_celerys(**_: object) -> None:
        setup_logging(settings)

    from celery.signals import setup_logging as celery_sets_up_logging  # other commands need no Celery

    logging.getLogger("celery.app.trace").addFilter(_drop_expected)  # once: it is the same function
    celery_sets_up_logging.connect(instead_of_celerys, weak=False, dispatch_uid="archiver")
    setup_logging(settings)
    log_uncaught_exceptions()


def _drop_expected(record: logging.LogRecord) -> bool:
    """Drop Celery's line, with a traceback, about a task that raised what it declares in `throws`: the archiver has
    logged that outcome itself."""
    data = getattr(record, "data", None)
    return not (isinstance(data, Mapping) and data.get("description") == "raised expected")


def log_uncaught_exceptions() -> None:
    """Log uncaught exceptions of every thread as events, redacted, instead of Python's tracebacks on stderr. Call it at
    the start of a process."""

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            _log.critical("uncaught_exception", exc_info=(kind, error, trace))

    def uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and args.exc_type is not SystemExit:
            name = args.thread.name if args.thread is not None else "unknown"
            exc_info = (args.exc_type, args.exc_value, args.exc_traceback)
            _log.critical("uncaught_exception", exc_info=exc_info, extra={"in_thread": name})

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        if args.exc_value is not None:
            _log.error(
                "exception_ignored",
                exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
                extra={"where": args.err_msg or "in a destructor"},
            )

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    sys.unraisablehook = unraisable


class _Handler(logging.StreamHandler[TextIO]):
    """Without this, `logging` prints the arguments of a record that cannot be rendered, with their secrets."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the base class's name)
        error = sys.exc_info()[0]
        reason = error.__name__ if error is not None else "unknown"
        try:
            self.stream.write(
                f"a log record of {escaped(redact(record.name))} could not be written ({reason})\n"
            )
            self.stream.flush()
        except (OSError, ValueError):  # the stream is closed: nowhere to report it
            return


def _context() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _formatter(log_format: str, colors: bool) -> logging.Formatter:
    renderers: list[Processor]
    if log_format == "json":
        renderers = [structlog.processors.JSONRenderer(sort_keys=True)]  # ASCII, with escapes of its own
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=colors,
            exception_formatter=structlog.dev.plain_traceback,  # a rich one shows local variables
        )
        renderers = [_escape_event, console]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_context(), structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _redact_event,
            *renderers,
        ],
    )


def _redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {_text(name): _plain(value, _DEPTH) for name, value in event.items()}


def _escape_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {
        escaped(name): _framed(value) if name in ("exception", "stack") else _escaped(value)
        for name, value in event.items()
    }


def _escaped(value: object) -> object:
    if isinstance(value, Mapping):
        return {escaped(name): _escaped(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escaped(value) if isinstance(value, str) else value


def _framed(value: object) -> str:
    """The lines of a traceback, escaped: it may quote anything."""
    return "\n".join(f"| {escaped(line)}" for line in str(value).split("\n"))


def _plain(value: object, depth: int) -> object:
    """`value` as redacted text, numbers, lists and dicts, so that the renderer calls no `repr`."""
    if type(value) in (type(None), bool, int) or (type(value) is float and math.isfinite(value)):
        return value
    if depth > 0 and isinstance(value, Mapping):
        return {_text(name): _plain(item, depth - 1) for name, item in value.items()}
    if depth > 0 and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth - 1) for item in value]
    return _text(value)


def _text(value: object) -> str:
    if type(value) is str and value.isascii():
        return redact(value)
    try:
        text = value.decode(errors="backslashreplace") if isinstance(value, bytes | bytearray) else str(value)
    except Exception as error:  # noqa: BLE001  (any object may be logged, and its `str` may do anything)
        text = f"<{type(value).__name__} that has no text: {type(error).__name__}>"
    return redact(text.encode(errors="backslashreplace").decode())
