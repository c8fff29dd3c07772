"""A command beside a running `archiver up` whose embedded Valkey does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from worker import broker
from worker.embedded.state_lock import StateLock
from worker.embedded.valkey import EmbeddedValkey
from worker.errors import SupervisorError
from worker.settings import Settings


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """The state directory of another archiver that runs."""
    lock = StateLock(tmp_path)
    lock.acquire()
    yield tmp_path
    lock.release()


def test_a_server_that_does_not_answer_is_named_with_its_log(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "OTHER_SECONDS", 0)

    with (
        pytest.raises(SupervisorError, match="embedded Valkey does not answer") as raised,
        broker.broker_url(Settings(_env_file=None, state_dir=state)),
    ):
        pass

    assert str(state / "logs" / "valkey.log") in str(raised.value)
    assert "Stop it first" not in str(raised.value)


def test_a_server_that_another_process_has_just_begun_to_start_is_waited_for(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, True])
    monkeypatch.setattr(EmbeddedValkey, "answers", lambda _self: next(answers))
    monkeypatch.setattr(EmbeddedValkey, "url", lambda _self: "redis://127.0.0.1:1/0")

    with broker.broker_url(Settings(_env_file=None, state_dir=state)) as url:
        assert url == "redis://127.0.0.1:1/0"
