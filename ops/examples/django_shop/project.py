"""The least settings of a Django project; yours has its own."""

from __future__ import annotations

import os

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "of an example")
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "shop.views"
INSTALLED_APPS = ["shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DATABASE", "shop.db"),
        "OPTIONS": {"timeout": 10, "transaction_mode": "IMMEDIATE"},
    }
}
#: Where jobs are submitted, and the seconds that it may take.
DJPS_URL = os.environ.get("DJPS_URL", "http://127.0.0.1:8000")
DJPS_TIMEOUT = 5
