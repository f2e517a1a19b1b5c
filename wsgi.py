"""The web composition root: `gunicorn wsgi:app`, `flask --app wsgi ...`."""

from __future__ import annotations

from webapp import create_app

app = create_app()
