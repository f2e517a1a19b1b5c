"""The web composition root: `gunicorn wsgi:app`, `flask --app wsgi ...`."""

from __future__ import annotations

from webapp import create_app
from webapp.startup import loading, one_sentence

with one_sentence(), loading():
    app = create_app()
