"""`pyllama run`: one prompt, continued."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import note, open_llm, usage_errors
from .options import (
    Bias,
    cache_type_option,
    compute_option,
    flatten,
    hugepages_option,
    integers,
    model_option,
    number,
    real,
    threads_option,
    with_options,
)

if TYPE_CHECKING:
    from pyllama.llm import LLM, Stream
    from pyllama.sampling import SamplingParams


def read_prompt(prompt: str | None, file: str | None) -> str:
    """The prompt of -p or -f, of which there must be one."""
    if (prompt is None) == (file is None):
        raise click.UsageError("expected one of -p and -f", click.get_current_context())
    if prompt is not None:
        return utf8("-p", os.fsencode(prompt))  # the bytes that the shell gave
    assert file is not None
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    return utf8(file, data).removesuffix("\n")  # the one that editors add


def utf8(name: str, data: bytes) -> str:
    """The text; ClickException naming where it came from if it is no UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{name}: expected UTF-8, found {error.reason} at {error.start}") from None


def sampling_params(options: dict[str, Any]) -> SamplingParams:
    """SamplingParams of the options. The seed is drawn here, to be told."""
    from pyllama.sampling import SamplingParams

    seed, n = options.pop("seed"), options.pop("max_tokens")
    for name in TOKEN_LISTS:
        options[name] = flatten(options[name], ()) or None
    with usage_errors():
        return SamplingParams(
            seed=secrets.randbits(32) if seed == -1 else seed,
            max_tokens=None if n == -1 else n,
            logit_bias=_biases(options.pop("logit_bias")),
            **options,
        )


def _biases(pairs: tuple[tuple[int, float], ...]) -> dict[int, float] | None:
    """The pairs as a dict, None if there are none. Raises ValueError for a token that comes twice."""
    biases: dict[int, float] = {}
    for token, bias in pairs:
        if biases.setdefault(token, bias) != bias:
            raise ValueError(
                f"logit_bias: expected one number for token {token}, found {biases[token]} and {bias}"
            )
    return biases or None


def copy(stream: Stream, write: bool) -> bool:
    """Pieces to stdout as they come; True if Ctrl-C ended them."""

    def rest() -> None:
        for piece in stream:
            if write:
                sys.stdout.write(piece)
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


TOKEN_LISTS = ("allowed_token_ids", "banned_token_ids", "stop_token_ids")

OPTIONS = (
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
    real("--temp", "temperature", default=1.0, text="Temperature; 0 takes the most probable token."),
    number("--top-k", default=0, text="Keep the k most probable; 0: all."),
    real(
        "--typical", "--typical-p", "typical_p", default=1.0, text="Keep the most typical that add up to p."
    ),
    real("--top-p", default=1.0, text="Keep the most probable that add up to p."),
    real("--min-p", default=0.0, text="Drop what is less probable than p times the best."),
    real(
        "--repeat-penalty",
        "repetition_penalty",
        default=1.0,
        text="Logits of tokens seen are divided by this.",
    ),
    real("--frequency-penalty", default=0.0, text="Taken off a logit as often as the text has the token."),
    real("--presence-penalty", default=0.0, text="Taken off a logit if the text has the token."),
    number("--repeat-last-n", default=-1, text="Tokens that penalties look at; -1: all, 0: none."),
    click.option(
        "-l",
        "--logit-bias",
        type=Bias(),
        multiple=True,
        metavar="ID(+/-)BIAS",
        help="Add to the logit of a token; repeatable.",
    ),
    integers("--allowed-token-ids", text="Draw these tokens alone."),
    integers("--banned-token-ids", text="Never draw these tokens."),
    number("-s", "--seed", default=-1, text="Same seed, same text; -1 draws one."),
    click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; repeatable."),
    integers("--stop-token-ids", text="End at these tokens too."),
    click.option(
        "--include-stop", "include_stop_str_in_output", is_flag=True, help="Keep the stop in the text."
    ),
    number("--min-tokens", default=0, text="Neither ends nor stops before so many tokens."),
    click.option("--ignore-eos", is_flag=True, help="Go on after end tokens."),
    click.option(
        "--logprobs",
        type=click.IntRange(min=0),
        metavar="N",
        help="With -o json: log-probabilities of each token and of the N best.",
    ),
    compute_option,
    cache_type_option,
    number("-ub", "--ubatch-size", "prefill_chunk", default=512, text="Prompt tokens per forward.", least=1),
    hugepages_option,
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
@with_options(OPTIONS)
def command(
    model: str, prompt: str | None, file: str | None, n_ctx: int, threads: int | None, compute: str,
    cache_type: str | None, prefill_chunk: int, no_hugepages: bool, output: str, quiet: bool, **sampling: Any
) -> int:  # fmt: skip
    """Continue a prompt: raw completion, without a chat template.

    stdout gets the text and nothing else; stderr gets one line of timings. Ctrl-C ends the text.
    """
    if sampling["logprobs"] is not None and output != "json":
        raise click.UsageError("--logprobs: expected -o json, which shows them", click.get_current_context())
    text, params = read_prompt(prompt, file), sampling_params(sampling)
    begin = time.perf_counter()
    with open_llm(
        model, quiet=quiet, n_ctx=n_ctx or None, n_threads=threads, compute=compute, kv_dtype=cache_type,
        prefill_chunk=prefill_chunk, max_batch=1, use_hugepages=not no_hugepages,
    ) as llm:  # fmt: skip
        load_s = time.perf_counter() - begin
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
