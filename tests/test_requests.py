"""Requests through the engine: stops, streams, logprobs, penalties, several continuations, preemption."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import ggufmodel
import numpy as np
import pytest
from ggufmodel import ModelFiles, Shape, random_ids, write_model
from samplers import adjusted, log_softmax, ranked

from pyllama import LLM, InsufficientMemoryError, SamplingParams
from pyllama.request import CompletionOutput, Logprobs

EOS, BYTES = 2, 3  # the piece of byte 0 is number 3
WORDS = [
    "\u2581",
    "a",
    "b",
    "ab",
    "ba",
    "\u2581a",
    "世",
    "世界",
    "界\u2581",
    "👍",
    "👍🏽",
    "é",
    "e\u0301",
    "です",
]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    with LLM(ModelFiles(tmp_path_factory.mktemp("models"))(n_ctx=256), prefill_chunk=16) as llm:
        yield llm


@pytest.fixture(scope="module")
def babel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    """A model with pieces of several characters and scripts beside the bytes."""
    path: Path = tmp_path_factory.mktemp("models") / "babel.gguf"
    with mock.patch.object(ggufmodel, "MERGES", WORDS):
        write_model(
            path, Shape(dim=32, hidden_dim=32, n_layers=1, vocab_size=3 + 256 + len(WORDS), n_ctx=128)
        )
    with LLM(path, n_threads=1) as llm:
        yield llm


def one(llm: LLM, prompt: Any, **options: Any) -> CompletionOutput:
    return llm.generate([prompt] if isinstance(prompt, list) else prompt, **options)[0].outputs[0]


# ---- logits and what is drawn from them


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.5},
        {"frequency_penalty": 1.2, "presence_penalty": 0.7},
        {"repetition_penalty": 2.0, "frequency_penalty": -0.5, "repeat_last_n": 7},
        {"repetition_penalty": 0.5, "repeat_last_n": 1},
        {"logit_bias": {40: 3.0, 7: -100, 200: 2.5}},
        {"allowed_token_ids": range(100, 140), "banned_token_ids": [101, 120]},
        {"allowed_token_ids": [EOS, 5, 6], "min_tokens": 9, "logit_bias": {EOS: 100}},
        {"banned_token_ids": [5], "min_tokens": 9, "logit_bias": {5: 100, EOS: 90}},
        {"banned_token_ids": range(0, 301, 2), "presence_penalty": 2.0, "logit_bias": {1: 1.5}},
    ],
)
def test_greedy_takes_the_best_of_adjusted_logits(llm: LLM, options: dict[str, Any]) -> None:
    prompt = random_ids(12, seed=3)
    for seed in range(3):
        prompt = random_ids(12, seed=seed)
        found = one(llm, prompt, temperature=0, max_tokens=16, **options).token_ids
        names = {"repetition_penalty": "repetition", "frequency_penalty": "frequency",
                 "presence_penalty": "presence", "repeat_last_n": "last_n", "logit_bias": "bias",
                 "allowed_token_ids": "allowed"}  # fmt: skip
        given = {names[name]: value for name, value in options.items() if name in names}
        expected: list[int] = []
        while len(expected) < 16 and EOS not in expected:
            banned = {*options.get("banned_token_ids", ())}
            banned |= {EOS} if len(expected) < options.get("min_tokens", 0) else set()
            logits = llm.logits(prompt + expected)[-1]
            expected.append(int(adjusted(logits, prompt, expected, banned=banned, **given).argmax()))
        assert found == expected
    assert "min_tokens" not in options or len(found) == 10


def check_logprobs(llm: LLM, row: Logprobs, token: int, k: int, logits: np.ndarray) -> float:
    """One dict against the logits; the logprob of the token that is there."""
    order = ranked(logits).tolist()
    assert list(row) == list(dict.fromkeys([token, *order[:k]]))
    for i, p in row.items():
        assert p.logprob == pytest.approx(log_softmax(logits)[i], abs=2e-6)
        assert (p.rank, p.decoded_token) == (order.index(i) + 1, llm.tokenizer.spell(i))
    return row[token].logprob


@pytest.mark.parametrize("k", [0, 1, 5, 301])
def test_logprobs_are_of_the_raw_logits(llm: LLM, k: int) -> None:
    prompt = random_ids(40, seed=k)
    options: dict[str, Any] = {
        "temperature": 0.5,
        "top_k": 9,
        "repetition_penalty": 1.5,
        "logit_bias": {9: 4},
    }
    others = SamplingParams(max_tokens=30, seed=1, ignore_eos=True)
    params = SamplingParams(max_tokens=12, seed=k, logprobs=k, prompt_logprobs=k, ignore_eos=True, **options)
    result = llm.generate([random_ids(70), prompt, [5]], [others, params, others])[1]
    out = result.outputs[0]
    logits = llm.logits(prompt + out.token_ids)
    assert out.logprobs is not None and len(out.logprobs) == len(out.token_ids) == 12
    total = 0.0
    for i, row in enumerate(out.logprobs):
        total += check_logprobs(llm, row, out.token_ids[i], k, logits[len(prompt) - 1 + i])
    assert out.cumulative_logprob == pytest.approx(total)
    assert result.prompt_logprobs is not None and len(result.prompt_logprobs) == len(prompt)
    assert result.prompt_logprobs[0] is None
    for i, row in enumerate(result.prompt_logprobs[1:], 1):
        assert row is not None
        check_logprobs(llm, row, prompt[i], k, logits[i - 1])


def test_logprobs_change_no_text(llm: LLM) -> None:
    for seed in range(5):
        params = SamplingParams(max_tokens=20, seed=seed, ignore_eos=True)
        plain, asked = (
            llm.generate("abc", p)[0] for p in (params, replace(params, logprobs=3, prompt_logprobs=0))
        )
        assert plain.outputs[0].token_ids == asked.outputs[0].token_ids
        assert (plain.prompt_logprobs, plain.outputs[0].logprobs) == (None, None)
        assert plain.outputs[0].cumulative_logprob is None
    assert llm.generate([[5]], max_tokens=1, prompt_logprobs=2)[0].prompt_logprobs == [None]


def test_a_stream_has_logprobs_too(llm: LLM) -> None:
    params = SamplingParams(max_tokens=20, seed=3, ignore_eos=True, logprobs=2, prompt_logprobs=1)
    stream = llm.stream(random_ids(50), params)
    assert stream.output.prompt_logprobs is not None  # so far
    list(stream)
    whole = llm.generate([random_ids(50)], params)[0]
    assert (stream.output.outputs, stream.output.prompt_logprobs) == (whole.outputs, whole.prompt_logprobs)


def test_preempted_requests_lose_nothing(tmp_path: Path) -> None:
    path = ModelFiles(tmp_path)(n_ctx=256)
    prompts = [random_ids(n, seed=n) for n in (40, 33, 25, 50)]
    params = SamplingParams(
        max_tokens=60, seed=1, ignore_eos=True, logprobs=1, prompt_logprobs=2, repetition_penalty=1.2,
        frequency_penalty=0.3, repeat_last_n=50, min_tokens=3,
    )  # fmt: skip
    with LLM(path) as llm:
        block = llm.model.kv_plan.block_bytes
        alone = [llm.generate([p], params)[0] for p in prompts]
    with LLM(path, kv_bytes=6 * block) as llm:
        postponed = mock.Mock(side_effect=llm._engine._postpone)
        llm._engine._postpone = postponed  # type: ignore[method-assign]
        together = llm.generate(prompts, params)
    assert postponed.call_count > 0
    for a, b in zip(alone, together, strict=True):
        assert (a.outputs, a.prompt_logprobs) == (b.outputs, b.prompt_logprobs)


# ---- several continuations


def test_n_continuations(llm: LLM) -> None:
    params = SamplingParams(n=5, seed=7, max_tokens=15, ignore_eos=True, logprobs=1, prompt_logprobs=0)
    first, second = llm.generate(["ab", "cde"], params)
    for result, prompt in ((first, "ab"), (second, "cde")):
        assert [out.index for out in result.outputs] == list(range(5)) and result.finished
        assert len({out.text for out in result.outputs}) == 5
        assert result.prompt_logprobs == llm.generate(prompt, replace(params, n=1))[0].prompt_logprobs
        for i, out in enumerate(result.outputs):
            alone = llm.generate(prompt, replace(params, n=1, seed=7 + i))[0].outputs[0]
            assert replace(out, index=0) == alone
    assert first.timings.decode_tps > 0 and first.text == first.outputs[0].text


def test_n_continuations_have_seeds_of_their_own(llm: LLM) -> None:
    texts = [out.text for out in llm.generate("a", n=6, max_tokens=15, ignore_eos=True)[0].outputs]
    assert len(set(texts)) == 6
    ends = llm.generate("a", n=2, seed=2**64 - 1, max_tokens=9, ignore_eos=True)[0].outputs
    assert ends[1].text == one(llm, "a", seed=0, max_tokens=9, ignore_eos=True).text
    greedy = llm.generate("a", n=3, temperature=0, max_tokens=9, ignore_eos=True)[0].outputs
    assert len({out.text for out in greedy}) == 1


# ---- where a text ends


def test_min_tokens_holds_ends_off(llm: LLM) -> None:
    bias = {EOS: 100.0, 50: 90.0}
    for n in (0, 1, 6):
        out = one(llm, "a", min_tokens=n, logit_bias=bias, temperature=0, max_tokens=20)
        assert out.token_ids == [50] * n + [EOS] and (out.finish_reason, out.stop_reason) == ("stop", EOS)
        out = one(llm, "a", min_tokens=n, logit_bias=bias, temperature=0, max_tokens=20, stop_token_ids=[50])
        assert len(out.token_ids) == n + 1 and not {EOS, 50} & set(out.token_ids[:n])
    out = one(llm, "a", min_tokens=6, logit_bias=bias, temperature=0, max_tokens=8, ignore_eos=True)
    assert out.token_ids == [EOS] * 8 and out.finish_reason == "length"


def test_stop_token_ids(llm: LLM) -> None:
    params = SamplingParams(max_tokens=40, seed=5, ignore_eos=True)
    whole = one(llm, "a", params=params)
    spelled = [i for i in whole.token_ids if llm.tokenizer.decode([5, i]) != llm.tokenizer.decode([5])]
    stop = spelled[-1]
    n = whole.token_ids.index(stop)
    for include in (False, True):
        out = one(llm, "a", params=replace(params, stop_token_ids={stop}, include_stop_str_in_output=include))
        assert (out.finish_reason, out.stop_reason) == ("stop", stop)
        assert out.token_ids == whole.token_ids[: n + 1]
        shown = llm.tokenizer.stream([5])
        text = "".join(shown.put(i) for i in out.token_ids[: n + include]) + shown.flush()
        assert out.text == text


def test_stop_strings_wait_for_min_tokens(babel: LLM) -> None:
    a = babel.tokenizer.encode("aa", add_bos=False)[-1]
    options: dict[str, Any] = {"allowed_token_ids": [a], "max_tokens": 9, "temperature": 0}
    for n, stop, text in ((0, "a", ""), (3, "a", "aaa"), (3, "aa", "aa"), (3, "aaaa", ""), (3, "aaaaaa", "")):
        out = one(babel, "b", min_tokens=n, stop=stop, **options)
        assert (out.text, out.stop_reason) == (text, stop)
        out = one(babel, "b", min_tokens=n, stop=stop, include_stop_str_in_output=True, **options)
        assert (out.text, len(out.token_ids)) == (text + stop, len(text + stop))
    out = one(babel, "b", min_tokens=9, stop="a", **options)
    assert (out.text, out.finish_reason) == ("a" * 9, "length")


def expected_text(llm: LLM, prompt: list[int], ids: list[int], p: SamplingParams) -> tuple[str, int]:
    """The text of `ids` up to a stop, found by looking at all of it after every token; tokens it took."""
    shown, text, include = llm.tokenizer.stream(prompt), "", p.include_stop_str_in_output
    for n, token in enumerate([*ids, None], 1):
        before, over = len(text), token is None
        if token is None:
            text += shown.flush()
        elif token in (p.stop_token_ids or ()):
            text += shown.put(token) if include else ""
            continue
        else:
            text += shown.put(token)
        ends = [(i, s) for s in p.stop_strings() for i in range(len(text)) if text.startswith(s, i)]
        ends = [(i, s) for i, s in ends if i + len(s) > before]
        if ends and n - over > p.min_tokens:
            at, stop = min(ends)
            return text[: at + len(stop) * include], n - over
    return text, len(ids)


def random_request(rng: random.Random, llm: LLM) -> tuple[list[int], SamplingParams]:
    """A request whose tokens are mostly pieces of several characters, and bytes of such."""
    usual = [
        *range(BYTES + 256, llm.tokenizer.vocab_size),
        *(BYTES + b for b in "世👍é ".encode()),
        BYTES + 255,
    ]
    params = SamplingParams(
        max_tokens=rng.randint(4, 12),
        min_tokens=rng.choice([0, 0, 0, 2, 4]),
        seed=rng.getrandbits(32),
        allowed_token_ids=rng.sample(usual, rng.randint(4, len(usual))),
        stop_token_ids=rng.sample(usual, 1) if rng.random() < 0.2 else None,
        ignore_eos=True,
        frequency_penalty=rng.choice([0, 1.5]),
        top_p=rng.choice([0.9, 1]),
    )
    return [1, *rng.choices(usual, k=rng.randint(1, 5))], params


def with_stops(rng: random.Random, params: SamplingParams, text: str) -> SamplingParams:
    """The same with some parts of `text`, and some that only begin like parts of it, as stop strings."""
    stops = []
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text))
        part = text[at : at + rng.randint(1, 4)]
        stops.append(part + "\0" if rng.random() < 0.4 else part)
    return replace(params, stop=stops, include_stop_str_in_output=rng.random() < 0.3)


def test_streams_are_what_generate_gives(babel: LLM) -> None:
    """500 random requests: whole and in pieces, in other batches, with and without stop strings."""
    rng, asked = random.Random(1), []
    while len(asked) < 500:
        try:
            asked += [random_request(rng, babel)]
            babel._requests(*asked[-1], stream=False)
        except ValueError as error:  # nothing is left to draw before min_tokens
            assert "min_tokens" in str(error)
            asked.pop()
    prompts, params = [p for p, _ in asked], [s for _, s in asked]
    free = [result.outputs[0] for result in babel.generate(prompts, params)]
    params = [with_stops(rng, p, out.text) if out.text else p for p, out in zip(params, free, strict=True)]
    whole = [result.outputs[0] for result in babel.generate(prompts, params)]
    for i, (prompt, p, out) in enumerate(zip(prompts, params, whole, strict=True)):
        text, n = expected_text(babel, prompt, free[i].token_ids, p)
        assert (out.text, out.token_ids) == (text, free[i].token_ids[:n]), i
        assert (out.finish_reason == "stop") == (out.stop_reason is not None)
        for stop in () if p.include_stop_str_in_output or p.min_tokens else p.stop_strings():
            assert stop not in out.text
    for first in range(0, 500, 7):
        some = range(first, min(first + 7, 500))
        streams = [babel.stream(prompts[i], params[i]) for i in some]
        for i, stream in zip(some, streams, strict=True):
            assert "".join(stream) == whole[i].text and stream.output.outputs[0] == whole[i]
    texts = "".join(out.text for out in whole)
    assert all(c in texts for c in "世界👍🏽éです\ufffd")
    assert 100 < sum(isinstance(out.stop_reason, str) for out in whole) < 450


# ---- what does not fit


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"logprobs": 302}, "logprobs: expected at most 301, the vocabulary, found 302"),
        ({"prompt_logprobs": 302}, "prompt_logprobs: expected at most 301"),
        ({"stop_token_ids": [5, 301]}, "stop_token_ids: expected token ids from 0 to 300, found 301"),
        ({"allowed_token_ids": [301]}, "allowed_token_ids: expected token ids from 0 to 300"),
        ({"banned_token_ids": [2**31 - 1]}, "banned_token_ids: .* found 2147483647"),
        ({"logit_bias": {999: 1}}, "logit_bias: expected token ids from 0 to 300, found 999"),
        ({"banned_token_ids": range(301)}, "allowed_token_ids, banned_token_ids: expected at least one"),
        ({"allowed_token_ids": [7], "banned_token_ids": [7]}, "banned_token_ids: expected at least one"),
        ({"allowed_token_ids": [EOS], "min_tokens": 1}, "min_tokens: expected at least one"),
        (
            {"allowed_token_ids": [9], "min_tokens": 1, "stop_token_ids": [9]},
            "min_tokens: expected at least one",
        ),
    ],
)
def test_what_does_not_fit_the_vocabulary(llm: LLM, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        llm.generate("a", **options)
    with pytest.raises(ValueError, match=words):
        llm.stream("a", **options)
    assert one(llm, "a", max_tokens=2, ignore_eos=True).finish_reason == "length"


def test_logprobs_beyond_memory_are_refused(llm: LLM) -> None:
    with (
        mock.patch("pyllama.sampler.available_memory", return_value=10**6),
        pytest.raises(InsufficientMemoryError, match="prompt_logprobs: needs about"),
    ):
        llm.generate([random_ids(200)], max_tokens=1, prompt_logprobs=100)


def test_a_stream_is_of_one_continuation(llm: LLM) -> None:
    with pytest.raises(ValueError, match="n: expected 1 for a stream, found 2"):
        llm.stream("a", n=2)
