"""A Django shop that submits jobs when its orders are committed, and whose worker uses its models.

How to run it, with Django installed beside DJPS (`.venv/bin/pip install Django`) and `SHOP_DATABASE` a file for both:

    export SHOP_DATABASE=/tmp/shop.db DJPS_URL=http://127.0.0.1:8000
    .venv/bin/python ops/examples/django_shop/manage.py migrate --run-syncdb
    PYTHONPATH=ops/examples/django_shop DJANGO_SETTINGS_MODULE=project HANDLERS=shop.handlers python3 -m ops up --detach
    .venv/bin/python ops/examples/django_shop/manage.py runserver 8001 &
    curl -X POST http://127.0.0.1:8001/orders -d item=lamp
    .venv/bin/python ops/examples/django_shop/manage.py send_submissions  # what could not be sent, from cron
"""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project")
    execute_from_command_line(sys.argv)
