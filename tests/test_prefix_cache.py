"""KV of earlier requests is used again, and nobody can tell but by the clock."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ggufmodel import ModelFiles, make_model, random_ids
from hypothesis import given, settings
from hypothesis import strategies as st
from test_same_bits import Recorder

from pyllama import LLM, SamplingParams, _core
from pyllama.cache import BlockPool, blocks_for
from pyllama.engine import Engine
from pyllama.plan import KVPlan

BLOCK = _core.KV_BLOCK
GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
PLAN = KVPlan(n_layers=1, n_kv_heads=1, head_dim=16, dtype=1, n_blocks=6)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ModelFiles(tmp_path_factory.mktemp("models"))(format="Q8_0", dim=96, n_heads=6, hidden_dim=160)


def load(path: str, n_blocks: int = 64, **options: Any) -> LLM:
    kv_bytes = n_blocks * make_model(path)[0].kv_plan.block_bytes
    return LLM(path, kv_bytes=kv_bytes, **({"n_threads": 2, "use_hugepages": False} | options))


def rows_of(llm: LLM) -> list[int]:
    """Rows of each forward from now on."""
    rows, fill = [], llm._engine._fill

    def counting(plan: Any) -> Any:
        found = fill(plan)
        rows.append(found[0])
        return found

    llm._engine._fill = counting  # type: ignore[method-assign]
    return rows


# ---- requests


@pytest.mark.parametrize("n", [1, 31, 32, 33, 64, 65, 200])
def test_the_same_prompt_again(path: str, n: int) -> None:
    """All full blocks are found but the one that ends with the last token: that is computed anyway."""
    with load(path) as llm:
        recorder = Recorder(llm)
        first = llm.generate(random_ids(n), GREEDY)[0]
        rows = rows_of(llm)
        again = llm.generate(random_ids(n), GREEDY)[0]
        cached = (n - 1) // BLOCK * BLOCK
        assert (first.cached_tokens, again.cached_tokens) == (0, cached)
        assert sum(rows) == n - cached + GREEDY.max_tokens - 1
        assert first.outputs == again.outputs
        assert np.array_equal(recorder.of(first.request_id), recorder.of(again.request_id))


def test_turns_of_a_conversation(path: str) -> None:
    """The second turn computes neither the first prompt nor the answer again."""
    with load(path) as llm, load(path, prefix_cache=False) as plain:
        ids = random_ids(40)
        for turn in range(5):
            out, expected = llm.generate(ids, GREEDY)[0], plain.generate(ids, GREEDY)[0]
            assert out.outputs == expected.outputs
            assert out.cached_tokens == ((len(ids) - 6) // BLOCK * BLOCK if turn else 0)
            assert expected.cached_tokens == 0
            assert out.timings.prefill_tps > 0
            ids = [*ids, *out.outputs[0].token_ids, *random_ids(5, seed=turn)]


def test_blocks_are_shared_by_requests_that_run(path: str) -> None:
    head = random_ids(100)
    prompts = [[*head, i] for i in range(5)]
    with load(path, n_blocks=3 + 5 * 2) as llm, load(path, prefix_cache=False) as plain:
        llm.generate(head, max_tokens=1)
        found = llm.generate(prompts, GREEDY)
        assert [out.outputs for out in found] == [out.outputs for out in plain.generate(prompts, GREEDY)]
        assert [out.cached_tokens for out in found] == [96] * 5
        assert llm.model.pool.available == llm.model.kv_plan.n_blocks
        assert not any(llm.model.pool.holders)


def test_a_difference_ends_what_is_shared(path: str) -> None:
    """The same 32 ids at another place, or after others, are other blocks."""
    a, b = random_ids(33)[1:], random_ids(33, seed=1)[1:]
    with load(path) as llm, load(path, prefix_cache=False) as plain:
        for prompt, cached in (
            ([*a, *b, 5], 0),
            ([*b, *a, 5], 0),
            ([*a, *a, 5], 32),
            ([*a, *b[:-1], 9, 5], 32),
            ([*a, *b, *a, 5], 64),
            ([9, *a, *b, 5], 0),
            ([*b, *a, *b, 5], 64),
        ):
            out = llm.generate(prompt, GREEDY)[0]
            assert out.cached_tokens == cached, prompt
            assert out.outputs == plain.generate(prompt, GREEDY)[0].outputs


def test_logits_are_always_all_computed(path: str) -> None:
    with load(path) as llm, load(path, prefix_cache=False) as plain:
        ids = random_ids(100)
        for _ in range(3):
            assert np.array_equal(llm.logits(ids), plain.logits(ids))
        assert llm.generate([*ids, 7], GREEDY)[0].cached_tokens == 96  # and can be used by others


def test_memory_is_bounded(path: str) -> None:
    with load(path, n_blocks=12, max_batch=4) as llm:
        pool = llm.model.pool
        for seed in range(30):
            llm.generate([random_ids(1 + 7 * i, seed=seed + i) for i in range(8)], GREEDY)
            assert pool.available == 12 == len(pool.free) + len(pool.kept)
            assert len(pool.index) == len(pool.keys) == len(pool.nodes) == len(pool.kept)
            assert pool.used <= set(range(12))


def test_the_longest_unused_goes_first(path: str) -> None:
    a, b, c = (random_ids(65, seed=i) for i in range(3))
    with load(path, n_blocks=6) as llm:

        def cached(ids: Sequence[int]) -> int:
            return llm.generate(ids, max_tokens=1)[0].cached_tokens

        assert [cached(ids) for ids in (a, b, a, c, a, b)] == [0, 0, 64, 0, 64, 32]


def test_stale_blocks_do_not_matter(path: str) -> None:
    """What lies in blocks that are free, NaN included, is not seen; what is kept is intact."""
    prompts = [random_ids(70 + i, seed=i) for i in range(4)]
    with load(path, n_blocks=20) as llm:
        expected = [out.outputs for out in llm.generate(prompts, GREEDY)]
        model = llm.model
        assert model.pool.used.intersection(model.pool.free) and model.pool.kept
        for block in model.pool.free:
            with model.kv.view(block * model.kv_plan.block_bytes, model.kv_plan.block_bytes) as view:
                view[:] = b"\xff" * len(view)
        again = llm.generate(prompts, GREEDY)
        assert [out.outputs for out in again] == expected
        assert all(out.cached_tokens == 64 for out in again)


def test_a_fork_begins_with_nothing(path: str) -> None:
    with load(path) as llm:
        expected = llm.generate(random_ids(70), GREEDY)[0].outputs
        pid = os.fork()
        if pid == 0:
            ok = False
            try:
                out = llm.generate(random_ids(70), GREEDY)[0]
                ok = out.outputs == expected and out.cached_tokens == 0
                llm.close()
            finally:
                os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert llm.generate(random_ids(70), GREEDY)[0].cached_tokens == 64


def test_the_option_is_checked(path: str) -> None:
    with pytest.raises(ValueError, match="prefix_cache: expected one of True, False, found 'yes'"):
        LLM(path, prefix_cache="yes")  # type: ignore[arg-type]


# ---- any mixture of requests

HEADS = [random_ids(n, seed=n) for n in (1, 31, 32, 40, 64, 75, 96)]
prompts = st.builds(
    lambda head, tail: [*HEADS[head], *range(3, 3 + tail)],
    st.integers(0, len(HEADS) - 1),
    st.sampled_from([0, 1, 2, 31, 32, 33, 40]),
)
request = st.tuples(prompts, st.sampled_from([1, 3, 20, 40]), st.sampled_from([0.0, 0.9]))
batches = st.lists(st.lists(request, min_size=1, max_size=6), min_size=1, max_size=3)


class Pair:
    """An LLM with a small cache, and what an LLM without one gave for each request alone."""

    def __init__(self, path: str, n_blocks: int, chunk: int) -> None:
        self.llm = load(path, n_blocks, prefill_chunk=chunk, max_batch=4)
        self.plain = load(path, prefix_cache=False)
        self.recorder, self.witness = Recorder(self.llm), Recorder(self.plain)
        self.known: dict[Any, tuple[Any, np.ndarray]] = {}

    def expected(self, prompt: list[int], params: SamplingParams) -> tuple[Any, np.ndarray]:
        key = (tuple(prompt), params)
        if key not in self.known:
            out = self.plain.generate(prompt, params)[0]
            self.known[key] = out.outputs, self.witness.of(out.request_id)
        return self.known[key]

    def close(self) -> None:
        self.llm.close()
        self.plain.close()


@pytest.fixture(scope="module")
def pairs(path: str):
    made = [Pair(path, n_blocks=6, chunk=40), Pair(path, n_blocks=14, chunk=512), Pair(path, 9, 7)]
    yield made
    for pair in made:
        pair.close()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(which=st.integers(0, 2), mixture=batches, cancel=st.booleans())
def test_any_mixture(pairs: list[Pair], which: int, mixture: Any, cancel: bool) -> None:
    """Tokens, text and logits' bits; some requests start over, others are cancelled on the way."""
    pair = pairs[which]
    for batch in mixture:
        params = [
            SamplingParams(temperature=temperature, seed=7, max_tokens=n, ignore_eos=True)
            for _, n, temperature in batch
        ]
        stream = pair.llm.stream(random_ids(50), max_tokens=100, ignore_eos=True) if cancel else None
        timer = threading.Timer(0.002, stream.cancel) if stream else None
        if timer:
            timer.start()
        for (prompt, *_), p, out in zip(
            batch, params, pair.llm.generate([b[0] for b in batch], params), strict=True
        ):
            outputs, bits = pair.expected(prompt, p)
            assert out.outputs == outputs
            assert np.array_equal(pair.recorder.of(out.request_id), bits)
            assert out.cached_tokens <= len(prompt) - 1 and out.cached_tokens % BLOCK == 0
        if timer:
            timer.join()
            list(stream)
        pool = pair.llm.model.pool
        assert pool.available == pair.llm.model.kv_plan.n_blocks and not any(pool.holders)


def test_postponed_requests_find_their_blocks(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    postponed, postpone = [], Engine._postpone

    def counting(engine: Engine, request: Any) -> None:
        postponed.append(request)
        postpone(engine, request)

    monkeypatch.setattr(Engine, "_postpone", counting)
    params = SamplingParams(temperature=0.8, seed=1, max_tokens=100, ignore_eos=True)
    prompts = [random_ids(n, seed=n) for n in (3, 60, 31, 50, 1)]
    with load(path, n_blocks=10) as llm, load(path, prefix_cache=False) as plain:
        found = llm.generate(prompts, params)
        assert postponed and all(out.cached_tokens == 0 for out in found)
        assert [out.outputs for out in found] == [out.outputs for out in plain.generate(prompts, params)]


# ---- the pool alone


class Blank:
    """Memory that nobody reads."""

    def zero(self, begin: int, n: int) -> None:
        assert 0 <= begin <= begin + n <= PLAN.block_bytes * PLAN.n_blocks


steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.lists(st.sampled_from([1, 2]), min_size=1, max_size=5)),
        st.tuples(st.just("grow"), st.integers(0, 3), st.sampled_from([1, 2])),
        st.tuples(st.just("end"), st.integers(0, 3)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(steps)
def test_pool(steps: list[Any]) -> None:
    """Sequences come, grow by a block of equal ids, and go; a block found holds what is asked for."""
    pool = BlockPool(PLAN, Blank())  # type: ignore[arg-type]
    live: list[tuple[list[int], list[int]]] = []  # ids, blocks
    content: dict[int, tuple[int, ...]] = {}  # block -> all ids up to its end, as last written

    def grow(ids: list[int], blocks: list[int], value: int) -> None:
        if not pool.available:
            return
        ids += [value] * BLOCK
        blocks.append(pool.take())
        content[blocks[-1]] = tuple(ids)
        pool.remember(ids, blocks, len(ids))

    for step in steps:
        if step[0] == "begin":
            wanted = [value for value in step[1] for _ in range(BLOCK)]
            blocks = pool.find([*wanted, 0])
            for i, block in enumerate(blocks):
                assert content[block] == tuple(wanted[: (i + 1) * BLOCK])
            live.append((wanted[: len(blocks) * BLOCK], blocks))
            for value in step[1][len(blocks) :]:
                grow(*live[-1], value)
        elif live and step[0] == "grow":
            grow(*live[step[1] % len(live)], step[2])
        elif live:
            pool.give_back(live.pop(step[1] % len(live))[1])
        held = [block for _, blocks in live for block in blocks]
        assert [held.count(block) for block in range(PLAN.n_blocks)] == pool.holders
        assert sorted([*set(held), *pool.free, *pool.kept]) == list(range(PLAN.n_blocks))
        assert set(pool.keys) == set(pool.index.values()) >= set(pool.kept)
        assert set(pool.keys) <= set(pool.nodes) <= {*held, *pool.kept}


def test_blocks_for() -> None:
    assert [blocks_for(n) for n in (0, 1, BLOCK, BLOCK + 1)] == [0, 1, 1, 2]
