"""Celery's configuration: data only. The numbers come from `webapp.settings`.

PostgreSQL is the record and a message is a hint, so most of what is set here says: keep little in Redis,
wait for nothing without a limit, and leave retries and recovery to the database.
"""

from __future__ import annotations

from webapp.infra.broker.transport import PRIORITY_STEPS
from webapp.settings import current
from webapp.settings.server_urls import redis_url_for_kombu
from webapp.settings.sweeps import MAINTENANCE_QUEUE, SWEEPS

_settings = current()

broker_url = redis_url_for_kombu(_settings.redis_url)
result_backend = None
task_ignore_result = True
task_store_errors_even_if_ignored = False

task_serializer = "json"
accept_content = ["json"]
result_accept_content = ["json"]
enable_utc = True
timezone = "UTC"

# A message is acknowledged when its job is settled. Should the worker die before, the message comes back
# after the visibility timeout and finds nothing to claim: the lease has long been recovered.
task_acks_late = True
task_acks_on_failure = True
task_acks_on_timeout = True
task_reject_on_worker_lost = False
task_default_queue = "default"
task_create_missing_queues = False
task_send_sent_event = False
# A job's limit is set where it runs, so that it strikes the handler and neither claim nor settle. A message carries a hard limit
# far beyond it; this one bounds a message that carries none.
task_time_limit = 90_030

worker_prefetch_multiplier = 1
worker_max_tasks_per_child = _settings.max_tasks_per_child
worker_cancel_long_running_tasks_on_connection_loss = False
worker_redirect_stdouts = False
worker_hijack_root_logger = False
worker_concurrency = _settings.num_workers
worker_lost_wait = 5
# Flower turns events on while it runs; without it no one reads them, and they cost as much as the job. Ticks never send any
# (`send_events` of their tasks): four of them a second would hide the jobs from those who look at Flower.
worker_send_task_events = False

broker_connection_timeout = 3
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_channel_error_retry = True
# Flower asks all workers eight questions at once, and listens; connections are only made when they are needed.
broker_pool_limit = 16
broker_pool_acquire_timeout = 2
task_publish_retry = False
broker_transport_options = {
    # Longer than this a message is not kept for a job that runs on; the second copy is refused by the claim.
    "visibility_timeout": 600,
    "socket_timeout": 5,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "retry_on_timeout": False,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    # The worker's event loop waits for it.
    "unacked_restore_limit": 200,
    "global_keyprefix": _settings.redis_prefix,
    "queue_order_strategy": "priority",
    "priority_steps": list(PRIORITY_STEPS),
}

# The schedule is short intervals only, so there is nothing worth keeping in a file over a restart.
beat_scheduler = "tasks.beat:BoundedScheduler"
beat_max_loop_interval = 1
beat_schedule = {
    # `tasks.beat` bounds how many of its messages may wait.
    sweep.name: {
        "task": f"tasks.{sweep.name}",
        "schedule": sweep.every(_settings),
        "options": {"queue": MAINTENANCE_QUEUE, "ignore_result": True},
    }
    for sweep in SWEEPS
}
