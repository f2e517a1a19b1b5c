"""Mutants: builds with one protection switched off, each of which the checker must catch.

A checker that never fails proves nothing. An early acknowledgement of the message alone is no mutant here: the
message is a hint, so losing it is one of the faults. What is switched off is the acknowledgement that counts, the
settle: it is done before the handler has run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ops.chaos.report import Row
from ops.chaos.run import Runner
from ops.chaos.scenarios import SCENARIOS

#: Seconds a mutant gets to finish its jobs; those it loses never finish.
QUIET_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Mutant:
    """One protection less, and the scenario that must notice.

    Args:
        name: of its switch.
        what: what is switched off.
        scenario: where it must be noticed.
        by: the finding that must be among those it leads to, or words of it; empty: any of a promise that is broken.
    """

    name: str
    what: str
    scenario: str
    by: str = ""


MUTANTS = (
    Mutant("no-fence", "settle looks at neither state nor attempt", "worker-stop"),
    Mutant("early-ack", "a job is settled and its message acknowledged before it is run", "child-kill"),
    Mutant("no-redispatch", "what was sent once is never sent again", "redis-flush"),
    Mutant("no-renewal", "leases are not prolonged", "long-job"),
    Mutant("answer-first", "the client is answered before the commit", "api-worker-kill"),
    Mutant("group-told-early", "those who are stored with another one are answered before", "groups"),
    Mutant("group-trusted", "jobs whose group failed are answered as stored", "groups"),
    Mutant("any-claim", "a claim takes a job whatever its state", "msg-duplicate"),
    Mutant("cancel-in-words", "a waiting job's cancel is answered, and nothing is written", "cancel-flush"),
    Mutant(
        "off-record", "acts are done, and no line tells of them", "cancel-flush", "F5 cancels that are not"
    ),
    Mutant(
        "record-apart",
        "an act's line is committed by itself, before the act is",
        "cancel-flush",
        "F5 cancels and their lines",
    ),
    Mutant("twice", "each job is run by two processes at once", "child-stop", "I4 overlaps"),
    Mutant(
        "left-alone", "what a dead child's jobs had started is left alone", "child-kill", "I9 left behind"
    ),
    Mutant("blame-all", "whatever a dead process held counts as what it ran", "poison-chunk", "paid for it"),
    Mutant(
        "limit-all", "a job's time limit goes on while it is settled", "short-timeout-pg-away", "ended with"
    ),
    Mutant("trusting", "keys of a wrong type are left in Redis", "redis-poison-keys"),
    Mutant("unguarded", "a queue that raises stops those after it", "sweep-raises"),
    Mutant("untold", "no request that waits is woken", "follow-flush"),
    Mutant("led-astray", "connections to a read-only server are kept", "pg-read-only"),
    Mutant("every-lock-a-race", "a lock wait is a race for a key", "pg-locked", "POST answered [409]"),
    Mutant("heedless", "rules are read once and never again", "pause", "S1 started while paused"),
    Mutant(
        "forgotten",
        "a job whose message came while it was paused is not given back",
        "pause",
        "S3 late after the resume",
    ),
    Mutant("in-the-way", "jobs of a paused task are not set aside", "pause", "S5 other task waited"),
    Mutant(
        "no-ended-by",
        "an end does not look at the row for another that came first",
        "two-ends",
        "I1 ended otherwise",
    ),
    Mutant(
        "one-look",
        "what met a row on its way to history is not done again",
        "cancel-at-end",
        "a cancel that met its job's end",
    ),
    Mutant(
        "stored-again",
        "a submission whose answer was lost does not look for its job in history",
        "answer-lost",
        "a job whose answer was lost",
    ),
    Mutant("no-gate", "slots are counted by as many at once as like to", "limits", "L1"),
    Mutant(
        "no-hand-over",
        "a process ends its jobs, and comes for the next later",
        "limits",
        "L3 slots not handed on",
    ),
    Mutant("free-retries", "a rate is paid for first attempts only", "rates", "L4"),
    Mutant("no-turns", "a lane stays first whatever it had", "keys", "L7"),
    Mutant("any-key", "a key is taken for free because its lane is ready", "keys", "L8"),
    Mutant("no-order", "those after a job pass it while it waits for its next try", "order", "L10"),
    Mutant("fired-apart", "what has fired is committed before its jobs are", "schedules", "L14"),
    Mutant("fired-by-all", "a time is fired by as many as look at it", "schedules", "L14"),
    Mutant("overtaken", "a job that has not ended holds no time back", "schedules", "L15"),
    Mutant("counted-twice", "one note of eight is counted and stays", "batches", "L17"),
    Mutant("told-twice", "that an event of a batch was told is not kept", "batches", "L18"),
    Mutant(
        "closed-unjudged",
        "who closes a batch does not look whether it is over",
        "batches",
        "L17 batches left",
    ),
    Mutant("parts-forgotten", "a part that was added is added again", "batches", "L16"),
    Mutant("nameless", "a child's name is known to no other attempt", "children", "L22"),
    Mutant("noted-apart", "notes of ends are gone before steps are moved", "workflows", "L20"),
    Mutant("begun-by-all", "a step is begun by as many as look at it", "workflows", "L19"),
    Mutant("all-the-time", "a client may take as long as it likes", "slow-clients"),
)


def run(seed: int, names: Sequence[str] = ()) -> int:
    """Runs mutants; returns 0 when the checker caught them all.

    Args:
        seed: of every random choice.
        names: which of them; all where none is named.
    """
    print(f"seed {seed}", flush=True)
    caught: list[tuple[Mutant, Row, list[str]]] = []
    for mutant in (one for one in MUTANTS if not names or one.name in names):
        runner = Runner(
            seed, quiet=QUIET_PATIENCE, environment={"CHAOS_MUTANT": mutant.name}, forget_failures=True
        )
        print(f"{mutant.name}: {mutant.what}", flush=True)
        try:
            row = runner.run(replace(SCENARIOS[mutant.scenario], jobs=200))
        finally:
            runner.close()
        broken = [
            name for name, count in row.counts.items() if count and name.startswith(("I", "F", "S", "L"))
        ]
        # A system that never gets ready again is not asked about the others.
        broken += ["I8 not drained"] if any(one.startswith("I8") for one in row.findings) else []
        if mutant.by:
            broken = [mutant.by] if any(mutant.by in one for one in (*broken, *row.findings)) else []
        caught.append((mutant, row, broken))
        print(
            f"  {'caught' if broken else 'NOT CAUGHT'}: {', '.join(row.findings) or 'nothing found'}",
            flush=True,
        )
    print(f"\n{'mutant':16} {'scenario':18} {'jobs':>5}  broken")
    for mutant, row, broken in caught:
        print(f"{mutant.name:16} {mutant.scenario:18} {row.jobs:5}  {', '.join(broken) or 'NOT CAUGHT'}")
    missed = [mutant.name for mutant, _, broken in caught if not broken]
    print(f"NOT CAUGHT: {', '.join(missed)}" if missed else f"all {len(caught)} mutants were caught")
    return 1 if missed else 0
