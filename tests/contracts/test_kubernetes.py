"""The manifests: valid against Kubernetes' schemas, restricted, and the same processes as `ops up`."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest
import yaml
from deployed import KUBERNETES, ROLES, command, expected, known_settings, manifests, of_kind

from webapp.settings import Settings

PODS = {name: one["spec"]["template"]["spec"] for name, one in of_kind("Deployment", "Job").items()}
SETTINGS = of_kind("ConfigMap")["djps-settings"]["data"]
OUR_KINDS = [one for one in manifests() if one["kind"] != "ScaledObject"]


def name_of(one):
    return f"{one['kind']}-{one['metadata']['name']}"


@pytest.mark.parametrize("one", OUR_KINDS, ids=name_of)
def test_an_object_follows_kubernetes_schema(one):
    kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_the_example_secret_follows_the_schema_holds_nothing_and_is_not_applied():
    example = yaml.safe_load((KUBERNETES / "secret.example.yaml").read_text())
    kubernetes_validate.validate(example, kubernetes_validate.latest_version(), strict=True)
    assert all("USER:PASSWORD" in value or not value for value in example["stringData"].values())
    assert set(example["stringData"]) <= known_settings()
    assert not of_kind("Secret")


def test_a_wrong_object_would_be_noticed():
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"portz": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_every_manifest_is_in_the_kustomization_but_the_example():
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    there = {file.name for file in KUBERNETES.glob("*.yaml")}
    assert set(kustomization["resources"]) == there - {"kustomization.yaml", "secret.example.yaml"}


@pytest.mark.parametrize("role", ROLES)
def test_a_deployment_runs_the_command_of_ops_up(role):
    container = PODS[role]["containers"][0]
    given = [re.sub(r"\$\((\w+)\)", lambda found: SETTINGS[found[1]], word) for word in container["args"]]
    assert given == command(expected()[role])
    # The image's entry point, an init, stays in front.
    assert "command" not in container


@pytest.mark.parametrize("role", ROLES)
def test_a_pod_gets_longer_to_end_than_ops_up_gives_it(role):
    process = expected()[role]
    if process.stop_signal != "KILL":
        assert PODS[role]["terminationGracePeriodSeconds"] >= process.stop_wait


@pytest.mark.parametrize("role", list(PODS))
def test_a_pod_is_restricted(role):
    pod = PODS[role]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    # Variables such as API_PORT=tcp://10.0.0.1:8000 would be taken for settings.
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"]["cpu"]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/run/djps", "/tmp"}  # noqa: S108 - a mount


@pytest.mark.parametrize("role", ["worker", "maintenance", "beat"])
def test_a_probe_looks_at_the_liveness_file_of_its_own_process(role):
    container = PODS[role]["containers"][0]
    probe = container["livenessProbe"]["exec"]["command"]
    assert probe == ["python", "-m", "tasks.liveness", role]
    if role != "beat":
        assert container["readinessProbe"]["exec"]["command"] == [*probe, "--ready"]


def test_only_the_api_is_asked_for_readiness_over_http_and_restarted_for_silence_alone():
    container = PODS["api"]["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_the_settings_are_ones_that_processes_understand_and_take():
    assert set(SETTINGS) <= known_settings()
    fields = {(info.alias or name).upper(): name for name, info in Settings.model_fields.items()}
    values = {
        Settings.model_fields[fields[name]].alias or fields[name]: value
        for name, value in SETTINGS.items()
        if name in fields
    }
    assert Settings(_env_file=None, **values).api_host == "0.0.0.0"  # noqa: S104 - in a pod


def test_there_is_one_beat_and_never_two_at_once():
    spec = of_kind("Deployment")["beat"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_a_disruption_takes_one_pod_at_a_time_of_what_there_is_more_than_one_of():
    budgets = of_kind("PodDisruptionBudget")
    assert set(budgets) == {"api", "worker", "maintenance"}
    for name, budget in budgets.items():
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["selector"] == of_kind("Deployment")[name]["spec"]["selector"]


def test_workers_are_scaled_by_the_age_of_the_oldest_due_job():
    # KEDA's schema comes in no package that stands alone; what its documentation asks for is checked here.
    spec = of_kind("ScaledObject")["worker"]["spec"]
    assert set(spec) <= {
        "scaleTargetRef",
        "minReplicaCount",
        "maxReplicaCount",
        "pollingInterval",
        "cooldownPeriod",
        "fallback",
        "advanced",
        "triggers",
    }
    target = of_kind(spec["scaleTargetRef"]["kind"])[spec["scaleTargetRef"]["name"]]
    # Two that set the number of replicas would undo each other's work.
    assert "replicas" not in target["spec"]
    assert 0 < spec["minReplicaCount"] < spec["maxReplicaCount"]
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "prometheus"
    assert set(trigger["metadata"]) == {"serverAddress", "query", "threshold", "ignoreNullValues"}
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert "job_oldest_due_age_seconds" in trigger["metadata"]["query"]
    # A fallback works with this kind of metric only.
    assert trigger["metricType"] == "AverageValue"


def test_a_service_finds_pods_by_labels_they_have():
    for name, service in of_kind("Service").items():
        labels = of_kind("Deployment")[name]["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
