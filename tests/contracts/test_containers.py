"""The image and the compose files: valid, hardened, and the same processes as `ops up`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import resources
from io import StringIO
from pathlib import Path

import jsonschema
import pytest
import yaml
from deployed import (
    DOCKER,
    ROLES,
    ROOT,
    asked_for,
    command,
    compose,
    expected,
    known_settings,
    seconds,
)
from dotenv import dotenv_values

from ops import new_secrets
from webapp.access.secret import new_key

BIN = Path(sys.prefix) / "bin"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
FILES = ("compose.yaml", "compose.test.yaml")
SERVICES = compose("compose.yaml")["services"]


@pytest.fixture(scope="module")
def schema():
    vendor = resources.files("check_jsonschema.builtin_schemas.vendor")
    return json.loads((vendor / "compose-spec.json").read_text())


@pytest.mark.parametrize("name", FILES)
def test_a_compose_file_follows_the_specification(schema, name):
    jsonschema.validate(compose(name), schema)


def test_a_wrong_compose_file_would_be_noticed(schema):
    wrong = compose("compose.yaml")
    wrong["services"]["api"]["stop_grace"] = "30s"
    with pytest.raises(jsonschema.ValidationError, match="stop_grace"):
        jsonschema.validate(wrong, schema)


def test_hadolint_finds_nothing_in_the_dockerfile():
    done = subprocess.run(
        [BIN / "hadolint", "--no-color", DOCKER / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("role", ROLES)
def test_a_service_runs_the_command_of_ops_up(role):
    assert SERVICES[role]["command"] == command(expected()[role])


def test_the_image_runs_the_api_when_no_command_is_given():
    given = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1]
    assert json.loads(given) == command(expected()["api"])


@pytest.mark.parametrize("role", ROLES)
def test_a_service_gets_longer_to_end_than_ops_up_gives_it(role):
    process = expected()[role]
    if process.stop_signal == "KILL":
        assert SERVICES[role]["stop_signal"] == "SIGKILL"
    else:
        assert seconds(SERVICES[role]["stop_grace_period"]) >= process.stop_wait


@pytest.mark.parametrize("role", [*ROLES, "migrate"])
def test_our_services_may_write_to_memory_only(role):
    service = SERVICES[role]
    assert service["read_only"] is True
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert "volumes" not in service
    assert {entry.partition(":")[0] for entry in service["tmpfs"]} == {"/tmp", "/run/djps"}  # noqa: S108 - a mount


@pytest.mark.parametrize("name", list(SERVICES))
def test_every_service_is_limited_and_watched(name):
    service = SERVICES[name]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["logging"]["options"]["max-size"]
    if name == "migrate":
        assert service["restart"] == "no"
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"]


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in {*ROLES, "migrate"}])
def test_an_image_of_others_is_pinned_to_a_version(name):
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", SERVICES[name]["image"])


def test_every_port_is_published_on_loopback_only():
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert sorted(published) == sorted(f"127.0.0.1:{port}:{port}" for port in (3000, 5555, 8000, 9090))


def test_the_record_and_the_broker_are_out_of_reach_and_durable():
    for name in ("postgres", "redis"):
        assert SERVICES[name]["networks"] == ["data"]
        assert SERVICES[name]["volumes"]
    assert compose("compose.yaml")["networks"]["data"]["internal"] is True
    words = SERVICES["redis"]["command"]
    assert words[words.index("--appendonly") + 1] == "yes"
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
    assert "--maxmemory" in words


@pytest.mark.parametrize("role", [*ROLES, "migrate"])
def test_a_service_is_given_settings_that_are_there(role):
    assert set(SERVICES[role]["environment"]) <= known_settings()


def test_settings_of_the_user_come_before_those_that_hold_by_default():
    files = [one["path"] for one in SERVICES["api"]["env_file"]]
    assert files == ["defaults.env", "../../.env"]
    by_default = dotenv_values(DOCKER / "defaults.env")
    assert by_default == {"API_AUTH": "keys"}
    # What `environment` says cannot be set in .env.
    assert not set(by_default) & set(SERVICES["api"]["environment"])


def test_no_password_has_a_default_and_ops_makes_every_one_that_is_asked_for():
    secret = re.compile(r"PASSWORD|_AUTH$|SECRET|_KEY$")
    with_default = set(re.findall(r"\$\{(\w+):-", (DOCKER / "compose.yaml").read_text()))
    assert not [name for name in with_default if secret.search(name)]
    made = dotenv_values(stream=StringIO("\n".join(new_secrets.lines(new_key(), new_key()))))
    assert asked_for("compose.yaml") | {"METRICS_KEY"} == set(made) & (
        asked_for("compose.yaml") | {"METRICS_KEY"}
    )
    assert set(made) - asked_for("compose.yaml") - {"METRICS_KEY"} <= known_settings()
    assert all(made.values())


def test_the_servers_ask_for_passwords_and_prometheus_has_its_key():
    words = SERVICES["redis"]["command"]
    assert words[words.index("--requirepass") + 1] == "<REDIS_PASSWORD>"
    assert "<REDIS_PASSWORD>" in SERVICES["api"]["environment"]["REDIS_URL"]
    assert "<POSTGRES_PASSWORD>" in SERVICES["api"]["environment"]["DATABASE_URL"]
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"] == "<POSTGRES_PASSWORD>"
    assert compose("compose.yaml")["secrets"] == {"metrics-key": {"environment": "METRICS_KEY"}}
    read = yaml.safe_load((ROOT / "ops" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    (api,) = [job for job in read if job["job_name"] == "djps-api"]
    assert api["authorization"] == {
        "credentials_file": f"/run/secrets/{SERVICES['prometheus']['secrets'][0]}"
    }


def test_what_the_dockerfile_copies_reaches_the_builder():
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source
        for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in sent
    assert all((ROOT / name).exists() for name in sent)
