"""How the stack's Prometheus shows a key, where the API asks for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ops.stack import metrics_key, prometheus
from webapp.settings import Settings

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound here


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, False),
        ({"api_auth": "keys"}, True),
        ({"api_auth": "open"}, False),
        ({"api_host": EVERYWHERE}, True),
        ({"api_host": EVERYWHERE, "api_auth": "open"}, False),
        ({"trusted_proxies": 1}, True),
    ],
)
def test_a_key_is_needed_where_the_api_asks_for_one(changes, needed):
    assert metrics_key.is_needed(Settings(**{"api_auth": "auto", **changes})) is needed


@pytest.mark.parametrize("file", [None, Path("/home/an operator's: folder/secrets/metrics.key")])
def test_only_the_api_is_shown_the_key(file):
    read = yaml.safe_load(prometheus.configuration(8000, 5555, credentials=file))
    api, flower = read["scrape_configs"]
    assert api.get("authorization") == (None if file is None else {"credentials_file": str(file)})
    assert api["static_configs"] == [{"targets": ["127.0.0.1:8000"]}]
    assert "authorization" not in flower
