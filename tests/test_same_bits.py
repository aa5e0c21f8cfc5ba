"""The promise: a token's logits do not depend on batch, chunking, threads, or on what ran before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import ggufmodel
import numpy as np
import pytest
from ggufmodel import EVERY_MEMBER, ModelFiles, Step, bits, forward, make_model, random_ids
from hypothesis import given, settings
from hypothesis import strategies as st

import pyllama.model
from pyllama import LLM, SamplingParams, _core
from pyllama.engine import Engine
from pyllama.request import Request

FORMATS: dict[str, dict[str, Any]] = {
    "F32": {"format": "F32"},
    "BF16": {"format": "BF16", "hidden_dim": 171, "tied": True},
    "Q8_0": {"format": "Q8_0", "dim": 96, "n_heads": 6, "hidden_dim": 160},
    "Q4_K": {"format": "Q4_K", "dim": 256, "hidden_dim": 256},
}
REST = [format for format in ggufmodel.FORMATS if format not in FORMATS]
LONG = {"n_ctx": 2048, "n_heads": 6, "dim": 48, "hidden_dim": 64}  # four key chunks
PROMPT = random_ids(300)
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
each_format = pytest.mark.parametrize("format", FORMATS)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return ModelFiles(tmp_path_factory.mktemp("models"))


@pytest.fixture
def every_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models too are computed by the whole team."""
    make_plan: Callable[..., Any] = pyllama.model.make_plan

    def eager(*args: Any) -> Any:
        plan = make_plan(*args)
        plan.weight_bytes = EVERY_MEMBER
        return plan

    monkeypatch.setattr(pyllama.model, "make_plan", eager)


def load(path: str, **options: Any) -> LLM:
    return LLM(path, **({"n_threads": 2, "use_hugepages": False} | options))


def logits(path: str, ids: Sequence[int] = PROMPT, **options: Any) -> np.ndarray:
    with load(path, **options) as llm:
        return bits(llm.logits(ids))


class Recorder:
    """The bits of the logits behind every token that an LLM draws, by request and position."""

    def __init__(self, llm: LLM) -> None:
        self.engine, self.vocab = llm._engine, llm.model.config.vocab_size
        self.program, self.fill = llm.model.program, self.engine._fill
        self.seen: dict[tuple[str, int], np.ndarray] = {}
        self.rows: list[tuple[str, int]] = []
        self.engine._fill = self._fill  # type: ignore[method-assign]
        llm.model.program = self

    def _fill(self, plan: list[tuple[Request, int]]) -> Any:
        ends = [(r, r.n_computed + count) for r, count in plan]
        self.rows = [(r.id, end) for r, end in ends if r.logits is None and end == len(r.ids)]
        return self.fill(plan)

    def run(self, batch: _core.Batch, n: int, m: int, sample: bool, wanted: np.ndarray | None) -> bool:
        """As the Program's own, with a look at the logits."""
        out = np.empty((m, self.vocab), np.float32) if wanted is None else wanted
        done = self.program.run(batch, n, m, sample, out)
        if wanted is None and done:
            self.seen.update({key: bits(row) for key, row in zip(self.rows, out, strict=True)})
        return done

    def of(self, request_id: str) -> np.ndarray:
        """Rows in the order of the drawn tokens."""
        return np.array([self.seen[key] for key in sorted(k for k in self.seen if k[0] == request_id)])


# ---- threads and chunks


@each_format
@pytest.mark.usefixtures("every_member")
def test_threads(files: ModelFiles, format: str) -> None:
    path = files(**FORMATS[format])
    one = logits(path, n_threads=1)
    assert np.isfinite(one.view(np.float32)).all()
    for n_threads in (2, 3):
        assert np.array_equal(logits(path, n_threads=n_threads), one), n_threads


@each_format
@pytest.mark.usefixtures("every_member")
def test_chunks(files: ModelFiles, format: str) -> None:
    path = files(**FORMATS[format])
    whole = logits(path, prefill_chunk=512)
    for chunk in (1, 7, 64):
        assert np.array_equal(logits(path, prefill_chunk=chunk), whole), chunk


@pytest.mark.parametrize("format", REST)
@pytest.mark.usefixtures("every_member")
def test_threads_and_chunks(files: ModelFiles, format: str) -> None:
    path = files(format=format, dim=256, hidden_dim=256, n_layers=1)
    one = logits(path, PROMPT[:60], n_threads=1, prefill_chunk=64)
    assert np.isfinite(one.view(np.float32)).all()
    for n_threads, chunk in ((2, 1), (3, 13)):
        assert np.array_equal(logits(path, PROMPT[:60], n_threads=n_threads, prefill_chunk=chunk), one)


@each_format
@pytest.mark.usefixtures("every_member")
def test_token_by_token(files: ModelFiles, format: str) -> None:
    """What generate saw while it drew is what one forward over the whole text gives."""
    with load(files(**FORMATS[format])) as llm:
        recorder = Recorder(llm)
        out = llm.generate(PROMPT[:100], GREEDY)[0]
        drawn = out.outputs[0].token_ids
        assert len(drawn) == GREEDY.max_tokens
        whole = llm.logits(PROMPT[:100] + drawn[:-1])[99:]
        assert np.array_equal(recorder.of(out.request_id), bits(whole))
        assert drawn == whole.argmax(axis=1).tolist()


@pytest.mark.parametrize(
    "options",
    [{"compute": "f32"}, {"compute": "bf16"}, {"kv_dtype": "f32"}, {"compute": "f32", "kv_dtype": "f16"}],
)
@pytest.mark.usefixtures("every_member")
def test_other_precisions(files: ModelFiles, options: dict[str, Any]) -> None:
    path = files(**FORMATS["Q8_0"])
    one = logits(path, n_threads=1, prefill_chunk=512, **options)
    for n_threads, chunk in ((2, 1), (3, 50)):
        assert np.array_equal(logits(path, n_threads=n_threads, prefill_chunk=chunk, **options), one)
    assert not np.array_equal(logits(path), one)  # the option does something


def test_members_come_and_go(files: ModelFiles) -> None:
    """A small model wants one member for a token and all for a prompt: nothing is left over."""
    path = files()
    steps: list[Step] = [[(i, PROMPT[: 1 if i % 2 else 40])] for i in range(7)]
    for n_threads in (2, 3):
        found = forward(path, steps, n_threads=n_threads, every_member=False)
        for seq, rows in found.items():
            assert np.array_equal(bits(rows), bits(found[0][: len(rows)])), (n_threads, seq)


# ---- contexts of more than one key chunk


@pytest.mark.usefixtures("every_member")
def test_long_context_chunks(files: ModelFiles) -> None:
    path, ids = files(**LONG), random_ids(1100)
    whole = logits(path, ids, n_threads=1, prefill_chunk=2048)
    for n_threads, chunk in ((2, 512), (3, 100)):
        assert np.array_equal(logits(path, ids, n_threads=n_threads, prefill_chunk=chunk), whole), chunk


@pytest.mark.parametrize("kv_dtype", _core.KV_DTYPES)
def test_long_context_decodes(files: ModelFiles, kv_dtype: str) -> None:
    """Few queries on a long context are split over the team by key chunk."""
    path, ids = files(**LONG), random_ids(1100)
    steps: list[Step] = [[(0, ids[:500])], *([(0, [i])] for i in ids[500:516]), [(0, ids[516:1090])]]
    steps += [[(0, [i])] for i in ids[1090:1096]] + [[(0, ids[1096:])]]
    options: dict[str, Any] = {"prefill_chunk": 1100, "kv_dtype": kv_dtype}
    whole = bits(forward(path, [[(0, ids)]], n_threads=1, **options)[0])
    for n_threads in (1, 2, 3):
        assert np.array_equal(bits(forward(path, steps, n_threads=n_threads, **options)[0]), whole), n_threads


# ---- batches


def batch_of_prompts() -> list[list[int]]:
    return [random_ids(n, seed=n) for n in (3, 200, 31, 70, 1)]


def check_batch(path: str, params: list[SamplingParams], **options: Any) -> None:
    """All requests together: tokens and logits as of each alone."""
    prompts = batch_of_prompts()
    with load(path, **options) as llm:
        recorder = Recorder(llm)
        together = llm.generate(prompts, params)
        for prompt, p, out in zip(prompts, params, together, strict=True):
            alone = llm.generate(prompt, p)[0]
            assert alone.outputs[0].token_ids == out.outputs[0].token_ids
            assert alone.text == out.text
            assert np.array_equal(recorder.of(alone.request_id), recorder.of(out.request_id))


@each_format
@pytest.mark.usefixtures("every_member")
def test_batch_greedy(files: ModelFiles, format: str) -> None:
    check_batch(files(**FORMATS[format]), [GREEDY] * 5, prefill_chunk=64)


@each_format
def test_batch_sampled(files: ModelFiles, format: str) -> None:
    params = [SamplingParams(temperature=0.8, seed=i, max_tokens=16 + i, ignore_eos=True) for i in range(5)]
    check_batch(files(**FORMATS[format]), params, prefill_chunk=50, n_threads=3)


@pytest.mark.usefixtures("every_member")
def test_logits_from_many_threads(files: ModelFiles) -> None:
    """llm.logits and generate called at once from several threads."""
    with load(files(**FORMATS["Q8_0"])) as llm:
        prompts = batch_of_prompts()
        alone = [bits(llm.logits(p)) for p in prompts]
        text = llm.generate(PROMPT, GREEDY)[0].text
        found: dict[int, Any] = {}

        def ask(i: int) -> None:
            found[i] = bits(llm.logits(prompts[i])) if i < 5 else llm.generate(PROMPT, GREEDY)[0].text

        threads = [threading.Thread(target=ask, args=(i,)) for i in (5, 0, 1, 2, 3, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(np.array_equal(found[i], alone[i]) for i in range(5)) and found[5] == text


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_postponed_requests(files: ModelFiles, monkeypatch: pytest.MonkeyPatch, temperature: float) -> None:
    """A cache too small for all: some start over, and nobody can tell."""
    postponed: list[Request] = []
    postpone = Engine._postpone

    def counting(engine: Engine, request: Request) -> None:
        postponed.append(request)
        postpone(engine, request)

    path, n_blocks = files(**FORMATS["Q8_0"]), 10
    block_bytes = make_model(path)[0].kv_plan.block_bytes
    prompts = [random_ids(n, seed=n) for n in (3, 100, 31, 70, 1)]
    common: dict[str, Any] = {"temperature": temperature, "max_tokens": 100, "ignore_eos": True}
    params = [SamplingParams(seed=i, **common) for i in range(5)]
    with load(path) as llm:
        expected = [out.outputs[0] for out in llm.generate(prompts, params)]
    monkeypatch.setattr(Engine, "_postpone", counting)
    with load(path, kv_bytes=n_blocks * block_bytes, prefill_chunk=40) as llm:
        recorder = Recorder(llm)
        found = llm.generate(prompts, params)
        assert [out.outputs[0] for out in found] == expected
        assert postponed and postponed[0].id in {out.request_id for out in found}
        assert llm.model.pool.available == n_blocks
        again = llm.generate(prompts[0], params[0])[0]
        assert np.array_equal(recorder.of(again.request_id), recorder.of(found[0].request_id))


def test_a_used_cache_is_a_clean_cache(files: ModelFiles) -> None:
    """Whatever lies in blocks that were given back, NaN included, is not seen by those who come next."""
    with load(files(**FORMATS["Q8_0"])) as llm:
        expected = bits(llm.logits(PROMPT))
        model = llm.model
        assert model.pool.available == model.kv_plan.n_blocks
        for block in model.pool.used:
            with model.kv.view(block * model.kv_plan.block_bytes, model.kv_plan.block_bytes) as view:
                view[:] = b"\xff" * len(view)
        assert np.array_equal(bits(llm.logits(PROMPT)), expected)


class Interrupter(Recorder):
    """Cancels forwards: some before they begin, some while they run; none may leave a trace."""

    runs = cancelled = 0

    def run(self, batch: _core.Batch, n: int, m: int, sample: bool, wanted: np.ndarray | None) -> bool:
        self.runs += 1
        timer = threading.Timer(2e-5 * (self.runs % 7), batch.cancel)
        if self.runs % 3 == 0:
            batch.cancel()
        elif self.runs % 3 == 1:
            timer.start()
        done = super().run(batch, n, m, sample, wanted)
        if timer.ident:
            timer.join()
        self.cancelled += not done
        return done


def test_interrupted_forwards(files: ModelFiles) -> None:
    path = files(**FORMATS["Q4_K"])
    params = [SamplingParams(temperature=0.8, seed=i, max_tokens=20, ignore_eos=True) for i in range(5)]
    with load(path, prefill_chunk=40) as llm:
        recorder = Recorder(llm)
        calm = llm.generate(batch_of_prompts(), params)
        whole = bits(llm.logits(PROMPT))
    with load(path, prefill_chunk=40) as llm:
        interrupter = Interrupter(llm)
        for a, b in zip(llm.generate(batch_of_prompts(), params), calm, strict=True):
            assert a.outputs == b.outputs
            assert np.array_equal(interrupter.of(a.request_id), recorder.of(b.request_id))
        assert np.array_equal(bits(llm.logits(PROMPT)), whole)
        assert interrupter.cancelled >= interrupter.runs // 3 > 0


# ---- any way through the same tokens


LENGTHS = (40, 9, 70)
PIECES = st.sampled_from([0, 1, 1, 2, 5, 12, 13, 33, 70])


def steps_of(pieces: Sequence[tuple[int, ...]], order: Sequence[int]) -> list[Step]:
    """Steps that bring the sequences to their ends: `pieces` of each first, then all that is left."""
    texts = [random_ids(n, seed=n) for n in LENGTHS]
    steps: list[Step] = []
    for piece in [*pieces, LENGTHS]:
        step = [(seq, texts[seq][: piece[seq]]) for seq in order if texts[seq][: piece[seq]]]
        texts = [text[n:] for text, n in zip(texts, piece, strict=True)]
        steps += [step] if step else []
    return steps


ways = st.builds(steps_of, st.lists(st.tuples(*[PIECES] * 3), max_size=12), st.permutations(range(3)))


@pytest.fixture(scope="module")
def alone(files: ModelFiles) -> dict[str, list[np.ndarray]]:
    """The logits of each sequence by itself, by format."""

    def one(format: str, n: int) -> np.ndarray:
        return bits(forward(files(**FORMATS[format]), [[(0, random_ids(n, seed=n))]], prefill_chunk=120)[0])

    return {format: [one(format, n) for n in LENGTHS] for format in FORMATS}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(format=st.sampled_from(list(FORMATS)), steps=ways, n_threads=st.integers(1, 3), every=st.booleans())
def test_any_mixture(
    files: ModelFiles,
    alone: dict[str, list[np.ndarray]],
    format: str,
    steps: list[Step],
    n_threads: int,
    every: bool,
) -> None:
    options: dict[str, Any] = {"n_threads": n_threads, "every_member": every, "prefill_chunk": 120}
    found = forward(files(**FORMATS[format]), steps, **options)
    for seq, expected in enumerate(alone[format]):
        assert np.array_equal(bits(found[seq]), expected), seq
