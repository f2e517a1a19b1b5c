"""Prometheus: found on this machine or taken from Debian's packages, and configured for a stack.

No wheel ships it. `install` unpacks Debian's package into `.venv`, which needs no root and starts no service.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from ops.stack.ports import LOOPBACK
from ops.stack.venv import ROOT, VENV

#: Where `install` puts it.
FOLDER = VENV / "prometheus"
#: The rules that are loaded.
RULES = ROOT / "ops" / "prometheus" / "rules"
#: Longest that apt may take for one step, seconds.
APT_PATIENCE = 300
#: How long figures are kept.
RETENTION = "7d"


class PrometheusError(Exception):
    """Prometheus cannot be had here; the message says what to do."""


def find(name: str = "prometheus") -> Path | None:
    """A program of Prometheus, `prometheus` or `promtool`: ours, or else this machine's; None when there is none."""
    ours = FOLDER / "usr" / "bin" / name
    if ours.exists():
        return ours
    on_path = shutil.which(name)
    return Path(on_path) if on_path is not None else None


def install() -> None:
    """Makes sure that Prometheus is here.

    Raises:
        PrometheusError: it is not, and Debian's packages cannot be reached.
    """
    if find() is not None and find("promtool") is not None:
        return
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise PrometheusError(
            "Prometheus is not installed, and this is no Debian: put `prometheus` and `promtool` on the PATH"
        )
    with tempfile.TemporaryDirectory(dir=VENV) as folder:
        if _apt(folder, "download", "prometheus") is not None:
            _apt(folder, "update")
            said = _apt(folder, "download", "prometheus")
            if said is not None:
                raise PrometheusError(
                    f"Prometheus is not installed, and Debian's package cannot be had ({said}): as root,"
                    " `apt-get update && apt-get install prometheus`"
                )
        (package,) = Path(folder).glob("prometheus_*.deb")
        unpacked = Path(folder) / "unpacked"
        subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True, timeout=APT_PATIENCE)
        shutil.rmtree(FOLDER, ignore_errors=True)
        unpacked.rename(FOLDER)


def _apt(folder: str, *words: str) -> str | None:
    """Runs apt-get; returns its last line when it failed."""
    done = subprocess.run(
        ["apt-get", "--quiet", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=APT_PATIENCE,
    )
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]


def configuration(
    api_port: int, flower_port: int, *, interval: str = "5s", credentials: Path | None = None
) -> str:
    """The configuration that scrapes one machine's stack.

    Args:
        credentials: the file with the key that the API asks for; None: it asks for none.
        interval: time between two scrapes, and between two looks at the rules of no interval of their own.
    """
    shown = (
        ""
        if credentials is None
        else f"    authorization: {{credentials_file: {json.dumps(str(credentials))}}}\n"
    )
    return f"""\
global:
  scrape_interval: {interval}
  scrape_timeout: {interval}
  evaluation_interval: {interval}
rule_files: ["{RULES}/*.yml"]
scrape_configs:
  - job_name: djps-api
{shown}    static_configs: [{{targets: ["{LOOPBACK}:{api_port}"]}}]
  - job_name: flower
    static_configs: [{{targets: ["{LOOPBACK}:{flower_port}"]}}]
    metric_relabel_configs:
      - {{source_labels: [__name__], regex: flower_.*, action: keep}}
"""


def command(program: Path, configured: Path, data: Path, port: int) -> list[str]:
    """What runs it in the foreground.

    Args:
        configured: the file with `configuration`.
        data: where it keeps its figures.
    """
    return [
        str(program),
        f"--config.file={configured}",
        f"--storage.tsdb.path={data}",
        f"--storage.tsdb.retention.time={RETENTION}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--log.level=warn",
    ]
