"""Books a CSV file of stock movements (`sku,amount`), each line once only, however often the job is run.

How to run it:

    export IMPORT_FOLDER=/srv/imports IMPORT_DATABASE_URL=postgresql+psycopg2://shop:secret@127.0.0.1/shop
    PYTHONPATH=. .venv/bin/python ops/examples/handlers/import_handlers.py  # makes the tables
    PYTHONPATH=ops/examples/handlers HANDLERS=import_handlers python3 -m ops up
    curl http://127.0.0.1:8000/jobs -H 'Content-Type: application/json' \
        -d '{"payload": {"task": "import-csv", "file": "monday.csv"}}'

How far a job came stands in `imports`, written in the transaction that books the lines: both are kept or neither is. The next
attempt goes on from there, after a worker's death as after a cancellation, a mended file and `POST /jobs/{id}/retry`.
"""

from __future__ import annotations

import csv
import os
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field
from sqlalchemy import create_engine, text

from webapp.jobs import Discard, JobContext, Retry, handler

FOLDER = Path(os.environ.get("IMPORT_FOLDER", "."))
#: Connects when it is first used, which is after the worker has forked.
engine = create_engine(
    os.environ.get("IMPORT_DATABASE_URL", "sqlite:///imports.db"), pool_size=1, pool_pre_ping=True
)
#: Lines of a transaction: what is done again at most, and how soon a cancellation is seen.
CHUNK = 100
TABLES = (
    "CREATE TABLE IF NOT EXISTS imports (job_id VARCHAR(36) PRIMARY KEY, done INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS stock (sku VARCHAR(64) PRIMARY KEY, amount BIGINT NOT NULL)",
)
BEGIN = text("INSERT INTO imports (job_id, done) VALUES (:job, 0) ON CONFLICT DO NOTHING")
DONE = text("SELECT done FROM imports WHERE job_id = :job")
GO_ON = text("UPDATE imports SET done = :to WHERE job_id = :job AND done = :done")
BOOK = text(
    "INSERT INTO stock (sku, amount) VALUES (:sku, :amount)"
    " ON CONFLICT (sku) DO UPDATE SET amount = stock.amount + excluded.amount"
)


class Import(BaseModel):
    """A file of the folder: a bare name, so that none leads out of it."""

    file: Annotated[str, Field(pattern=r"^\w[\w.-]*\.csv$", max_length=100)]


@handler("import-csv", max_retries=3, timeout=3600, model=Import)
def import_csv(payload: dict[str, Any], context: JobContext) -> dict[str, int]:
    """Books the lines of a file that are not booked yet; says how far it is."""
    path, job = FOLDER / payload["file"], str(context.job_id)
    with path.open(newline="", encoding="utf-8-sig") as file:
        total = sum(1 for _ in csv.DictReader(file))
    with engine.begin() as connection:
        connection.execute(BEGIN, {"job": job})
        done = before = connection.execute(DONE, {"job": job}).scalar_one()
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = islice(csv.DictReader(file), done, None)
        while chunk := [read(line, done + n) for n, line in enumerate(islice(lines, CHUNK), 1)]:
            context.check_cancelled()
            with engine.begin() as connection:
                moved = {"job": job, "done": done, "to": done + len(chunk)}
                # An attempt that was taken for dead, and is not, finds that another one went on.
                if connection.execute(GO_ON, moved).rowcount == 0:
                    raise Retry("another attempt is at it")
                # In one order, so that two imports do not wait for each other.
                connection.execute(BOOK, sorted(chunk, key=itemgetter("sku")))
            done += len(chunk)
            context.progress(done, total, payload["file"])
    return {"lines": done, "lines_of_this_attempt": done - before}


def read(line: dict[str, str], number: int) -> dict[str, str | int]:
    """One line's values.

    Raises:
        Discard: it is wrong, and will be at every try; the dead letter says where.
    """
    try:
        return {"sku": line["sku"], "amount": int(line["amount"])}
    except (KeyError, TypeError, ValueError) as error:
        raise Discard(f"line {number} of the file: {error!r}") from None


if __name__ == "__main__":
    with engine.begin() as made:
        for table in TABLES:
            made.execute(text(table))
