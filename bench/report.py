"""What versus.py found, as markdown and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyllama.roofline import Roofline

COLORS = ("#2b6cb0", "#dd8452", "#b0892b", "#8a8a8a")


def heading(engines: list[str]) -> str:
    """The first two lines of the table."""
    ratios = [f"ratio to {name}" for name in engines[1:]]
    columns = ["test", *(f"{name} t/s" for name in engines), *ratios, "of limit"]
    return f"| {' | '.join(columns)} |\n| --- |{' ---: |' * (len(columns) - 1)}"


def line(row: dict[str, Any]) -> str:
    """A test: speeds, ratios with their interval, what part of the limit ours is."""
    speeds = [f"{speed:.1f}" for speed in row["tokens_per_s"].values()]
    ratios = [f"{middle:.2f} ({low:.2f}-{high:.2f})" for middle, low, high in row["ratio"].values()]
    part = f"{100 * row['of_limit']['pyllama']:.0f} %"
    return f"| {' | '.join([row['test'], *speeds, *ratios, part])} |"


def footer(load_s: dict[str, float], rss: dict[str, int], file_bytes: int, roofline: Roofline) -> str:
    """Loading, memory, and the limits as they are now."""
    rates = ", ".join(f"{kind} {2e-9 * rate:.0f}" for kind, rate in roofline.macs_per_s.items())
    lines = [f"limits: {1e-9 * roofline.bytes_per_s:.1f} GB/s, 10^9 operations/s: {rates}"]
    for name, seconds in load_s.items():
        lines.append(f"{name}: loaded in {seconds:.1f} s, peak RSS {rss[name] / 1e6:.0f} MB")
    return "\n".join([*lines, f"file: {file_bytes / 1e6:.0f} MB"])


def plot(facts: dict[str, Any], rows: list[dict[str, Any]], path: Path) -> None:
    """Tokens per second of each test, one small panel each, with the limit as a line."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise SystemExit("--plot: needs matplotlib: pip install matplotlib") from None
    n_columns = min(4, len(rows))
    n_lines = -(-len(rows) // n_columns)
    size = (3.2 * n_columns, 2.6 * n_lines + 0.6)
    figure, panels = pyplot.subplots(n_lines, n_columns, figsize=size, squeeze=False, layout="constrained")
    for panel in panels.flat[len(rows) :]:
        panel.axis("off")
    for panel, row in zip(panels.flat, rows, strict=False):
        speeds = row["tokens_per_s"]
        bars = panel.bar(range(len(speeds)), speeds.values(), color=COLORS[: len(speeds)])
        panel.bar_label(bars, fmt="%.0f", padding=2)
        limit = sorted(row["limit"])[len(row["limit"]) // 2]
        panel.axhline(limit, color="#444", linestyle="--", linewidth=1)
        panel.annotate("limit", (len(speeds) - 0.5, limit), ha="right", va="bottom", fontsize=8, color="#444")
        panel.set(title=row["test"], xticks=[], ylim=(0, 1.15 * max(limit, *speeds.values())))
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(bars, list(rows[0]["tokens_per_s"]), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"{facts['model']}: tokens per second, {facts['threads']} threads")
    figure.savefig(path, dpi=150)
