"""What a claim of each order reads of a key with a large backlog: its index entries, whatever waits."""

from __future__ import annotations

import pytest
from sqlalchemy import text

#: Jobs of one key, of which each priority has a tenth, and keys of one job beside it.
BACKLOG, KEYS = 30_000, 20
#: Most index entries and rows of the jobs that live that a claim of one job may read.
MOST = 400
_FILL = text("""
    INSERT INTO jobs_living (id, task, payload, queue, key, lane, dispatched_at, max_retries, timeout, fingerprint, status, priority)
    SELECT uuidv7(), 'noop', '{}', 'default', key, djps_lane('default', key), 'infinity', 3, 60, '', 'queued', n % 10
      FROM (SELECT n, CASE WHEN n > :backlog THEN 'k' || n ELSE 'large' END AS key
              FROM generate_series(1, :backlog + :keys) AS n) AS numbered""")
#: Jobs without a lane, of which the planner has heard before; their pages stay.
PLAIN = 300
_PLAIN = text("""
    INSERT INTO jobs_living (id, task, payload, queue, max_retries, timeout, fingerprint, status)
    SELECT uuidv7(), 'noop', '{}', 'default', 3, 60, '', 'queued' FROM generate_series(1, :many)""")
#: What this session has read and not reported yet, functions included: rows by scans of the table, entries by each index.
_READ = text("""
    SELECT sum(pg_stat_get_xact_tuples_returned(one)) FROM (
        SELECT CAST('jobs_living' AS regclass) AS one
         UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = CAST('jobs_living' AS regclass)) AS all_of_it""")
_USED = text("SELECT pg_stat_get_xact_numscans(CAST('jobs_lane_begun' AS regclass))")
_TAKE = text("SELECT id FROM djps_take('default', 'noop', 60, :limit, :worker, 60)")
_RULE = text(
    "INSERT INTO queues (name, key_order, ageing, is_limited) VALUES ('default', :key_order, :ageing, true)"
)
_CALLS = """
    DELETE FROM lane_wakeups;
    INSERT INTO lane_wakeups (queue, lane, task, key, timeout) SELECT queue, lane, task, min(key), 60 FROM jobs_living GROUP BY 1, 2, 3"""
_BEGUN = text("""
    UPDATE jobs_living SET attempt = 1, last_attempt_at = now(), run_at = now() + interval '1 hour'
     WHERE id = (SELECT id FROM jobs_living WHERE key = 'large' ORDER BY id DESC LIMIT 1)""")


@pytest.mark.parametrize("known", ["full", "empty", "plain jobs", "plain jobs, then empty"])
@pytest.mark.parametrize(
    ("rule", "begun"),
    [((None, None), False), ((None, 60.0), False), (("fifo", None), False), (("fifo", None), True)],
)
def test_a_claim_reads_no_backlog(engine, rule, begun, known):
    with engine.connect() as connection, connection.begin() as transaction:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        if "plain jobs" in known:
            connection.execute(_PLAIN, {"many": PLAIN})
            connection.exec_driver_sql("ANALYZE jobs_living; ANALYZE lanes; DELETE FROM jobs_living")
        if "empty" in known:
            connection.exec_driver_sql("ANALYZE jobs_living; ANALYZE lanes")
        connection.execute(_RULE, {"key_order": rule[0], "ageing": rule[1]})
        connection.execute(_FILL, {"backlog": BACKLOG, "keys": KEYS})
        if begun:
            connection.execute(_BEGUN)
        # One wake-up for each lane, as one statement of a batch leaves them.
        connection.exec_driver_sql(_CALLS)
        if known == "full":
            connection.exec_driver_sql("ANALYZE jobs_living; ANALYZE lanes")
        found, scans = [], connection.execute(_USED).scalar_one()
        for number in range(4):
            before = connection.execute(_READ).scalar_one()
            taken = connection.execute(_TAKE, {"limit": 1, "worker": f"w/{number}"}).all()
            found.append((len(taken), connection.execute(_READ).scalar_one() - before))
        scans = connection.execute(_USED).scalar_one() - scans
        transaction.rollback()
    assert [jobs for jobs, _ in found] == [1, 1, 1, 1]
    assert max(read for _, read in found) <= MOST, found
    assert (scans > 0) == (rule[0] is not None)
