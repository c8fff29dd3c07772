from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import celery.signals
import httpx
import pytest
import structlog
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

import worker.logs.redaction
from tests.hms.scripted_api import says, scripted_api
from worker.logs.setup import QUIET, _Handler, log_uncaught_exceptions, setup_celery_logging, setup_logging
from worker.settings import Settings

MARK = "MARKED"
URL = "https://storage.test/a/b.mp4?X-Amz-Signature=" + MARK
Format = Literal["console", "json"]


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logging is one for the whole process: what a test changes is put back."""
    monkeypatch.setattr(worker.logs.redaction, "_known", frozenset())
    monkeypatch.setattr(worker.logs.redaction, "_known_pattern", None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    root = logging.getLogger()
    level = root.level
    levels = {name: logging.getLogger(name).level for name in QUIET}
    yield
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, _Handler)]
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    celery.signals.setup_logging.disconnect(dispatch_uid="archiver")


def _settings(log_format: Format = "json", **given_ones: Any) -> Settings:
    return Settings(_env_file=None, log_format=log_format, **given_ones)


def _logging_to(log_format: Format = "json", **given_ones: Any) -> io.StringIO:
    out = io.StringIO()
    setup_logging(_settings(log_format, **given_ones), out)
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if isinstance(handler, _Handler)]  # not pytest's
    return out


def _events(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


# -- events ---------------------------------------------------------------------------------------------------
def test_an_event_is_one_json_object_with_its_fields_and_its_context() -> None:
    out = _logging_to("json")

    with structlog.contextvars.bound_contextvars(asset_id="a1"):
        structlog.get_logger("archiver.x").info(
            "asset_archived", size_bytes=7, parts=[1, {"n": None}], rate=1.5
        )

    [event] = _events(out)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "asset_archived",
        "level": "info",
        "logger": "archiver.x",
        "asset_id": "a1",
        "size_bytes": 7,
        "parts": [1, {"n": None}],
        "rate": 1.5,
    }


def test_a_librarys_log_record_becomes_an_event_with_the_same_context() -> None:
    out = _logging_to("json")

    with structlog.contextvars.bound_contextvars(asset_id="a1"):
        logging.getLogger("kombu").warning("lost %s of %d", "one", 2, extra={"attempt": 3})

    [event] = _events(out)
    assert (event["event"], event["level"], event["logger"]) == ("lost one of 2", "warning", "kombu")
    assert (event["asset_id"], event["attempt"]) == ("a1", 3)


def test_the_console_shows_the_event_and_its_fields_on_one_line() -> None:
    out = _logging_to("console")

    structlog.get_logger("x").info("asset_archived", asset_id="a1")

    [line] = out.getvalue().splitlines()
    assert "asset_archived" in line
    assert "asset_id=a1" in line
    assert "\x1b[" not in line  # no colours into a file


def test_a_traceback_is_kept_and_shows_no_local_variables() -> None:
    out = _logging_to("console")

    def fail(secret: str) -> None:
        raise ValueError("broken")

    try:
        fail("a-local-" + MARK)
    except ValueError:
        structlog.get_logger("x").exception("asset_failed")

    assert "ValueError: broken" in out.getvalue()
    assert "in fail" in out.getvalue()
    assert MARK not in out.getvalue()


@pytest.mark.parametrize(("level", "shown"), [("DEBUG", 4), ("INFO", 3), ("WARNING", 2), ("ERROR", 1)])
def test_the_level_is_the_settings(level: Any, shown: int) -> None:
    out = _logging_to("json", log_level=level)

    log = structlog.get_logger("x")
    for say in (log.debug, log.info, log.warning, log.error):
        say("event")

    assert len(_events(out)) == shown


def test_setting_up_twice_writes_each_event_once() -> None:
    log = structlog.get_logger("x")
    first = _logging_to("json")
    log.info("early")
    second = _logging_to("json")

    log.info("late")

    assert [event["event"] for event in _events(first)] == ["early"]
    assert [event["event"] for event in _events(second)] == ["late"]


def test_a_handler_that_was_there_before_writes_nothing_unredacted() -> None:
    before = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(before))

    out = _logging_to("json")
    logging.getLogger("x").warning(URL)

    assert before.getvalue() == ""
    assert len(_events(out)) == 1


def test_a_warning_is_an_event() -> None:
    out = _logging_to("json")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old: " + URL, stacklevel=1)

    [event] = _events(out)
    assert event["logger"] == "py.warnings"
    assert MARK not in out.getvalue()


# -- secrets --------------------------------------------------------------------------------------------------
Say = Callable[[str], None]


class Hostile:
    """Holds a secret, in a `str` and a `repr` of its own."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def _raise_chain(text: str) -> None:
    try:
        try:
            raise ConnectionError("first " + text)
        except ConnectionError as error:
            raise ValueError("second " + text) from error
    except ValueError:
        third = RuntimeError("third " + text)
        third.add_note("note " + text)
        raise third  # noqa: B904  (the context is what is tested)


def _logged_exception(text: str) -> None:
    try:
        _raise_chain(text)
    except RuntimeError:
        structlog.get_logger("x").exception("failed")


def _logged_group(text: str) -> None:
    try:
        raise ExceptionGroup("group " + text, [OSError(text), ValueError("x", text)])
    except ExceptionGroup:
        logging.getLogger("x").exception("failed %s", text)


WAYS: dict[str, Say] = {
    "the event": lambda text: structlog.get_logger("x").info(text),
    "positional arguments": lambda text: structlog.get_logger("x").info("got %s", text),
    "a field": lambda text: structlog.get_logger("x").info("e", url=text),
    "a field's name": lambda text: structlog.get_logger("x").info("e", **{text: 1}),
    "a nested field": lambda text: structlog.get_logger("x").info("e", a={"b": [(text, {text})], text: text}),
    "a deep field": lambda text: structlog.get_logger("x").info("e", a=[[[[[[[[[[[[text]]]]]]]]]]]]),
    "bytes": lambda text: structlog.get_logger("x").info("e", a=text.encode(errors="surrogatepass")),
    "an object": lambda text: structlog.get_logger("x").info("e", a=Hostile(text), b=[Hostile(text)]),
    "an exception as a field": lambda text: structlog.get_logger("x").info("e", error=ValueError(text)),
    "bound context": lambda text: structlog.get_logger("x").bind(url=text).info("e"),
    "a chain of exceptions": _logged_exception,
    "a group of exceptions": _logged_group,
    "logging's message": lambda text: logging.getLogger("x").info(text),
    "logging's arguments": lambda text: logging.getLogger("x").info("got %s and %r", text, Hostile(text)),
    "logging's dict of arguments": lambda text: logging.getLogger("x").info("got %(a)s", {"a": text}),
    "logging's extra": lambda text: logging.getLogger("x").info("e", extra={"url": text, "a": {"b": text}}),
    "arguments that do not fit": lambda text: logging.getLogger("x").info("got %d", text),
    "a logger's name": lambda text: logging.getLogger(text).warning("e"),
}  # fmt: skip

signature = st.text("abcXYZ019-_.~%/+=&;,:!$()*'\"<>[]{}|\\\ud800é", max_size=20)


HOSTILE = "x\n2026-01-01T00:00:00Z [info] all is well\r\x1b[2J\x9b31m\u2028\u202e\x07y"


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_logged_neither_acts_on_a_terminal_nor_forges_a_line(log_format: Format, way: str) -> None:
    out = _logging_to(log_format)

    WAYS[way](HOSTILE)

    written = out.getvalue()
    assert not {letter for letter in written if unicodedata.category(letter) in ("Cc", "Cf", "Zl")} - {"\n"}
    if way != "arguments that do not fit":
        assert "all is well" in written
        lines = [line for line in written.splitlines() if not line.startswith("| ")]
        assert len(lines) == 1, written


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("way", WAYS)
@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=signature, after=signature)
def test_no_signature_survives_in_any_rendering(
    log_format: Format, way: str, before: str, after: str
) -> None:
    out = _logging_to(log_format)

    WAYS[way](f"https://storage.test/a/b.mp4?{before}{MARK}{after}")

    assert out.getvalue() != ""
    assert MARK not in out.getvalue()
    if log_format == "json" and way != "arguments that do not fit":
        assert len(_events(out)) == 1  # and it is still JSON


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("way", WAYS)
def test_no_secret_of_the_settings_survives_in_any_rendering(log_format: Format, way: str) -> None:
    secret = f'a"b\\c/{MARK}é{MARK} d'
    out = _logging_to(log_format, hms_access_key="key", hms_secret=SecretStr(f"a'b\"c\\d/{MARK}"))
    worker.logs.redaction.remember_secrets([secret])

    WAYS[way](f"before {secret} after a'b\"c\\d/{MARK} end")

    assert out.getvalue() != ""
    assert MARK not in out.getvalue()


def test_an_object_whose_text_raises_does_not_cost_the_event() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError(URL)

    out = _logging_to("json")

    structlog.get_logger("x").info("event", a=Broken(), nan=float("nan"))

    [event] = _events(out)
    assert event["a"] == "<Broken that has no text: RuntimeError>"
    assert event["nan"] == "nan"


def test_a_stream_that_is_gone_costs_no_exception() -> None:
    out = _logging_to("json")
    out.close()

    structlog.get_logger("x").info("event")

    assert out.closed


def test_httpx_does_not_log_urls_at_any_level() -> None:
    out = _logging_to("console", log_level="DEBUG")

    with scripted_api([says({})]) as server, httpx.Client(trust_env=False) as client:
        client.get(f"{server.url}/x?sig={MARK}")
        url = server.url

    assert url not in out.getvalue()
    assert MARK not in out.getvalue()


# -- Celery, and what nobody caught ---------------------------------------------------------------------------
def test_celery_finds_its_logging_set_up_already(capsys: pytest.CaptureFixture[str]) -> None:
    setup_celery_logging(_settings("json", log_level="INFO"))
    app = celery.Celery("test", set_as_current=False)

    app.log.setup_logging_subsystem(loglevel="DEBUG")
    logging.getLogger("celery.worker").info(URL)

    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["https://storage.test/a/b.mp4?[redacted]"]


def test_an_exception_in_a_thread_is_an_event() -> None:
    out = _logging_to("json")
    log_uncaught_exceptions()

    thread = threading.Thread(target=_raise_chain, args=(URL,), name="mover-1")
    thread.start()
    thread.join()

    [event] = _events(out)
    assert (event["event"], event["in_thread"], event["level"]) == (
        "uncaught_exception",
        "mover-1",
        "critical",
    )
    assert "RuntimeError: third" in event["exception"]
    assert MARK not in out.getvalue()


DYING = """
import os, sys
from worker.logs.setup import log_uncaught_exceptions, setup_logging
from worker.settings import Settings

class Leaky:
    def __del__(self):
        raise ValueError(os.environ["URL"])

setup_logging(Settings(_env_file=None, log_format="json"))
log_uncaught_exceptions()
Leaky()
raise RuntimeError(os.environ["URL"])
"""


def test_a_process_that_dies_says_so_without_its_secrets() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DYING], env={"URL": URL, "PYTHONPATH": "."}, capture_output=True, text=True, timeout=60
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stdout == ""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events] == ["exception_ignored", "uncaught_exception"]
    assert "RuntimeError: https://storage.test/a/b.mp4?[redacted]" in events[1]["exception"]
    assert MARK not in done.stderr


def test_the_tests_above_would_see_a_leak() -> None:
    """The same exception, printed by Python itself, does show the mark."""
    with pytest.raises(RuntimeError) as raised:
        _raise_chain(URL)

    assert "".join(traceback.format_exception(raised.value)).count(MARK) == 4
