"""`pyllama run`: one prompt, continued."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import located, note, open_llm, stdin, usage_errors
from .options import (
    cache_type_option,
    compute_option,
    hugepages_option,
    mlock_option,
    model_option,
    number,
    quantize_option,
    threads_option,
    with_options,
)
from .sampling_options import SAMPLING, sampling_params

if TYPE_CHECKING:
    from pyllama.llm import LLM, Stream


def read_prompt(prompt: str | None, file: str | None) -> str:
    """The prompt of -p or -f, of which there must be one."""
    if (prompt is None) == (file is None):
        raise click.UsageError("expected one of -p and -f", click.get_current_context())
    if prompt is not None:
        return utf8("-p", os.fsencode(prompt))  # the bytes that the shell gave
    assert file is not None
    data = stdin().read() if file == "-" else Path(file).read_bytes()
    return utf8(file, data).removesuffix("\n")  # the one that editors add


def utf8(name: str, data: bytes) -> str:
    """The text; ClickException naming where it came from if it is no UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{name}: expected UTF-8, found {error.reason} at {error.start}") from None


def copy(stream: Stream, write: bool, table: Mapping[int, int] | None = None) -> bool:
    """Pieces to stdout as they come, translated by `table`; True if Ctrl-C ended them."""

    def rest() -> None:
        for piece in stream:
            if write:
                sys.stdout.write(piece.translate(table) if table else piece)
                sys.stdout.flush()

    try:
        rest()
    except KeyboardInterrupt:
        stream.cancel()
        rest()
        return True
    return False


def report(llm: LLM, stream: Stream, load_s: float, seed: int | None) -> dict[str, Any]:
    """The result as what `-o json` prints."""
    result = stream.output
    out, timings = result.outputs[0], dataclasses.asdict(result.timings)
    if not out.token_ids:  # interrupted before the first: there is nothing to measure
        timings = dict.fromkeys(timings, 0.0)
    logprobs = {}
    if out.logprobs is not None:
        rows = [{token: dataclasses.asdict(p) for token, p in row.items()} for row in out.logprobs]
        logprobs = {"cumulative_logprob": out.cumulative_logprob, "logprobs": rows}
    return {
        "model": llm.model.path,
        "text": out.text,
        "prompt_token_ids": result.prompt_token_ids,
        "token_ids": out.token_ids,
        **logprobs,
        "finish_reason": out.finish_reason or "cancelled",
        "stop_reason": out.stop_reason,
        "seed": seed,
        "timings": {
            "load_s": load_s,
            "n_prompt": len(result.prompt_token_ids),
            "n_generated": len(out.token_ids),
            **timings,
        },
        "isa": llm.isa,
        "n_threads": llm.n_threads,
    }


def summary(result: dict[str, Any]) -> str:
    """The result's speed as one line."""
    t = result["timings"]
    parts = [f"load {t['load_s']:.2f} s"]
    for what, n, speed in (
        ("prompt", t["n_prompt"], t["prefill_tps"]),
        ("generated", t["n_generated"], t["decode_tps"]),
    ):
        parts.append(f"{what} {n} token{'s' * (n != 1)}" + (f", {speed:.2f} t/s" if speed > 0 else ""))
    parts.append(f"finish: {result['finish_reason']}")
    parts.append(f"{result['isa']}, {result['n_threads']} thread{'s' * (result['n_threads'] != 1)}")
    return " | ".join(parts)


PROMPT = (
    model_option(),
    click.option("-p", "--prompt", metavar="TEXT", help="The prompt; it may be empty."),
    click.option(
        "-f",
        "--file",
        metavar="FILE",
        help="Read the prompt from a file, - for stdin; one newline at its end is dropped.",
    ),
    number(
        "-n",
        "--n-predict",
        "max_tokens",
        default=-1,
        text="Tokens to generate; -1: to an end token or a full context.",
    ),
    number(
        "-c", "--ctx-size", "n_ctx", default=0, text="Tokens of prompt and text together; 0: the model's own."
    ),
    threads_option,
)
ENGINE = (
    click.option("--ignore-eos", is_flag=True, help="Go on after end tokens."),
    click.option(
        "--logprobs",
        type=click.IntRange(min=0),
        metavar="N",
        help="With -o json: log-probabilities of each token and of the N best.",
    ),
    compute_option,
    quantize_option,
    cache_type_option,
    number("-ub", "--ubatch-size", "prefill_chunk", default=512, text="Prompt tokens per forward.", least=1),
    hugepages_option,
    mlock_option,
    click.option(
        "-o",
        "--output",
        type=click.Choice(("text", "json")),
        default="text",
        show_default=True,
        help="The text as it comes, or one JSON object at the end.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="No progress bar and no timings on stderr."),
)


@click.command(short_help="Continue a prompt.")
@with_options((*PROMPT, *SAMPLING, *ENGINE))
def command(
    model: str | None, prompt: str | None, file: str | None, n_ctx: int, threads: int | None,
    compute: str, quantize: str | None, cache_type: str | None, prefill_chunk: int,
    no_hugepages: bool, mlock: bool, output: str, quiet: bool, **sampling: Any
) -> int:  # fmt: skip
    """Continue a prompt: raw completion, without a chat template.

    stdout gets the text and nothing else; stderr gets one line of timings. Ctrl-C ends the text.
    """
    if sampling["logprobs"] is not None and output != "json":
        raise click.UsageError("--logprobs: expected -o json, which shows them", click.get_current_context())
    text = read_prompt(prompt, file)
    sampling_params(sampling)  # what is wrong is said before a model is loaded
    begin = time.perf_counter()
    with open_llm(
        located(model, quiet), quiet=quiet, n_ctx=n_ctx or None, n_threads=threads, compute=compute,
        quantize=quantize, kv_dtype=cache_type, prefill_chunk=prefill_chunk, max_batch=1,
        use_hugepages=not no_hugepages, use_mlock=mlock,
    ) as llm:  # fmt: skip
        load_s = time.perf_counter() - begin
        params = sampling_params(sampling, llm.default_params)
        with usage_errors():
            stream = llm.stream(text, params)
        try:
            interrupted = copy(stream, output == "text")
        finally:
            if output == "text":
                click.echo()
        result = report(llm, stream, load_s, params.seed)
    if output == "json":
        click.echo(json.dumps(result, ensure_ascii=False))
    if not quiet:
        note(summary(result))
    return 130 if interrupted else 0
