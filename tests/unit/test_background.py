from __future__ import annotations

import logging
import os

import pytest

from webapp.infra import background
from webapp.infra.background import EXIT_CODE, MEMORY_PATIENCE, Step, Steps, VitalThread


class Work:
    """Does nothing, or raises what it is told to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.calls = 0

    def __call__(self, *_args: object, **_kwargs: object) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [ValueError(), OSError(28, "full"), MemoryError(), RecursionError()])
def test_a_step_that_fails_costs_the_others_nothing_and_is_told_of(error):
    broken, well, told = Work(error), Work(), []
    steps = Steps([Step("broken", broken), Step("well", well)], told.append)
    for _ in range(3):
        steps.run()
    assert (broken.calls, well.calls, told) == (3, 3, ["broken"] * 3)
    assert [name for name, _ in steps.failing()] == ["broken"]
    broken.error = None
    steps.run()
    assert list(steps.failing()) == []


def test_a_step_whose_question_fails_is_guarded_as_well():
    well = Work()
    Steps([Step("broken", Work(), when=Work(ValueError())), Step("well", well)]).run()
    assert well.calls == 1


def test_each_step_has_its_own_period_and_a_failed_one_is_tried_again_sooner():
    work = Work()
    step = Step("one", work, period=10.0, again=2.0)
    for now in (0.0, 9.9, 10.0, 19.9):
        step.turn(now)
    assert work.calls == 2
    work.error = ValueError()
    for now in (20.0, 21.9, 22.0):
        step.turn(now)
    assert work.calls == 4
    assert step.due_at == 24.0


def test_a_step_with_nothing_to_do_has_no_trouble():
    step = Step("one", Work(ValueError()))
    step.turn(0.0)
    step.when = lambda: False
    step.turn(1.0)
    assert step.error is None


def test_a_step_that_goes_on_failing_is_logged_now_and_then(caplog):
    work = Work(ValueError("first"))
    step = Step("one", work)
    with caplog.at_level(logging.INFO, background.logger.name):
        for now in range(100):
            step.turn(float(now))
        work.error = KeyError("another")
        step.turn(100.0)
        work.error = None
        step.turn(101.0)
    assert [record.message for record in caplog.records] == ["step failed"] * 3 + ["step works again"]
    assert all(record.exc_info for record in caplog.records[:3])


def test_no_memory_for_long_ends_the_thread():
    steps = Steps([Step("broken", work := Work(MemoryError())), Step("well", Work())])
    for _ in range(MEMORY_PATIENCE - 1):
        steps.run()
    with pytest.raises(MemoryError):
        steps.run()
    assert work.calls == MEMORY_PATIENCE
    work.error = None
    steps.run()


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), GeneratorExit(), MemoryError()])
def test_a_vital_thread_ends_its_process(monkeypatch, error):
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    VitalThread("one", Work()).run()
    assert codes == []
    VitalThread("one", Work(error)).run()
    assert codes == [EXIT_CODE]


def test_it_does_so_even_when_nothing_can_be_logged(monkeypatch):
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(background.logger, "critical", Work(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        VitalThread("one", Work(ValueError())).run()
    assert codes == [EXIT_CODE]
