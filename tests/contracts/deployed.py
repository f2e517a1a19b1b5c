"""What the compose files and manifests say, and what `ops up` would run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ops.stack import processes
from webapp.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "ops" / "docker"
KUBERNETES = ROOT / "ops" / "kubernetes"
#: Set by us for processes, but no setting of DJPS.
BESIDE_SETTINGS = {"PROMETHEUS_MULTIPROC_DIR"}
#: What runs in containers under the name it has in `ops up`.
ROLES = ("api", "worker", "maintenance", "beat", "flower")
_GIVEN = re.compile(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")
_ASKED_FOR = re.compile(r"\$\{(\w+):\?[^}]*\}")


def expected() -> dict[str, processes.Process]:
    """The processes of `ops up` with default settings."""
    found = processes.applications(Settings(_env_file=None, _env_prefix="NOT_OF_THIS_TEST_"))
    return {process.name: process for process in found if process.name in ROLES}


def command(process: processes.Process) -> list[str]:
    """A process's command as it is in a container: found on the PATH, listening to others."""
    program, *rest = process.command
    return [Path(program).name, *(word.replace("--address=127.0.0.1", "--address=0.0.0.0") for word in rest)]


def compose(name: str) -> dict[str, Any]:
    """A compose file with the defaults of its variables; those that must be given stand as <NAME>."""
    text = _GIVEN.sub(lambda found: found["default"], (DOCKER / name).read_text())
    return yaml.safe_load(_ASKED_FOR.sub(r"<\1>", text))


def asked_for(name: str) -> set[str]:
    """The variables without which a compose file starts nothing."""
    return set(_ASKED_FOR.findall((DOCKER / name).read_text()))


def manifests() -> list[dict[str, Any]]:
    """Every object of the kustomization, in its order."""
    names = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    return [one for name in names for one in yaml.safe_load_all((KUBERNETES / name).read_text())]


def of_kind(*kinds: str) -> dict[str, dict[str, Any]]:
    """The objects of these kinds by name."""
    return {one["metadata"]["name"]: one for one in manifests() if one["kind"] in kinds}


def seconds(duration: str) -> int:
    """A compose duration of whole seconds."""
    assert duration.endswith("s"), duration
    return int(duration[:-1])


def known_settings() -> set[str]:
    """The names that processes understand."""
    return {(info.alias or name).upper() for name, info in Settings.model_fields.items()} | BESIDE_SETTINGS
