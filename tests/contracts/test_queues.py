from __future__ import annotations

from pathlib import Path

import pytest

from ops.stack.processes import applications
from webapp.infra.broker.client import celery
from webapp.jobs import handlers
from webapp.settings import Settings


@pytest.fixture(scope="module")
def workers():
    """The command line of every worker of the stack."""
    commands = {process.name: list(process.command) for process in applications(Settings())}
    return {name: command for name, command in commands.items() if "worker" in command}


@pytest.fixture(scope="module", autouse=True)
def configured():
    import tasks.celery  # noqa: F401, PLC0415 - the composition root of the workers


def option(command, name):
    return command[command.index(name) + 1] if name in command else None


def consumed(command, queues):
    """The queues that a worker with this command line listens to."""
    chosen, excluded = option(command, "--queues"), option(command, "--exclude-queues")
    if chosen is not None:
        return set(chosen.split(","))
    return set(queues) - set((excluded or "").split(","))


def test_every_queue_that_a_handler_names_is_consumed_and_so_is_our_own(workers):
    wanted = {*handlers.registry.queues(), handlers.MAINTENANCE_QUEUE}
    assert set().union(*(consumed(command, wanted) for command in workers.values())) == wanted


def test_jobs_and_maintenance_never_share_a_worker(workers):
    wanted = {*handlers.registry.queues(), handlers.MAINTENANCE_QUEUE}
    assert consumed(workers["maintenance"], wanted) == {handlers.MAINTENANCE_QUEUE}
    assert handlers.MAINTENANCE_QUEUE not in consumed(workers["worker"], wanted)


def test_celery_knows_every_queue_and_makes_up_none():
    assert set(celery.amqp.queues) == {*handlers.registry.queues(), handlers.MAINTENANCE_QUEUE}
    assert celery.conf.task_create_missing_queues is False
    assert celery.conf.task_default_queue in celery.amqp.queues


def test_no_message_is_written_for_a_result_no_one_reads():
    assert celery.conf.result_backend is None
    assert celery.conf.task_ignore_result is True


def test_a_message_outlives_the_longest_lease_before_it_comes_back():
    assert celery.conf.broker_transport_options["visibility_timeout"] > Settings().stuck_job_threshold


def test_no_task_overrides_the_budget_of_its_row():
    task = celery.tasks["tasks.execute_job"]
    assert task.max_retries is None
    assert task.acks_late


def test_the_stack_names_only_programs_that_are_installed():
    for process in applications(Settings()):
        assert Path(process.command[0]).is_file(), process.name
