"""The INSERT-only endpoint: Flask and gunicorn as the project runs them, one INSERT and one commit.

It keeps no keys, checks nothing, publishes nothing and writes no access log: what a POST costs at the least.
"""

from __future__ import annotations

import json
import os
import uuid

from flask import Flask, Response, jsonify, request
from sqlalchemy import create_engine, text

app = Flask(__name__)
engine = create_engine(os.environ["BENCH_DATABASE"], pool_size=4, max_overflow=2)
insert = text(
    "INSERT INTO floor_jobs (id, payload) VALUES (:id, CAST(:payload AS jsonb)) RETURNING id, status, created_at"
)


@app.post("/jobs")
def submit() -> tuple[Response, int]:
    """Stores the payload."""
    payload = request.get_json()["payload"]
    with engine.begin() as connection:
        row = connection.execute(insert, {"id": uuid.uuid4(), "payload": json.dumps(payload)}).one()
    return jsonify(id=str(row.id), status=row.status, created_at=row.created_at.isoformat()), 201


@app.get("/health")
def health() -> Response:
    """Tells that it is up."""
    return jsonify(status="ok")
