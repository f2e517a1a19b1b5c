"""Grafana's dashboards are what the code builds, and every panel explains itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from ops.grafana import build
from ops.grafana.panels import FULL, SOURCE

GRAFANA = Path(build.__file__).parent
BOARDS = {name: json.loads(text) for name, text in build.dashboards().items()}
PANELS = [
    pytest.param(panel, id=f"{name.removesuffix('.json')}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]


def test_what_is_checked_in_is_what_the_code_builds():
    assert {file.name: file.read_text() for file in build.FOLDER.glob("*.json")} == build.dashboards()


@pytest.mark.parametrize("name", list(BOARDS))
def test_the_model_reads_a_dashboard_back_without_a_loss(name):
    read = build.JSONEncoder().encode(Dashboard.from_json(BOARDS[name]))
    assert json.loads(read) == BOARDS[name]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_a_title_a_unit_a_description_and_a_legend(panel):
    assert panel["title"]
    assert panel["description"].endswith((".", "/dlq."))
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": SOURCE.type_val, "uid": SOURCE.uid}
    assert panel["targets"]
    assert all(target["legendFormat"] for target in panel["targets"])
    if panel["type"] == "timeseries":
        assert panel["options"]["legend"]["showLegend"]


@pytest.mark.parametrize("name", list(BOARDS))
def test_panels_fill_their_rows_and_do_not_overlap(name):
    taken = set()
    for panel in BOARDS[name]["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= FULL
        taken |= cells
    identifiers = [panel["id"] for panel in BOARDS[name]["panels"] if panel.get("id")]
    assert len(set(identifiers)) == len(identifiers)


def test_dashboards_have_names_of_their_own_and_lead_to_each_other():
    assert {board["uid"] for board in BOARDS.values()} == {"djps-overview", "djps-workers", "djps-task"}
    assert all(board["tags"] == board["links"][0]["tags"] == ["djps"] for board in BOARDS.values())


def test_the_data_source_that_is_provisioned_is_the_one_that_panels_ask():
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["uid"]) == (SOURCE.type_val, SOURCE.uid)
    scraped = yaml.safe_load((GRAFANA.parent / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "djps.yaml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
