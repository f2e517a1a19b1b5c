"""What the sweep of seals costs when nothing waits for one: a few blocks, whatever is on record and wherever it was numbered."""

from __future__ import annotations

import pytest
from sqlalchemy import event, text

from tasks.sweeps import seal_audit
from webapp.audit import seal_store

#: Lines on record, all of them sealed.
MANY = 20_000
#: Most blocks that a look for what waits may touch, in a few months; to go through all lines takes some hundreds.
FEW_BLOCKS = 60
#: Most blocks that looks at two seals may touch: one for each of their lines, and a few.
BLOCKS_OF_TWO = 2 * 1_000 + FEW_BLOCKS
#: Most statements of a run.
FEW_STATEMENTS = 16


def fill(engine, xid):
    """Puts lines on record; their transactions are an expression over `n`."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_events (xid, event, actor_kind, actor_id, actor_name)"  # noqa: S608 - from the table below
                f" SELECT CAST(CAST({xid} AS text) AS xid8), 'job.cancel', 'key', '7', 'shop' FROM generate_series(1, :many) AS n"
            ),
            {"many": MANY},
        )


def blocks_of(engine, work):
    """Blocks that each statement of some work touches; it is asked again for that."""
    sent = []

    def note(_connection, _cursor, statement, parameters, *_):
        sent.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    touched = []
    with engine.connect() as connection:
        for statement, parameters in sent:
            asked = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement[statement.index('SELECT') :]}"
            ((plan,),) = connection.exec_driver_sql(asked, parameters).all()
            touched.append(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])
    return touched


def gauge(engine):
    with engine.connect() as connection:
        return seal_store.oldest_waiting(connection)


#: Which server has sealed the lines, and the numbers of their transactions.
NUMBERED = {
    "here": (None, "(SELECT pg_current_xact_id())"),
    "elsewhere, and further": (None, f"{10**15} + n"),
    "elsewhere, and not as far": (1, "n % 500 + 3"),
}


@pytest.mark.parametrize("numbered", NUMBERED)
@pytest.mark.parametrize("is_analyzed", [False, True])
def test_a_run_without_anything_to_seal_touches_a_few_blocks(engine, parts, seal, numbered, is_analyzed):
    server, xid = NUMBERED[numbered]
    fill(engine, xid)
    made = seal(server=server) + (seal() if server else [])
    assert sum(one.events for one in made) == MANY
    if is_analyzed:
        with engine.begin() as connection:
            connection.execute(text("ANALYZE audit_events, audit_seals"))
    sealing = blocks_of(engine, lambda: seal_audit.run_seal(parts))
    looking = blocks_of(engine, lambda: seal_audit.run_look(parts))
    asking = blocks_of(engine, lambda: gauge(engine))
    assert len(sealing) + len(looking) <= FEW_STATEMENTS
    assert sum(sealing) <= FEW_BLOCKS, sealing
    assert sum(asking) <= FEW_BLOCKS, asking
    assert sum(looking) <= BLOCKS_OF_TWO, looking
