"""`pyllama doctor`: what this machine is, whether the kernels are right here, and what speed to expect."""

from __future__ import annotations

import json
from typing import Any

import click

from .common import binary_size, complain, status, usage_errors
from .inspect_file import print_section, print_table

Section = dict[str, Any]


def facts(report: Section) -> Section:
    """The machine as names and texts."""
    isa, cpu, memory = report["isa"], report["cpu"], report["memory"]
    limits = ", ".join(f"{reason} {n:g}" for reason, n in cpu["limits"].items())
    runs = [level["name"] for level in isa["levels"] if level["runs"]]
    other = [level["name"] for level in isa["levels"] if not level["runs"]]
    found = {
        "cpu": f"{cpu['name']}, {cpu['machine']}, {cpu['cpus']} CPUs",
        "levels": ", ".join(runs) + (f"; not on this CPU: {', '.join(other)}" if other else ""),
        "level used": isa["used"] + (", as PYLLAMA_ISA says" if isa["forced"] else ", the best"),
        "threads": f"{cpu['threads']}, by {cpu['reason']} ({limits})",
        "largest cache": size(cpu["cache"]),
        "memory available": size(memory["available"]),
        "huge pages": memory["huge_pages"] or "not told",
    }
    huge = [row["huge"] for row in report["speed"].values() if row["huge"] is not None]
    if huge:
        found["huge pages"] += f"; {min(huge):.0%} of the weights measured lay on them"
    return found


def size(n: int | None) -> str:
    """Bytes as text."""
    return "not told" if n is None else binary_size(n)


def print_text(report: Section) -> None:
    """The report for people."""
    print_section("machine", facts(report))
    rows = [
        (
            r["format"],
            r["activations"],
            r["kv"],
            f"{r['error']:.1e}",
            f"{r['tolerance']:.0e}",
            verdict(r["ok"]),
        )
        for r in report["self_test"]
    ]
    titles = ("format", "activations", "kv", "difference", "allowed", "")
    print_table(f"kernels of {report['isa']['used']} against scalar", titles, rows)
    speed = [
        (
            kind,
            f"{r['bytes_per_s'] / 1e9:.1f} GB/s",
            f"{2 * r['macs_per_s'] / 1e9:.0f} GOPS",
            str(r["n_threads"]),
        )
        for kind, r in report["speed"].items()
    ]
    print_table("speed", ("format", "one token", "prompt", "threads"), speed)
    fits = {True: "yes", False: "no", None: "not told"}
    models = [
        (
            r["model"],
            r["format"],
            binary_size(r["weights"]),
            fits[r["fits"]],
            f"{r['prefill_tps']:.1f}",
            f"{r['decode_tps']:.1f}",
        )
        for r in report["expect"]
    ]
    titles = ("model", "format", "weights", "fits", "prompt t/s", "generation t/s")
    print_table("expect, of one sequence with a short context", titles, models)


def verdict(ok: bool) -> str:
    """A check's result."""
    return "ok" if ok else "WRONG"


@click.command(short_help="Check the kernels, and tell what speed to expect.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="Tables, or one JSON object.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def command(output: str, quiet: bool) -> int:
    """Examine this machine: what it grants, whether every kernel computes what plain C computes, how fast
    weights are read and multiplied, and what that makes of models of usual sizes.

    The speeds are those of the moment: on a busy machine they are low. Exit code 1 if a kernel is wrong.
    """
    from pyllama.doctor import examine

    from .rows import cpu_name

    with status(quiet) as show, usage_errors():
        report = examine(show)
    report["cpu"]["name"] = cpu_name()
    if output == "json":
        click.echo(json.dumps(report, indent=2))
    else:
        print_text(report)
    if report["ok"]:
        return 0
    wrong = ", ".join(f"{r['format']} with {r['kv']} cache" for r in report["self_test"] if not r["ok"])
    complain(f"kernels of {report['isa']['used']}: expected what scalar computes, found others for {wrong}")
    return 1
