"""What the panels of all dashboards have in common: source, sizes, legends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common as common_builder
from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model

#: The data source that `provisioning/datasources` makes.
SOURCE = model.DataSourceRef(type_val="prometheus", uid="prometheus")
#: Width of a dashboard, columns.
FULL = 24
#: Height of a row of graphs, and of single figures.
GRAPH_HEIGHT, FIGURE_HEIGHT = 8, 4


@dataclass(frozen=True, slots=True)
class Line:
    """A query, and what its lines are called: `{{task}}` stands for the label."""

    expression: str
    legend: str


def _target(line: Line, number: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(line.expression)
        .legend_format(line.legend)
        .ref_id(chr(ord("A") + number))
    )


def graph(
    title: str, unit: str, says: str, lines: Sequence[Line], *, width: int = 12, stacked: bool = False
) -> timeseries.Panel:
    """Lines over time, with their last and highest values in the legend.

    Args:
        unit: Grafana's name of it, such as `s`, `ops` or `percentunit`.
        says: what a reader should see in it.
        width: columns.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(GRAPH_HEIGHT)
        .fill_opacity(10)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builder.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common_builder.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel = panel.stacking(common_builder.StackingConfig().mode(common.StackingMode.NORMAL))
    for number, line in enumerate(lines):
        panel = panel.with_target(_target(line, number))
    return panel


def figure(
    title: str,
    unit: str,
    says: str,
    line: Line,
    *,
    width: int = 4,
    bad_above: float | None = None,
    bad_below: float | None = None,
    whole: bool = False,
) -> stat.Panel:
    """One number, its colour, and how it came about.

    Args:
        whole: shown without decimals: `increase` computes what lies between two scrapes.
        bad_above: red from here on; `bad_below`: red under it.
    """
    steps = [model.Threshold(value=None, color="green")]
    if bad_above is not None:
        steps.append(model.Threshold(value=bad_above, color="red"))
    if bad_below is not None:
        steps = [model.Threshold(value=None, color="red"), model.Threshold(value=bad_below, color="green")]
    panel = (
        stat.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(FIGURE_HEIGHT)
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(common_builder.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(builder.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(_target(line, 0))
    )
    return panel.decimals(0) if whole else panel


def quantiles(metric: str, selector: str = "") -> list[Line]:
    """The median, 95th and 99th percentile of a histogram."""
    rate = f"sum by (le) (rate({metric}_bucket{selector}[$__rate_interval]))"
    return [Line(f"histogram_quantile({share}, {rate})", name) for share, name in _SHARES]


_SHARES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def board(uid: str, title: str, says: str, rows: Sequence[tuple[str, Sequence[Any]]]) -> builder.Dashboard:
    """A dashboard of named rows of panels, with links to the others."""
    made = (
        builder.Dashboard(title)
        .uid(uid)
        .description(says)
        .tags(["djps"])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .link(
            builder.DashboardLink("DJPS")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["djps"])
            .keep_time(True)
        )
    )
    for name, panels in rows:
        made = made.with_row(builder.Row(name))
        for panel in panels:
            made = made.with_panel(panel)
    return made
