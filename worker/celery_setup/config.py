"""Every Celery setting that differs from the default, with the failure that it prevents. The behaviour of Redis and
Celery under faults was measured (docs/decisions/0002-celery-pin.md, 0003-control-worker.md); see also `tests/chaos/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from kombu import Exchange, Queue

from archiver.ledger.redis.tls import tls_options
from tasks.names import ARCHIVE_ASSET
from worker.celery_setup.processes import ARCHIVE_QUEUE, CONTROL_QUEUE, URGENT_QUEUE

TASK_TIME_LIMIT = timedelta(hours=12)
"""For a task that hangs despite every other timeout. 50 GiB at 1.3 MB/s still fit."""
SOFT_TIME_LIMIT = TASK_TIME_LIMIT - timedelta(minutes=5)
"""A copy that is still running releases the asset then, and the next attempt resumes it."""
VISIBILITY_TIMEOUT = timedelta(hours=24)
"""After this time Redis redelivers an unacknowledged message. It must be longer than any task, and the same in every
process that shares the broker. Recovery does not wait for it: leases are short."""
SOFT_SHUTDOWN = timedelta(seconds=30)
"""Short tasks finish, longer ones are released. Half of the 60 s grace period in `docker-compose.yml`."""


def celery_settings(
    *,
    broker_url: str,
    key_prefix: str = "archiver:",
    concurrency: int,
    soft_shutdown: timedelta = SOFT_SHUTDOWN,
    visibility_timeout: timedelta = VISIBILITY_TIMEOUT,
    beat_schedule: Mapping[str, object] | None = None,
    broker_authorities: Path | None = None,
) -> dict[str, object]:
    """For `app.conf.update`. `key_prefix`: of every key and channel. `concurrency`: assets archived at once by one
    archive worker; the control worker's command has its own. `visibility_timeout` is an argument for the test of a
    short one. `broker_authorities`: the PEM file that verifies the certificate of a `rediss://` broker; see
    `tls_options`."""
    return {
        "broker_url": broker_url,
        # without it kombu accepts any certificate
        "broker_use_ssl": dict(tls_options(broker_url, broker_authorities)) or None,
        # ---- connection
        "broker_connection_retry_on_startup": True,  # the broker may start later
        "broker_connection_max_retries": None,  # the default exits the process after 100 attempts
        # A broker that is read-only, out of memory or without its replicas answers with a channel error, which would
        # otherwise exit the process ("Unrecoverable error").
        "broker_channel_error_retry": True,
        "broker_connection_timeout": 5,  # seconds; for an address that drops packets
        "broker_transport_options": {
            "visibility_timeout": int(visibility_timeout.total_seconds()),
            "socket_timeout": 30,  # seconds; without it a publish to a stalled broker never ends
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,  # seconds; finds half-open sockets before the socket timeout does
            "queue_order_strategy": "priority",  # queues in the order of --queues: urgent first
            "global_keyprefix": key_prefix,  # a Redis shared with others
        },
        "task_publish_retry_policy": {
            "max_retries": 5,
            "interval_start": 0.2,
            "interval_step": 0.5,
        },  # an end
        # ---- delivery: a message is a wake-up, and is redelivered when its worker dies
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,  # otherwise a killed child loses its message
        # A failed task has recorded its failure in the ledger, which decides on the retry. A redelivered message would
        # loop without a backoff.
        "task_acks_on_failure_or_timeout": True,
        "worker_prefetch_multiplier": 1,  # otherwise one worker reserves messages while others idle
        # The default reduces the prefetch count after a reconnection until the tasks taken since have ended: a slot
        # would idle as long as a copy lasts. A message too many is dispatched again after 15 minutes.
        "worker_enable_prefetch_count_reduction": False,
        # True cancels running copies in every outage of the broker, and they wait for the visibility timeout.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "task_time_limit": int(TASK_TIME_LIMIT.total_seconds()),
        "task_soft_time_limit": int(SOFT_TIME_LIMIT.total_seconds()),
        # ---- queues
        # A worker started without --queues takes all three, in this order.
        # Each has its own exchange and routing key: by default all three would be bound to the default queue's.
        "task_queues": [
            Queue(name, Exchange(name), routing_key=name)
            for name in (CONTROL_QUEUE, URGENT_QUEUE, ARCHIVE_QUEUE)
        ],
        "task_default_queue": CONTROL_QUEUE,
        "task_create_missing_queues": False,  # a queue name with a typo would fill up unread
        # The dispatcher names the urgent queue itself.
        "task_routes": {ARCHIVE_ASSET: {"queue": ARCHIVE_QUEUE}},
        # ---- the worker
        # Celery 5.6.3 gives new messages to busy children after an outage.
        "worker_consumer": "worker.celery_setup.reconnect:Consumer",
        "worker_pool": "prefork",  # threads ignore time limits and a cold shutdown
        "worker_concurrency": concurrency,
        "worker_max_tasks_per_child": 50,  # bounds a memory leak in a library
        "worker_proc_alive_timeout": 60,  # seconds; the default 4 kills children that a busy machine starts slowly
        # With REMAP_SIGTERM=SIGQUIT: after SIGTERM running tasks have this long, then are cancelled and released.
        # Not on idle: there is nothing to wait for (retries are rows of the ledger, no ETA sits in a worker).
        "worker_soft_shutdown_timeout": soft_shutdown.total_seconds(),
        "worker_enable_soft_shutdown_on_idle": False,
        "worker_disable_rate_limits": True,
        # ---- results: none are kept. Flower shows states and results from events; the ledger is the record. A result
        # backend could fail after the work is done, and costs beat one subscription per message.
        "task_ignore_result": True,
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        # ---- content
        "task_serializer": "json",
        "accept_content": ["json"],  # pickle runs what a message says
        "timezone": "UTC",
        "enable_utc": True,
        # ---- beat
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_max_loop_interval": 5,  # seconds
        "beat_schedule": dict(beat_schedule or {}),
    }
