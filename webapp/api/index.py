"""`/`: where everything else is."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from webapp import VERSION
from webapp.api import examples
from webapp.api.openapi import documented
from webapp.api.schemas import IndexAnswer

bp = Blueprint("index", __name__)


@bp.get("/")
@documented({200: IndexAnswer}, examples=examples.INDEX)
def index() -> Response:
    """What answers here, and where to read on."""
    return jsonify(IndexAnswer(version=VERSION).model_dump())
