"""`pyllama bench`: how fast, in llama-bench's and llama-batched-bench's terms."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from .common import located, open_llm, status
from .options import (
    CACHE_TYPES,
    Pair,
    Words,
    compute_option,
    flatten,
    hugepages_option,
    integers,
    model_option,
    quantize_option,
    with_options,
)

if TYPE_CHECKING:
    from pyllama.llm import LLM
    from pyllama.locate import Located

    from .measure import BatchTest, Test
    from .rows import Row


@dataclass(frozen=True)
class Setup:
    """A model as it is loaded for some tests."""

    model: Located
    prefill_chunk: int
    kv_dtype: str | None
    n_threads: int | None
    compute: str
    quantize: str | None
    use_hugepages: bool

    def open(self, n_ctx: int, max_batch: int, quiet: bool) -> LLM:
        """The LLM, with room for `max_batch` sequences of `n_ctx` tokens."""
        from pyllama.cache import blocks_for
        from pyllama.errors import InsufficientMemoryError

        llm = open_llm(
            self.model,
            quiet=quiet,
            n_ctx=n_ctx,
            n_threads=self.n_threads,
            compute=self.compute,
            quantize=self.quantize,
            kv_dtype=self.kv_dtype,
            prefill_chunk=self.prefill_chunk,
            max_batch=max_batch,
            prefix_cache=False,
            use_hugepages=self.use_hugepages,
        )
        need, found = max_batch * blocks_for(n_ctx), llm.model.kv_plan.n_blocks
        if found < need:  # sequences would wait for each other: that is another test
            llm.close()
            raise InsufficientMemoryError(
                f"{self.model.path}: memory: expected room for {need} KV blocks, {max_batch} sequences of "
                f"{n_ctx} tokens, found {found}"
            )
        return llm

    def fields(self, llm: LLM) -> Row:
        """What all rows of this setup share."""
        from pyllama.weights import open_model

        from .facts import facts_of
        from .rows import common_fields

        with open_model(self.model.path) as file:
            return common_fields(llm, facts_of(file), self.compute, self.use_hugepages)


@dataclass(frozen=True)
class Plan:
    """How often, and how loud."""

    repetitions: int | None
    warm_up: bool
    quiet: bool
    profile: bool = False


def test_rows(setup: Setup, tests: Sequence[Test], plan: Plan) -> Iterator[Row]:
    """llama-bench's rows."""
    from pyllama.profile import Profiler
    from pyllama.roofline import Probe

    from . import measure
    from .rows import test_fields

    repetitions = plan.repetitions or 5
    with setup.open(max(t.n_ctx for t in tests), 1, plan.quiet) as llm:
        fields = setup.fields(llm)
        for test in tests:
            with status(plan.quiet) as show:
                if plan.warm_up:
                    show(f"{test.name}: warm-up")
                    measure.warm_up(llm, test)
                with Profiler(llm.model) if plan.profile else nullcontext() as profiler:
                    seconds = []
                    for i in range(repetitions):
                        show(f"{test.name}: {i + 1} of {repetitions}, {llm.n_threads} threads")
                        seconds.append(measure.time_test(llm, test))
            row = fields | test_fields(test, seconds)
            if profiler:
                row["profile"] = [asdict(time) for time in profiler.times(Probe(llm.n_threads)())]
            yield row


def batch_rows(setup: Setup, tests: Sequence[BatchTest], plan: Plan) -> Iterator[Row]:
    """llama-batched-bench's rows, measured once unless asked."""
    from pyllama._core import KV_BLOCK

    from . import measure
    from .rows import batch_fields

    n_ctx = max(t.n_ctx(setup.prefill_chunk) for t in tests)
    with setup.open(n_ctx, max(t.pl for t in tests), plan.quiet) as llm:
        fields = setup.fields(llm)
        fields |= {"n_kv_max": llm.model.kv_plan.n_blocks * KV_BLOCK, "n_threads_batch": llm.n_threads}
        if plan.warm_up:
            measure.time_batch(llm, measure.BatchTest(min(tests[0].pp, 16), 1, 1))
        for test in tests:
            with status(plan.quiet) as show:
                show(f"{test.pl} x (pp{test.pp} + tg{test.tg}), {llm.n_threads} threads")
                times = [measure.time_batch(llm, test) for _ in range(plan.repetitions or 1)]
            yield fields | batch_fields(test, times)


def make_setups(options: dict[str, Any], quiet: bool) -> list[Setup]:
    """One per model, chunk, cache type and number of threads."""
    models = [located(model, quiet) for model in options["model"] or [None]]
    return [
        Setup(
            model,
            chunk,
            kv,
            threads or None,
            options["compute"],
            options["quantize"],
            not options["no_hugepages"],
        )
        for model, chunk, kv, threads in itertools.product(
            models,
            flatten(options["ubatch"], [512]),
            [kv for part in options["cache_type"] for kv in part] or [None],
            flatten(options["threads"], [0]),
        )
    ]


def make_tests(options: dict[str, Any]) -> list[Test]:
    """Depth by depth: the prompts, the generations, the pairs. 0 leaves one out."""
    from .measure import Test

    tests = []
    for depth in flatten(options["depth"], [0]):
        tests += [Test(n, 0, depth) for n in flatten(options["n_prompt"], [512]) if n]
        tests += [Test(0, n, depth) for n in flatten(options["n_gen"], [128]) if n]
        tests += [Test(p, n, depth) for p, n in options["pg"]]
    if not tests:
        raise click.UsageError("expected a test, found -p 0 -n 0", click.get_current_context())
    return tests


def make_batch_tests(options: dict[str, Any]) -> list[BatchTest]:
    """All combinations, in llama-batched-bench's order."""
    from .measure import BatchTest

    lists = [flatten(options[name], [default]) for name, default in (("npp", 512), ("ntg", 128), ("npl", 1))]
    return list(itertools.starmap(BatchTest, itertools.product(*lists)))


OPTIONS = (
    model_option(multiple=True),
    integers("-p", "--n-prompt", text="Prompt lengths, default 512; 0: none."),
    integers("-n", "--n-gen", text="Generation lengths, default 128; 0: none."),
    click.option(
        "-pg", "pg", type=Pair(), multiple=True, metavar="P,N", help="A prompt and a generation; repeatable."
    ),
    integers("-d", "--n-depth", "depth", text="Tokens in the cache before the test, default 0."),
    integers("-t", "--threads", text="Threads; by default one per physical core at hand.", least=1),
    integers("-ub", "--ubatch-size", "ubatch", text="Prompt tokens per forward, default 512.", least=1),
    click.option(
        "-ctk",
        "--cache-type",
        "--cache-type-k",
        "cache_type",
        type=Words(CACHE_TYPES),
        multiple=True,
        metavar="f16|f32|bf16|q8_0,...",
        help="Types of the KV cache; by default f16, and f32 under --compute f32.",
    ),
    integers("-npp", "npp", text="Batches instead: prompt lengths, default 512.", least=1),
    integers("-ntg", "ntg", text="Batches instead: tokens generated per sequence, default 128.", least=1),
    integers("-npl", "npl", text="Batches instead: sequences at once, default 1.", least=1),
    click.option(
        "-r",
        "--repetitions",
        type=click.IntRange(min=1),
        metavar="N",
        help="Repetitions of each test, default 5; of each batch, default 1.",
    ),
    click.option(
        "--profile",
        is_flag=True,
        help="Also the time of each op, and what part of the machine's limit it is.",
    ),
    click.option("--no-warmup", is_flag=True, help="Measure at once."),
    compute_option,
    quantize_option,
    hugepages_option,
    click.option(
        "-o",
        "--output",
        type=click.Choice(("md", "csv", "json", "jsonl")),
        default="md",
        show_default=True,
        help="Format of the rows.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Show no progress."),
)


_SINGLE = (("p", "n_prompt"), ("n", "n_gen"), ("pg", "pg"), ("d", "depth"))
_BATCHED = ("npp", "ntg", "npl")


@click.command(short_help="Measure speed: llama-bench's tables.")
@with_options(OPTIONS)
def command(
    output: str, repetitions: int | None, no_warmup: bool, quiet: bool, profile: bool, **options: Any
) -> None:
    """Measure the speed of prompts (pp) and of generation (tg), in tokens per second of wall time.

    Lists multiply: each model, -ub, -ctk and -t is loaded and runs each test. With -npp, -ntg or
    -npl, many sequences run at once, as in llama-batched-bench: S_PP counts until the last prompt
    is read, while the first ones already generate; S_TG counts what all generate from there on.
    """
    from .rows import BATCH_COLUMNS, OPTIONAL_COLUMNS, TEST_COLUMNS, writing

    single = [f"-{s}" for s, name in _SINGLE if options[name]]
    batched = [f"-{name}" for name in _BATCHED if options[name]]
    if profile and batched:
        raise click.UsageError(f"expected {batched[0]} or --profile, found both", click.get_current_context())
    if single and batched:
        raise click.UsageError(
            f"expected {single[0]} or {batched[0]}, found both", click.get_current_context()
        )
    setups, plan = make_setups(options, quiet), Plan(repetitions, not no_warmup, quiet, profile)
    if batched:
        batches = make_batch_tests(options)
        with writing(output, BATCH_COLUMNS) as writer:
            for setup in setups:
                for row in batch_rows(setup, batches, plan):
                    writer.write(row)
        return
    tests = make_tests(options)
    varied = (len({s.prefill_chunk for s in setups}) > 1, len({s.kv_dtype for s in setups}) > 1)
    extra = tuple(itertools.compress(OPTIONAL_COLUMNS, varied))
    with writing(output, TEST_COLUMNS[:5] + extra + TEST_COLUMNS[5:]) as writer:
        for setup in setups:
            for row in test_rows(setup, tests, plan):
                writer.write(row)
