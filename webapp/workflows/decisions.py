"""What follows from how the steps of a workflow stand: which begin, which are left out and why, and how the whole stands. Pure.

It goes by how things stand and by nothing that happened: what a step that never began is (it waits, it begins, it is left out) is decided anew
each time from those that did. So a failed step that is queued again takes back what followed from its failure, and no step can wait for what
will not come: steps are gone through in an order in which each comes behind those that it waits for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from webapp.groups.model import Totals
from webapp.workflows.model import PASSED_ON, Node, OnFailure, Status, StepStatus, When, Why

_OF_STATUS = {
    StepStatus.FAILED: Why.BEFORE_FAILED,
    StepStatus.CANCELLED: Why.BEFORE_CANCELLED,
    StepStatus.SKIPPED: Why.BEFORE_SKIPPED,
}


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of a workflow.

    Args:
        nodes: its steps by number, each behind those that it waits for.
        begun: how those stand that began, or failed without a job: `running`, `completed`, `failed` or `cancelled`.
        asked: which of them were asked to stop because of the workflow.
        fail_fast: a failure that ends it has what still runs be asked to stop.
        is_cancelled: its cancellation was asked.
    """

    nodes: Sequence[Node]
    begun: Mapping[int, StepStatus]
    asked: frozenset[int] = frozenset()
    fail_fast: bool = False
    is_cancelled: bool = False


@dataclass(slots=True)
class Decision:
    """What follows.

    Args:
        status: how the workflow stands.
        stands: how each of its steps does, with the reason of those that are left out; of those that begin now, that they wait.
        begins: which begin now.
        stops: which are to be asked to stop.
        totals: how many came to what.
    """

    status: Status = Status.RUNNING
    stands: dict[int, tuple[StepStatus, Why | None]] = field(default_factory=dict)
    begins: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    totals: Totals = field(default_factory=lambda: Totals(0, 0, 0, 0, 0))


def decide(at: Situation) -> Decision:
    """What follows from how the steps stand.

    Example:
        >>> extract, load = Node(0, "extract"), Node(1, "load", (0,))
        >>> decide(Situation((extract, load), {})).begins
        [0]
        >>> decide(Situation((extract, load), {0: StepStatus.COMPLETED})).begins
        [1]
    """
    return _Turn(at).decided()


class _Turn:
    """One decision on its way.

    Args:
        at: what is known.
    """

    def __init__(self, at: Situation) -> None:
        self._at = at
        self._own = [node for node in at.nodes if node.undoes is None]
        self._undoing = [node for node in at.nodes if node.undoes is not None]
        self._decided = Decision()
        self._stands = self._decided.stands
        #: Those that ended and not well, or were left out because of such a one.
        self._broken: set[int] = set()
        #: Those behind which nothing runs any more: they ended, or were left out and all before them are so.
        self._settled: set[int] = set()
        self._fails = any(self._breaks(node, OnFailure.FAIL) for node in self._own)
        self._is_undone = any(node.number in at.begun for node in self._undoing)

    def decided(self) -> Decision:
        """What follows."""
        for node in self._own:
            self._place(node)
        have_ended = all(self._stands[node.number][0].is_final for node in self._own)
        outcome = self._outcome()
        for node in self._undoing:
            self._place_undoing(node, outcome, have_ended=have_ended)
        self._decided.status = self._status(outcome, have_ended=have_ended)
        self._decided.stops = [node.number for node in self._own if self._is_to_stop(node)]
        self._decided.totals = self._totals()
        return self._decided

    def _breaks(self, node: Node, *policies: OnFailure) -> bool:
        found = self._at.begun.get(node.number)
        return found is not None and found.is_broken and node.on_failure in policies

    def _place(self, node: Node) -> None:
        """Says how a step of the client's stands."""
        begun = self._at.begun.get(node.number)
        if begun is not None:
            self._stands[node.number] = (begun, None)
            if begun.is_broken:
                self._broken.add(node.number)
            if begun.is_final:
                self._settled.add(node.number)
            return
        why = self._left_out(node)
        if why is not None:
            self._stands[node.number] = (StepStatus.SKIPPED, why)
            if why in PASSED_ON or (why is Why.BEFORE_SKIPPED and not self._broken.isdisjoint(node.after)):
                self._broken.add(node.number)
            if self._settled.issuperset(node.after):
                self._settled.add(node.number)
            return
        self._stands[node.number] = (StepStatus.WAITING, None)
        if all(self._lets_begin(node, other) for other in node.after):
            self._decided.begins.append(node.number)

    def _lets_begin(self, node: Node, other: int) -> bool:
        status = self._stands[other][0]
        if node.is_finalizer:
            # It may tidy up what those need that still run before a step that was left out.
            return other in self._settled
        # What breaks a step that waits for completed ones is left out above, where it does not let it begin.
        return status.is_broken or status is StepStatus.COMPLETED

    def _left_out(self, node: Node) -> Why | None:
        """Why a step will not begin, as things stand; None: it waits, or begins."""
        if self._is_undone:
            return Why.UNDONE
        if node.is_finalizer:
            return self._no_failure(node)
        for other in node.after:
            status = self._stands[other][0]
            goes_on = status.is_broken and self._at.nodes[other].on_failure is OnFailure.CONTINUE
            if status in _OF_STATUS and not goes_on:
                return _OF_STATUS[status]
        if self._at.is_cancelled:
            return Why.WORKFLOW_CANCELLED
        return Why.WORKFLOW_FAILED if self._fails else None

    def _no_failure(self, node: Node) -> Why | None:
        if node.when is not When.ANY_FAILED:
            return None
        has_ended = self._settled.issuperset(node.after)
        return Why.NONE_FAILED if has_ended and self._broken.isdisjoint(node.after) else None

    def _outcome(self) -> Status:
        """What the workflow comes to, or would if it ended as it stands."""
        if self._at.is_cancelled:
            return Status.CANCELLED
        broken = any(self._breaks(node, OnFailure.FAIL, OnFailure.SKIP) for node in self._own)
        return Status.FAILED if broken or self._is_undone else Status.COMPLETED

    def _place_undoing(self, node: Node, outcome: Status, *, have_ended: bool) -> None:
        """Says how a step stands that undoes another one: it begins when nothing else runs any more."""
        begun = self._at.begun.get(node.number)
        undone = self._stands[node.undoes or 0][0]
        if begun is not None:
            self._stands[node.number] = (begun, None)
        elif not have_ended:
            self._stands[node.number] = (StepStatus.WAITING, None)
        elif outcome is Status.COMPLETED or undone is not StepStatus.COMPLETED:
            self._stands[node.number] = (StepStatus.SKIPPED, Why.NOTHING_TO_UNDO)
        else:
            self._stands[node.number] = (StepStatus.WAITING, None)
            if all(self._stands[other][0].is_final for other in node.after):
                self._decided.begins.append(node.number)

    def _status(self, outcome: Status, *, have_ended: bool) -> Status:
        if all(self._stands[node.number][0].is_final for node in self._at.nodes):
            return outcome
        if self._is_undone or have_ended:
            return Status.COMPENSATING
        return Status.CANCELLING if self._at.is_cancelled else Status.RUNNING

    def _is_to_stop(self, node: Node) -> bool:
        ends = self._at.is_cancelled or (self._at.fail_fast and self._fails)
        is_running = self._at.begun.get(node.number) is StepStatus.RUNNING
        return ends and is_running and not node.is_finalizer and node.number not in self._at.asked

    def _totals(self) -> Totals:
        of = [self._stands[node.number][0] for node in self._own]
        ended = (StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.CANCELLED, StepStatus.SKIPPED)
        return Totals(len(of), *(of.count(status) for status in ended))
