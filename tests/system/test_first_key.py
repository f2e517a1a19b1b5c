"""`ops up` on an address that others reach: it makes the first key, and lets no one in without one."""

from __future__ import annotations

import shlex
import stat
from pathlib import Path

import pytest
import requests
from stacks import api_of, ops, surroundings

from ops.stack import prometheus


def metrics_key_of(file):
    """The key beside the admin's; None where there is no Prometheus to need one."""
    beside = file.with_name("metrics.key")
    return beside.read_text() if beside.exists() else None


pytestmark = pytest.mark.system


def test_up_beyond_loopback_makes_a_key_once_and_asks_for_it(eventually):
    with surroundings() as environment:
        environment["API_HOST"] = "0.0.0.0"  # noqa: S104 - on a port of the test's own
        file = Path(environment["DJPS_DATA_DIR"]) / "secrets" / "admin.key"
        try:
            said = ops(environment, "up", "--detach")
            assert f"an admin key is in {file}" in said
            assert f'-H "Authorization: Bearer $(cat {shlex.quote(str(file))})"' in said
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            headers = {"Authorization": f"Bearer {file.read_text().strip()}"}
            api = api_of(environment)
            assert requests.get(f"{api}/jobs", timeout=10).status_code == 401
            me = requests.get(f"{api}/access/me", headers=headers, timeout=10).json()
            assert (me["mode"], me["name"]) == ("keys", "admin")
            made = requests.post(
                f"{api}/jobs", json={"payload": {"task": "noop"}}, headers=headers, timeout=10
            ).json()
            done = requests.get(f"{api}/jobs/{made['id']}?wait=30", headers=headers, timeout=40).json()
            assert done["status"] == "completed"
            if prometheus.find() is not None:
                metrics_key = file.with_name("metrics.key")
                assert stat.S_IMODE(metrics_key.stat().st_mode) == 0o600
                scraper = {"Authorization": f"Bearer {metrics_key.read_text().strip()}"}
                assert requests.get(f"{api}/metrics", headers=scraper, timeout=10).status_code == 200
                assert requests.get(f"{api}/jobs", headers=scraper, timeout=10).status_code == 403
                asked = f"http://127.0.0.1:{environment['PROMETHEUS_PORT']}/api/v1/query?query=up%7Bjob%3D%22djps-api%22%7D"
                eventually(
                    lambda: (
                        [one["value"][1] for one in requests.get(asked, timeout=10).json()["data"]["result"]]
                        == ["1"]
                    )
                )
            # The commands of the stack reach it as before.
            assert "admin" in ops(environment, "access", "key", "list")
            kept, kept_metrics = file.read_text(), metrics_key_of(file)
            assert "DJPS is down" in ops(environment, "down")
            assert "an admin key is in" not in ops(environment, "up", "--detach")
            assert (file.read_text(), metrics_key_of(file)) == (kept, kept_metrics)
            assert requests.get(f"{api}/jobs", headers=headers, timeout=10).status_code == 200
            ops(environment, "access", "key", "revoke", str(me["key"]))
            eventually(lambda: requests.get(f"{api}/jobs", headers=headers, timeout=10).status_code == 401)
        finally:
            ops(environment, "down", expect=None)
