"""The web composition root: `gunicorn wsgi:app`, `flask --app wsgi ...`."""

from __future__ import annotations

from webapp import create_app
from webapp.startup import one_sentence

with one_sentence():
    app = create_app()
