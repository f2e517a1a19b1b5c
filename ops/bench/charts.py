"""Charts from a run's JSON: `python charts.py RUN.json FOLDER`, in the peers' environment."""
# mypy: ignore-errors
# It runs in the environment of the peers, whose packages the project does not have.

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

OURS, THEIRS = "#1f6feb", "#9aa4b2"
#: Peers in the order of the legend, and how a chart calls them.
PEERS = {
    "pgqueuer": "PgQueuer",
    "graphile": "Graphile Worker",
    "dramatiq": "Dramatiq",
    "oban": "oban",
    "celery": "Celery, no results",
    "taskiq": "taskiq",
    "huey": "Huey",
    "saq": "SAQ",
    "streaq": "streaq",
    "procrastinate": "Procrastinate",
    "rq": "RQ",
}

#: The ways a peer is run; a chart shows the fastest.
VARIANTS = ("default", "tuned", "tuned_pair")
#: From here on a value is shown without decimals.
WHOLE_FROM = 100

Figures = dict[str, Any]


def bars(axes: Any, found: Figures, lines: dict[str, str], unit: str, title: str) -> None:
    """Horizontal bars, the longest on top, with the spread over the rounds."""
    rows = sorted((found[key], key, name) for key, name in lines.items() if found.get(key))
    low = [value - (found.get(f"{key}_min") or value) for value, key, _ in rows]
    high = [(found.get(f"{key}_max") or value) - value for value, key, _ in rows]
    colours = [OURS if name.startswith("DJPS") else THEIRS for _, _, name in rows]
    values = [row[0] for row in rows]
    axes.barh([row[2] for row in rows], values, color=colours, xerr=[low, high], ecolor="#444444", capsize=2)
    for place, (value, above) in enumerate(zip(values, high, strict=True)):
        shown = f" {value:,.0f}" if value >= WHOLE_FROM else f" {value:.1f}"
        axes.text(value + above, place, shown, va="center", fontsize=8)
    axes.set(xlabel=unit, title=title)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def executed(found: Figures) -> plt.Figure:
    """Jobs executed from a backlog."""
    lines = {"backlog_per_s": "DJPS", "single_per_s": "DJPS, one id per message"}
    for peer, name in PEERS.items():
        best = max(VARIANTS, key=lambda variant, peer=peer: found.get(f"{peer}_{variant}_per_s") or 0)
        lines[f"{peer}_{best}_per_s"] = f"{name} ({best.partition('_')[0]})"
    figure, axes = plt.subplots(figsize=(8, 5))
    bars(axes, found, lines, "jobs/s", "No-op jobs executed from a backlog")
    return figure


def idle(found: Figures) -> plt.Figure:
    """From submission to start on an idle system."""
    lines = {"idle_start_ms_p50": "DJPS, over HTTP"}
    lines |= {f"{peer}_idle_start_ms_p50": name for peer, name in PEERS.items()}
    figure, axes = plt.subplots(figsize=(8, 4.5))
    bars(axes, found, lines, "ms", "From submission to start, idle, p50")
    return figure


def submitted(found: Figures) -> plt.Figure:
    """POST /jobs against the number of clients."""
    figure, (rate, wait) = plt.subplots(1, 2, figsize=(10, 4))
    names = {
        "insert_only": ("INSERT only", "#444444"),
        "post": ("DJPS", OURS),
        "forerunner": ("forerunner, lean", "#d97706"),
    }
    for key, (name, colour) in names.items():
        clients = sorted(
            int(match[1]) for match in (re.fullmatch(rf"{key}_(\d+)_per_s", one) for one in found) if match
        )
        style = {"marker": "o", "label": name, "color": colour}
        rate.plot(clients, [found[f"{key}_{one}_per_s"] for one in clients], **style)
        wait.plot(clients, [found[f"{key}_{one}_ms_p99"] for one in clients], **style)
    rate.set(xlabel="keep-alive clients", ylabel="POST/s", title="Submissions", xscale="log", ylim=(0, None))
    wait.set(xlabel="keep-alive clients", ylabel="p99, ms", title="Latency", xscale="log", yscale="log")
    for axes in (rate, wait):
        axes.set_xticks(clients, [str(one) for one in clients])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    rate.legend()
    return figure


def sizes(found: Figures) -> plt.Figure:
    """Cost against the number of rows."""
    figure, axes = plt.subplots(figsize=(8, 4.5))
    operations = ("claim", "dispatch", "recover", "status", "list", "filtered", "total")
    for operation in operations:
        keys = [re.fullmatch(rf"size_(\d+)_{operation}_ms", key) for key in found]
        rows = sorted(int(match[1]) for match in keys if match)
        axes.plot(rows, [found[f"size_{one}_{operation}_ms"] for one in rows], marker="o", label=operation)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="rows in the table",
        ylabel="ms (median)",
        title="Cost against size",
    )
    axes.legend(ncols=2)
    return figure


def main() -> None:
    """Draws each chart that the figures are there for."""
    found = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[2])
    for name, needs, draw in (
        ("executed", "backlog_per_s", executed),
        ("idle", "idle_start_ms_p50", idle),
        ("submitted", "post_16_per_s", submitted),
        ("sizes", "size_1000_claim_ms", sizes),
    ):
        if found.get(needs) is not None:
            figure = draw(found)
            figure.tight_layout()
            figure.savefig(folder / f"{name}.png", dpi=130)
            plt.close(figure)


if __name__ == "__main__":
    main()
