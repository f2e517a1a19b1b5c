"""What the harness adds to the database: the jobs' effects, a log of every change of state, and ways to be slow."""

from __future__ import annotations

#: `effects` has one row for each execution that began; `committed` says that its effect came through the fence.
#: `transitions` and `final_writes` are written by triggers, so nothing a worker does can go unseen; `tx` is its transaction. They come before the UPDATE:
#: after one that moves a job to its day of history, no trigger knows what the row was.
INSTALL = """
CREATE TABLE effects (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id uuid NOT NULL, attempt int NOT NULL, pid int NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz, committed boolean NOT NULL DEFAULT false);
CREATE INDEX effects_by_job ON effects (job_id, attempt);

CREATE TABLE transitions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id uuid NOT NULL, attempt int NOT NULL, old text NOT NULL, new text NOT NULL, worker_id text,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), tx xid8 NOT NULL DEFAULT pg_current_xact_id());
CREATE INDEX transitions_by_job ON transitions (job_id, attempt);
CREATE INDEX transitions_by_tx ON transitions (tx);

CREATE TABLE final_writes (job_id uuid NOT NULL, old jsonb NOT NULL, new jsonb NOT NULL);

CREATE FUNCTION note_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO transitions (job_id, attempt, old, new, worker_id)
    VALUES (NEW.id, NEW.attempt, OLD.status, NEW.status, NEW.worker_id);
    RETURN NEW;
END $$;
CREATE TRIGGER note_transition BEFORE UPDATE ON jobs FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION note_transition();

CREATE FUNCTION note_final_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO final_writes VALUES (NEW.id, to_jsonb(OLD), to_jsonb(NEW));
    RETURN NEW;
END $$;
CREATE TRIGGER note_final_write BEFORE UPDATE ON jobs FOR EACH ROW
    WHEN (OLD.status IN ('completed', 'failed', 'cancelled') AND OLD.* *<> NEW.*)
    EXECUTE FUNCTION note_final_write();

CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.15);
    RETURN NULL;
END $$;

CREATE FUNCTION be_deadlocked() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE chance float := random();
BEGIN
    IF chance < 0.06 THEN RAISE EXCEPTION 'chaos: deadlock detected' USING ERRCODE = '40P01';
    ELSIF chance < 0.09 THEN RAISE EXCEPTION 'chaos: could not serialize' USING ERRCODE = '40001';
    ELSIF chance < 0.12 THEN RAISE EXCEPTION 'chaos: lock not available' USING ERRCODE = '55P03';
    END IF;
    RETURN NULL;
END $$;
"""

#: The statements of the product name the whole table where a row may move, else the one where jobs live.
_TABLES = ("jobs", "jobs_living")


def _on(function: str) -> str:
    """Has a function run after each statement that writes a job."""
    return "; ".join(
        f"CREATE TRIGGER {function} AFTER INSERT OR UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        for table in _TABLES
    )


def _off(function: str) -> str:
    return "; ".join(f"DROP TRIGGER {function} ON {table}" for table in _TABLES)


SLOW_ON, SLOW_OFF = _on("be_slow"), _off("be_slow")
DEADLOCKS_ON, DEADLOCKS_OFF = _on("be_deadlocked"), _off("be_deadlocked")
