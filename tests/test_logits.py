"""Masks, biases, penalties and logprobs in C against numpy, bit by bit where both are float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from samplers import (
    KERNELS,
    adjusted,
    bit_mask,
    chi_square_z,
    draws,
    log_softmax,
    ranked,
    record,
    reference,
    sample,
)

from pyllama import _core

INF, NAN = math.inf, math.nan
SIZES = [1, 2, 7, 8, 9, 33, 301]


def same_bits(x: np.ndarray, y: np.ndarray) -> bool:
    return x.dtype == y.dtype == np.float32 and np.array_equal(x.view(np.uint32), y.view(np.uint32))


def random_logits(rng: np.random.Generator, n: int) -> np.ndarray:
    x = (3 * rng.standard_normal(n)).astype(np.float32)
    x[rng.random(n) < 0.05] = -INF
    x[rng.random(n) < 0.05] = 0.0
    return x


# ---- what is done to logits


@pytest.mark.parametrize("n", SIZES)
def test_penalties_are_numpys(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(30):
        x = random_logits(rng, n)
        tokens = rng.integers(0, n, rng.integers(0, 40)).astype(np.int32)
        n_prompt = int(rng.integers(0, len(tokens) + 1))
        last_n = int(rng.choice([-1, 0, 1, 5, len(tokens), 10**6]))
        strengths = {
            "repetition": float(rng.choice([1.0, 1.1, 0.7, 3.0])),
            "frequency": float(rng.choice([0.0, 0.3, -0.2, 2.0])),
            "presence": float(rng.choice([0.0, 0.6, -1.5])),
        }
        made = record(
            tokens=tokens, n_prompt=n_prompt, counter=len(tokens) - n_prompt, last_n=last_n, **strengths
        )
        prompt, output = tokens[:n_prompt].tolist(), tokens[n_prompt:].tolist()
        expected = adjusted(x, prompt, output, last_n=last_n, **strengths)
        assert same_bits(KERNELS.adjust(x, made), expected)


def test_penalties_by_hand() -> None:
    x = np.array([2.0, -2.0, 4.0, 1.0, 0.0], np.float32)
    tokens = np.array([0, 1, 4, 2, 2, 0], np.int32)  # a prompt of three
    window: dict[str, Any] = {"tokens": tokens, "n_prompt": 3, "counter": 3}
    for values, expected in (
        ({"repetition": 2.0}, [1.0, -4.0, 2.0, 1.0, 0.0]),
        ({"frequency": 0.5}, [1.5, -2.0, 3.0, 1.0, 0.0]),
        ({"presence": 0.5}, [1.5, -2.0, 3.5, 1.0, 0.0]),
        ({"frequency": 0.5, "last_n": 2}, [1.5, -2.0, 3.5, 1.0, 0.0]),
        ({"repetition": 2.0, "last_n": 3}, [1.0, -2.0, 2.0, 1.0, 0.0]),
        ({"repetition": 2.0, "last_n": 4}, [1.0, -2.0, 2.0, 1.0, 0.0]),
        ({"repetition": 2.0, "last_n": 5}, [1.0, -4.0, 2.0, 1.0, 0.0]),
        ({"repetition": 2.0, "frequency": 1.0, "presence": 0.25}, [-0.25, -4.0, -0.25, 1.0, 0.0]),
        ({"repetition": 2.0, "presence": 1.0, "last_n": 0}, [2.0, -2.0, 4.0, 1.0, 0.0]),
    ):
        assert KERNELS.adjust(x, record(**window, **values)).tolist() == expected, values


@pytest.mark.parametrize("n", SIZES)
def test_masks_and_biases_are_numpys(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        x = random_logits(rng, n)
        allowed = set(rng.integers(0, n, n).tolist())
        bias = dict(zip(rng.permutation(n)[:5].tolist(), rng.uniform(-100, 100, 5).tolist(), strict=False))
        ids, values = np.array(list(bias), np.int32), np.array(list(bias.values()), np.float32)
        mask = bit_mask(allowed, n)
        made = record(allowed=[mask.ctypes.data] * 2, bias_token=ids, bias=values, n_bias=len(bias))
        assert same_bits(KERNELS.adjust(x, made), adjusted(x, allowed=allowed, bias=bias))


def test_nothing_to_do_is_nothing_done() -> None:
    x = random_logits(np.random.default_rng(0), 100)
    assert same_bits(KERNELS.adjust(x, record()), x)


def test_masks_before_and_after_min_tokens() -> None:
    early, late = bit_mask({1}, 3), bit_mask({0, 1}, 3)
    masks = [early.ctypes.data, late.ctypes.data]
    for counter, expected in ((0, 1), (4, 1), (5, 0), (6, 0)):
        found = sample([2.0, 1.0, 3.0], allowed=masks, min_tokens=5, counter=counter, temperature=0)
        assert found == expected
    assert (
        sample([2.0, 1.0, 3.0], allowed=[early.ctypes.data, 0], min_tokens=1, counter=1, temperature=0) == 2
    )


@pytest.mark.parametrize("value", [NAN, -INF])
def test_an_allowed_token_is_drawn_whatever_its_logit(value: float) -> None:
    for n in SIZES:
        for only in {0, n // 2, n - 1}:
            x, mask = np.ones(n), bit_mask({only}, n)
            x[only] = value
            expected = only if n > 1 else _core.NO_TOKEN  # no logit at all is a number
            for temperature in (0.0, 1.0):
                token = sample(x, allowed=[mask.ctypes.data] * 2, temperature=temperature, top_p=0.5)
                assert token == expected


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0.8},
        {"temperature": 1.3, "top_k": 20},
        {"temperature": 0.9, "typical_p": 0.8},
        {"temperature": 1.2, "top_p": 0.8, "min_p": 0.02},
        {"temperature": 1.1, "top_k": 30, "typical_p": 0.9, "top_p": 0.9, "min_p": 0.01},
    ],
)
def test_distribution_of_adjusted_logits(values: dict[str, Any]) -> None:
    n, z = 60, []
    for seed in range(10):
        rng = np.random.default_rng([7, seed])
        x = (2 * rng.standard_normal(n)).astype(np.float32)
        prompt, output = rng.integers(0, n, 30).tolist(), rng.integers(0, n, 20).tolist()
        allowed, bias = set(range(0, n, 2)) | set(range(20)), {3: 2.5, 40: -1.0}
        penalties = {"repetition": 1.3, "frequency": 0.4, "presence": 0.2, "last_n": 35}
        p = reference(
            adjusted(x, prompt, output, allowed=allowed, bias=bias, **penalties),  # type: ignore[arg-type]
            **values,
        )
        mask, tokens = bit_mask(allowed, n), np.array(prompt + output, np.int32)
        ids, biases = np.array(list(bias), np.int32), np.array(list(bias.values()), np.float32)
        found = draws(
            x, 1500, first_seed=5000 * seed, tokens=tokens, n_prompt=30, counter=20, bias_token=ids,
            bias=biases, n_bias=2, allowed=[mask.ctypes.data] * 2, **penalties, **values,
        )  # fmt: skip
        z.append(chi_square_z(found, p))
    assert max(z) < 4 and np.mean(z) < 1.5


# ---- logprobs


def scored(x: np.ndarray, k: int, **values: Any) -> tuple[int, np.ndarray]:
    """The row's token, and its logprobs."""
    found = np.zeros(1 + k, _core.LOGPROB)
    return KERNELS.sample(x, record(logprobs=found, n_logprobs=k, **values)), found


@pytest.mark.parametrize("n", SIZES)
def test_logprobs_are_log_softmax(n: int) -> None:
    rng = np.random.default_rng(n)
    for seed in range(20):
        x = (4 * rng.standard_normal(n)).astype(np.float32)
        k = int(rng.integers(0, n + 1))
        mask = bit_mask({int(rng.integers(n))}, n)  # what is done to the logits does not show
        token, found = scored(x, k, seed=seed, temperature=0.3, allowed=[mask.ctypes.data] * 2)
        p, order = log_softmax(x), ranked(x)
        assert found["token"].tolist() == [token, *order[:k]]
        assert found["rank"].tolist() == [order.tolist().index(token) + 1, *range(1, k + 1)]
        np.testing.assert_allclose(found["logprob"], p[found["token"]], rtol=1e-6, atol=1e-6)


def test_logprobs_of_a_large_vocabulary() -> None:
    x = (3 * np.random.default_rng(0).standard_normal(128_256)).astype(np.float32)
    for k in (1, 20, 128_256):
        token, found = scored(x, k, temperature=0)
        np.testing.assert_allclose(found["logprob"], log_softmax(x)[found["token"]], rtol=0, atol=4e-6)
        assert found["token"].tolist() == [token, *ranked(x)[:k]]


@pytest.mark.parametrize("k", [1, 2, 9, 299, 300])
def test_logprobs_of_equals(k: int) -> None:
    x = np.random.default_rng(k).integers(0, 3, 300).astype(np.float32)
    for target in (0, 150, 299):
        token, found = scored(x, k, target=target)
        assert token == target == found["token"][0] and found["token"][1:].tolist() == ranked(x)[:k].tolist()
        assert found["rank"][0] == ranked(x).tolist().index(target) + 1


def test_logprobs_of_what_is_no_number() -> None:
    x = np.array([1.0, NAN, 3.0, -INF, 2.0], np.float32)
    token, found = scored(x, 5, target=1)
    assert token == 1 and found["token"].tolist() == [1, 2, 4, 0, 1, 3] and found["rank"][0] == 4
    for value in (NAN, INF, -INF):
        x = np.full(5, value, np.float32)
        token, found = scored(x, 5, target=3)
        assert token == 3 and found["token"].tolist() == [3, 0, 1, 2, 3, 4]
        token, found = scored(x, 5, temperature=0)
        if value == INF:
            assert 0 <= token < 5 and found["token"].tolist() == [token, 0, 1, 2, 3, 4]
        else:
            assert token == _core.NO_TOKEN and not found.view(np.uint8).any()  # nothing is written


def test_a_target_is_not_drawn() -> None:
    x = np.array([1.0, 5.0, 2.0], np.float32)
    assert [sample(x, target=i, temperature=0) for i in range(3)] == [0, 1, 2]
