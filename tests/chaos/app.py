"""A small Celery app on the product's own Celery settings and schedule, for the tests that are about processes and the
broker, not about archiving. What its tasks did is written to Redis beside Celery's own keys:

    began:<id>, ended:<id>    a list, one entry for each run: the process id
    sent:<task>               a list, one entry for each message of a control task: the time
    ran:<task>                the same of those that did not come too soon after another
    hold:<id>                 while it exists, the task <id> goes on
    poison:<id>               the task <id> kills its own process
    quiet:<id>                the task <id> does not write that it ended
    raise:<id>                the task <id> raises what this names: MemoryError, SystemExit
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import redis
from celery import Celery
from pydantic import SecretStr

from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from tasks.names import ARCHIVE_ASSET, DISPATCH, RECONCILE, SCRUB, SWEEP, WATCH
from tasks.soft_task import SoftTask
from tasks.throttle import comes_too_soon
from worker.celery_setup.config import celery_settings
from worker.celery_setup.schedule import beat_schedule

URL = os.environ["ARCHIVER_REDIS_URL"]

app = Celery("chaos", set_as_current=True, task_cls=SoftTask)
app.conf.update(
    celery_settings(
        broker_url=URL,
        concurrency=int(os.environ.get("CHAOS_SLOTS", "2")),
        soft_shutdown=timedelta(seconds=float(os.environ.get("CHAOS_SOFT_SHUTDOWN", "1"))),
        visibility_timeout=timedelta(seconds=float(os.environ.get("CHAOS_VISIBILITY_TIMEOUT", "86400"))),
        beat_schedule=beat_schedule(
            sweep_every=timedelta(seconds=float(os.environ.get("CHAOS_SWEEP_SECONDS", "300"))),
            dispatch_every=timedelta(seconds=float(os.environ.get("CHAOS_DISPATCH_SECONDS", "15"))),
        ),
    )
)


@app.task(name=ARCHIVE_ASSET)
def archive_asset(asset_id: str, asset_type: str = "") -> dict[str, str]:
    with _records() as records:
        _persist(lambda: records.rpush(f"began:{asset_id}", os.getpid()))
        if _persist(lambda: records.exists(f"poison:{asset_id}")):
            os.kill(os.getpid(), signal.SIGKILL)
        if name := _persist(lambda: records.getdel(f"raise:{asset_id}")):
            raise {b"MemoryError": MemoryError, b"SystemExit": SystemExit}[name]  # type: ignore[index]
        while _persist(lambda: records.exists(f"hold:{asset_id}")):
            time.sleep(0.02)
        if not _persist(lambda: records.exists(f"quiet:{asset_id}")):
            _persist(lambda: records.rpush(f"ended:{asset_id}", os.getpid()))
    return {"asset_id": asset_id}


def _control(name: str) -> None:
    @app.task(name=name, bind=True)
    def record(task: Any) -> None:
        with _records() as records:
            records.rpush(f"sent:{name}", time.time())
            ledger = RedisLedger(URL, Seal(SecretStr("chaos")), key_prefix="ledger:")
            try:
                if not comes_too_soon(task, ledger):
                    records.rpush(f"ran:{name}", time.time())
            finally:
                ledger.close()


for _name in (SWEEP, DISPATCH, WATCH, RECONCILE, SCRUB):
    _control(_name)


def _records() -> redis.Redis:
    return redis.Redis.from_url(URL, socket_timeout=5, socket_connect_timeout=5)


def _persist(call: Callable[[], object]) -> object:
    """Until it works: the broker's outages are for the worker to survive, not for these records to miss."""
    until = time.monotonic() + 60
    while True:
        try:
            return call()
        except redis.RedisError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
