from __future__ import annotations

import logging
import sys
import time
from uuid import uuid4

import pytest

from webapp.jobs import handlers
from webapp.jobs.context import JobContext
from webapp.jobs.handlers import Handler, HandlerRegistry, load
from webapp.jobs.options import MAX_DELAY
from webapp.settings import SettingsError


def run(payload, context):
    return None


def other(payload, context):
    return None


@pytest.fixture
def registry():
    return HandlerRegistry()


@pytest.mark.parametrize("name", ["a", "send-email", "send_email.v2", "9lives", "x" * 100])
def test_a_plain_name_is_taken(registry, name):
    registry.add(Handler(name, run))
    assert registry.get(name).run is run
    assert registry.names() == (name,)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a\n", "ä", "x" * 101, "a/b", "\x00"])
def test_a_name_that_breaks_the_rule_is_refused_and_shown(registry, name):
    with pytest.raises(ValueError) as caught:
        registry.add(Handler(name, run))
    assert repr(name) in str(caught.value)
    assert "name must match" in str(caught.value)


def test_a_queue_follows_the_same_rule(registry):
    with pytest.raises(ValueError, match=r"queue must match .*'a b'"):
        registry.add(Handler("a", run, queue="a b"))


@pytest.mark.parametrize("queue", ["maintenance", "unacked", "unacked_index", "unacked_mutex"])
def test_no_queue_may_be_named_as_what_djps_or_its_broker_keeps(registry, queue):
    why = "that name is used by DJPS or its broker for something else"
    with pytest.raises(ValueError, match=f"^handler 'a' must use another queue than '{queue}': {why}$"):
        registry.add(Handler("a", run, queue=queue))
    with pytest.raises(ValueError, match=f"^QUEUES must not name '{queue}': {why}$"):
        registry.declare([queue])


@pytest.mark.parametrize("queue", ["a:b", "_kombu.binding.x", "default\x06\x163", "djps:pace", "", "ü"])
def test_a_queue_whose_key_could_be_another_s_breaks_the_rule(registry, queue):
    with pytest.raises(ValueError, match="must match"):
        registry.add(Handler("a", run, queue=queue))
    with pytest.raises(ValueError, match="must match"):
        registry.declare([queue])


WRONG = ["5", True, [5], 1j, float("nan"), float("inf"), -1, 10**400]


@pytest.mark.parametrize(("limit", "most"), [("max_retries", 100), ("chunk", 500), ("priority", 9)])
def test_an_integer_out_of_bounds_is_refused_and_shown(registry, limit, most):
    for given in (*WRONG, 2.5, most + 1):
        with pytest.raises(
            ValueError, match=rf"handler 'a': {limit} must be an integer from . to {most}; given: "
        ) as caught:
            registry.add(Handler("a", run, **{limit: given}))
        assert repr(given)[:5] in str(caught.value)
    registry.add(Handler("a", run, **{limit: most}))


@pytest.mark.parametrize(("limit", "most"), [("timeout", 86_400), ("expires_in", MAX_DELAY)])
def test_seconds_out_of_bounds_are_refused_and_shown(registry, limit, most):
    for given in (*WRONG, 0, most * 1.1):
        with pytest.raises(ValueError, match=rf"handler 'a': {limit} must be .*given: "):
            registry.add(Handler("a", run, **{limit: given}))
    registry.add(Handler("a", run, **{limit: most}))


@pytest.mark.parametrize(
    "tags", [("",), ("x" * 65,), ("a\x00",), (" a",), (5,), ("\ud800",), tuple(map(str, range(21)))]
)
def test_tags_that_a_submission_may_not_have_are_refused(registry, tags):
    with pytest.raises(ValueError, match="handler 'a': tags must be at most 20 texts, printable"):
        registry.add(Handler("a", run, tags=tags))


def test_one_text_is_one_tag():
    try:
        handlers.handler("one-tag", tags="crawl")(run)
        assert handlers.registry.get("one-tag").tags == ("crawl",)
    finally:
        handlers.registry._handlers.pop("one-tag", None)


@pytest.mark.parametrize(("retries", "timeout"), [(0, 0.001), (100, 86_400), (None, None)])
def test_limits_at_their_bounds_are_taken(registry, retries, timeout):
    registry.add(Handler("a", run, max_retries=retries, timeout=timeout))
    assert registry.get("a").max_retries == retries


def test_a_name_is_not_given_twice(registry):
    registry.add(Handler("a", run))
    with pytest.raises(ValueError, match=r"handler 'a' is registered twice"):
        registry.add(Handler("a", other))


def test_a_module_that_is_imported_again_registers_the_same_handler_again(registry):
    registry.add(Handler("a", run))
    registry.add(Handler("a", run))
    assert registry.names() == ("a",)


@pytest.mark.parametrize("name", [None, 1, 1.5, True, [], {}, ["a"], "b"])
def test_any_json_value_may_be_asked_for(registry, name):
    registry.add(Handler("a", run))
    assert registry.get(name) is None


def test_queues_are_those_that_handlers_name_and_the_default(registry):
    registry.add(Handler("a", run, queue="mail"))
    registry.add(Handler("b", run, queue="mail"))
    assert registry.queues() == ("default", "mail")
    assert set(registry.mapping()) == {"a", "b"}


def test_the_built_in_handlers_are_loaded():
    handlers.load((), "simulated")
    assert {"simulated", "noop", "sleep", "fail"} <= set(handlers.registry.names())


def test_a_module_that_cannot_be_imported_is_named():
    with pytest.raises(SettingsError, match=r"HANDLERS: cannot import 'no.such.module': ModuleNotFoundError"):
        handlers.load(("no.such.module",), "")


def test_a_default_that_names_no_handler_is_refused():
    with pytest.raises(ValueError, match=r"DEFAULT_HANDLER must name a registered handler .*given: 'nope'"):
        handlers.load((), "nope")


def test_a_handler_of_ones_own_is_found_in_a_module_outside_the_packages(tmp_path, monkeypatch):
    (tmp_path / "letters.py").write_text(
        "from webapp.jobs import handler\n\n\n"
        "@handler('letters.send', queue='mail', max_retries=7, timeout=1.5)\n"
        "def send(payload, context):\n    return {'to': payload['to']}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        handlers.load(("letters",), "letters.send")
        found = handlers.registry.get("letters.send")
        assert (found.queue, found.max_retries, found.timeout) == ("mail", 7, 1.5)
        assert found.run({"to": "ada"}, None) == {"to": "ada"}
    finally:
        sys.modules.pop("letters", None)
        handlers.registry._handlers.pop("letters.send", None)


def test_a_context_of_no_worker_is_never_cancelled_and_reports_to_no_one():
    context = JobContext(uuid4(), 1, 0, time.monotonic() + 60, logging.getLogger("test"))
    context.check_cancelled()
    context.progress(1, 2, "half")


def test_queues_that_cannot_be_named_so_stop_the_start():
    with pytest.raises(SettingsError, match="maintenance"):
        load((), "simulated", ("maintenance",))
