"""`pyllama inspect`: what a model file holds, what it needs, what is made of it."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pyllama.errors import PyllamaError

from .common import binary_size, count, located, printable, usage_errors
from .options import cache_type_option, compute_option, model_option, number, with_options

if TYPE_CHECKING:
    from pyllama.model import Model
    from pyllama.weights.source import ModelSource

Section = dict[str, Any]

SHOWN = 6  # elements of an array in the metadata
LONGEST = 100  # characters of a string in the metadata
LEGEND = (
    "domain: tokens, the rows of a batch; outputs, those whose logits are wanted; head, a chunk of these",
    "|  all threads wait for each other before this op",
    ".  they wait only while rows are so few that each thread computes the norms for itself",
    ":  they wait only when rows are more than that",
)


def file_section(file: ModelSource) -> Section:
    """The file and its tensors in numbers."""
    from .facts import facts_of

    facts = facts_of(file)
    return {
        "path": file.path,
        "kind": file.kind,
        "size": file.size,
        "architecture": facts.architecture,
        "name": file.metadata.get("general.name"),
        "model_type": facts.model_type,
        "n_tensors": len(file.tensors),
        "n_params": facts.n_params,
        "types": {
            name: {"tensors": n, "params": params, "bytes": size}
            for name, (n, params, size) in facts.types.items()
        },
    }


def tokenizer_section(file: ModelSource) -> Section:
    """The vocabulary, or why there is none."""
    from pyllama.tokenizer import Tokenizer

    if file.kind.startswith("GGUF") and not any(key.startswith("tokenizer.") for key in file.metadata):
        return {"error": "none in the file"}
    try:
        rows = file.tensors.get("token_embd.weight")
        t = Tokenizer.of_model(file, rows.shape[0]) if rows else Tokenizer.from_file(file.path)
    except (PyllamaError, OSError) as error:
        return {"model": file.metadata.get("tokenizer.ggml.model"), "error": str(error)}

    def token(i: int | None) -> Section | None:
        return None if i is None else {"id": i, "piece": t.piece(i)}

    return {
        "model": file.metadata.get("tokenizer.ggml.model"),
        "vocab_size": t.vocab_size,
        "bos": token(t.bos_id),
        "eos": token(t.eos_id),
        "stop": [token(i) for i in sorted(t.stop_ids)],
        "add_bos": t.add_bos,
    }


def config_section(file: ModelSource) -> Section:
    """The model's dimensions, or why they are not known."""
    from pyllama.model import architecture

    if not file.tensors:
        return {"error": "no tensors: a vocabulary, not a model"}
    try:
        return dataclasses.asdict(architecture(file).read_config(file))
    except PyllamaError as error:
        return {"error": str(error)}


def plan_model(file: ModelSource, n_ctx: int, compute: str, cache_type: str | None) -> Model:
    """The Model, planned and not loaded. Raises PyllamaError."""
    from pyllama.cpu import default_threads
    from pyllama.model import Model

    with usage_errors():
        return Model(
            file,
            n_ctx=n_ctx or None,
            n_threads=default_threads(),
            compute=compute,
            kv_dtype=cache_type,
            kv_bytes=None,
            prefill_chunk=512,
            max_batch=1,
            use_hugepages=True,
        )


def memory_section(model: Model) -> Section:
    """Bytes by purpose, for one sequence of n_ctx tokens."""
    from pyllama import _core
    from pyllama.cache import blocks_for
    from pyllama.cpu import available_memory

    need = model.memory_need()
    kv = model.kv_plan.block_bytes * blocks_for(model.n_ctx)
    return {
        "weights": need["weights"],
        "kv": kv,
        "workspace": need["workspace"],
        "total": need["weights"] + kv + need["workspace"],
        "available": available_memory(),
        "n_ctx": model.n_ctx,
        "kv_type": _core.KV_DTYPES[model.kv_plan.dtype],
        "kv_bytes_per_token": model.kv_plan.block_bytes // _core.KV_BLOCK,
        "isa": model.kernels.name,
    }


def short(value: Any) -> Any:
    """A metadata value for JSON: long arrays become their length and first elements."""
    items = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(items, list):
        if len(items) <= SHOWN:
            return [short(item) for item in items]
        return {"length": len(items), "first": [short(item) for item in items[:SHOWN]]}
    if isinstance(items, float) and not math.isfinite(items):
        return repr(items)  # JSON has no such numbers
    if isinstance(items, str) and len(items) > LONGEST:
        return {"characters": len(items), "first": items[:LONGEST]}
    return items


def one_line(value: Any) -> str:
    """A value of a section as text."""
    if isinstance(value, dict) and "length" in value:
        return f"{one_line(value['first'])[:-1]}, ...] of {value['length']}"
    if isinstance(value, dict) and "characters" in value:
        return f"{one_line(value['first'])}... of {value['characters']} characters"
    if isinstance(value, dict):
        return ", ".join(f"{k} {one_line(v)}" for k, v in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(one_line, value))}]"
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return f"{value:.7g}"  # most are float32
    return "-" if value is None else str(value)


def print_section(title: str, section: Section) -> None:
    """Names and values below a title."""
    click.echo(f"{title}:")
    width = max(map(len, section), default=0)
    for name, value in section.items():
        click.echo(f"  {printable(name):<{width}}  {one_line(value)}")


def print_table(title: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; on a terminal it is drawn to its width."""
    click.echo(f"{title}:")
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*titles, box=None, padding=(0, 2))
        for row in rows:
            table.add_row(*row)
        Console(markup=False, highlight=False).print(table)
        return
    lines = [titles, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    for line in lines:
        click.echo("  " + "  ".join(map(str.ljust, line, widths)).rstrip())


def cell(value: Any) -> str:
    """A fact about a tensor as text."""
    return " x ".join(map(str, value)) if isinstance(value, tuple) else printable(str(value))


def print_text(report: dict[str, Any]) -> None:
    """The report for people."""
    file = dict(report["file"])
    types = file.pop("types")
    file["size"], file["n_params"] = binary_size(file["size"]), count(file["n_params"])
    print_section("file", file)
    if types:
        rows = [(k, str(t["tensors"]), count(t["params"]), binary_size(t["bytes"])) for k, t in types.items()]
        print_table("types", ("type", "tensors", "params", "size"), rows)
    print_section("config", report["config"])
    memory = dict(report["memory"])
    for name in ("weights", "kv", "workspace", "total", "available"):
        if memory.get(name) is not None:
            memory[name] = binary_size(memory[name])
    print_section("memory", memory)
    print_section("tokenizer", report["tokenizer"])
    if "metadata" in report:
        print_section("metadata", report["metadata"])
    if "tensors" in report:
        titles = ("name", "type", "shape", "offset", "nbytes")
        print_table("tensors", titles, [[cell(t[name]) for name in titles] for t in report["tensors"]])
    if report.get("program"):
        click.echo("program:")
        for line in (*report["program"], "", *LEGEND):
            click.echo(f"  {line}".rstrip())


@click.command(short_help="Show what a model file holds and needs.")
@with_options(
    (
        model_option(),
        click.option("--metadata", is_flag=True, help="All metadata, long arrays shortened."),
        click.option("--tensors", is_flag=True, help="All tensors."),
        click.option("--program", is_flag=True, help="The ops of one forward, and where threads wait."),
        number(
            "-c",
            "--ctx-size",
            "n_ctx",
            default=0,
            text="Tokens to plan memory for; 0: the model's own context.",
        ),
        cache_type_option,
        compute_option,
        click.option("--json", "as_json", is_flag=True, help="One JSON object."),
    )
)
def command(
    model: str | None, n_ctx: int, cache_type: str | None, compute: str,
    metadata: bool, tensors: bool, program: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show what a model file holds and what it needs. Nothing is loaded.

    A file that cannot be run, such as a vocabulary without weights, is shown as far as it goes.
    """
    from pyllama.model import inspect_plan
    from pyllama.weights import open_model

    with open_model(located(model).path) as file:
        report: dict[str, Any] = {"file": file_section(file), "config": config_section(file)}
        planned, reason = None, report["config"].get("error")
        if reason is None:
            try:
                planned = plan_model(file, n_ctx, compute, cache_type)
            except PyllamaError as error:
                reason = str(error)
        report["memory"] = {"error": reason} if planned is None else memory_section(planned)
        report["tokenizer"] = tokenizer_section(file)
        if metadata:
            report["metadata"] = {key: short(value) for key, value in file.metadata.items()}
        if tensors:
            report["tensors"] = [dataclasses.asdict(t) for t in file.tensors.values()]
        if program:
            report["program"] = [] if planned is None else inspect_plan(planned)[1]
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        print_text(report)
