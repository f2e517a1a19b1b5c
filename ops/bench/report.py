"""The report of a run: a table for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ops.bench import runtimes
from ops.bench.figures import HEADLINES, RATIOS, Spread, flat, rounded, spreads, with_ratios
from ops.bench.peers.catalogue import PEERS
from ops.bench.progress import Record

#: The bar of each headline: at least this, or at most where it says so.
BARS = {
    "post_vs_insert_only": (">=", 0.75),
    "post_vs_forerunner": (">=", 2.5),
    "bulk_submit_per_s": (">=", 20_000),
    "backlog_per_s": (">=", None),
    "backlog_vs_pgqueuer": (">=", 1.5),
    "backlog_vs_pgqueuer_pair": (">=", 1.5),
    "backlog_vs_graphile": (">=", 0.7),
    "backlog_vs_oban": (">=", 3.0),
    "backlog_vs_dramatiq": (">=", 3.0),
    "single_vs_celery": (">=", 1.0),
    "idle_start_ms_p50": ("<=", 5.0),
    "idle_start_ms_p99": ("<=", 12.0),
    "memory_mib": ("<=", 400.0),
}
#: Columns of a peer's line.
_PEER_COLUMNS = (
    "one_per_s",
    "bulk_per_s",
    "default_per_s",
    "tuned_per_s",
    "idle_start_ms_p50",
    "idle_start_ms_p99",
)

_PEER_HEAD = (
    f"{'peer':<34}{'one/s':>9}{'bulk/s':>9}{'default/s':>11}{'tuned/s':>9}{'idle p50':>10}{'p99 ms':>8}"
)


def as_json(
    record: Record, host: Mapping[str, object], versions: Mapping[str, str], *, quick: bool
) -> dict[str, Any]:
    """Every figure flat, then the machine, the versions, and what each round measured."""
    rounds = [with_ratios(measured) for measured in record.rounds]
    return {
        **flat(rounds),
        "quick": quick,
        "machine": dict(host),
        "versions": dict(versions),
        "failures": dict(record.failures),
        "notes": dict(record.notes),
        "rounds": [{key: rounded(value, 6) for key, value in measured.items()} for measured in rounds],
    }


def table(record: Record, host: Mapping[str, object]) -> str:
    """What a terminal shows at the end."""
    found = spreads([with_ratios(measured) for measured in record.rounds])
    count = len(record.rounds)
    lines = [
        "",
        f"{host['cores']} cores, {host['model']}, {host['kernel']}, Python {host['python']}; "
        + ("one round" if count == 1 else f"medians of {count} rounds (smallest .. largest)"),
    ]
    rows = [
        _peer_line(peer.key, f"{peer.title} {runtimes.pins(peer.packages)[peer.package]}", found, record)
        for peer in PEERS
        if _mentioned(peer.key, found, record)
    ]
    if rows:
        lines += ["", _PEER_HEAD, *rows]
    groups = {"headlines": [key for key in HEADLINES if key not in RATIOS], "ratios": list(RATIOS)}
    peers = tuple(f"{peer.key}_" for peer in PEERS)
    groups["everything else"] = [key for key in found if key not in HEADLINES and not key.startswith(peers)]
    for title, keys in groups.items():
        if title == "everything else":
            if not keys:
                continue
        elif not any(key in found or key in record.notes for key in keys):
            continue
        lines += ["", f"{title}:"]
        lines += [f"  {key:<34}{_value(key, found, record)}" for key in keys]
    if record.failures:
        lines += ["", "not measured:", *(f"  {name}: {why}" for name, why in record.failures.items())]
    return "\n".join(lines)


def _mentioned(key: str, found: Mapping[str, Spread], record: Record) -> bool:
    return key in record.failures or any(name.startswith(f"{key}_") for name in found)


def _peer_line(key: str, title: str, found: Mapping[str, Spread], record: Record) -> str:
    if not any(name.startswith(f"{key}_") for name in found):
        return f"{title:<34}  {record.failures[key]}"
    widths = (9, 9, 11, 9, 10, 8)
    cells = [
        f"{_short(found.get(f'{key}_{column}')):>{width}}"
        for column, width in zip(_PEER_COLUMNS, widths, strict=True)
    ]
    return f"{title:<34}{''.join(cells)}"


def _short(value: Spread | None) -> str:
    if value is None:
        return "-"
    return f"{value.median:,.0f}" if value.median >= 100 else f"{value.median:.1f}"  # noqa: PLR2004


def _value(key: str, found: Mapping[str, Spread], record: Record) -> str:
    value = found.get(key)
    if value is None:
        return record.notes.get(key, "not measured")
    text = f"{rounded(value.median):>12,g}"
    if value.low != value.high:
        text += f"  ({rounded(value.low):,g} .. {rounded(value.high):,g})"
    relation, bar = BARS.get(key, ("", None))
    if bar is not None:
        reached = value.median >= bar if relation == ">=" else value.median <= bar
        text += f"   bar {relation} {bar:,g}: {'reached' if reached else 'missed'}"
    return text
