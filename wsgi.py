"""The web composition root: `gunicorn wsgi:app`, `flask --app wsgi ...`."""

from __future__ import annotations

import os

from webapp import create_app
from webapp.api.callers import check_start
from webapp.startup import loading, one_sentence

with one_sentence(), loading():
    app = create_app()
    if os.environ.get("FLASK_RUN_FROM_CLI") != "true":
        # The command line makes the first key.
        check_start(app)
