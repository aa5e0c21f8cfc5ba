"""Sampling: what is drawn against a numpy reference, exact cuts, the generator, the parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from samplers import chi_square_z, draws, logs, reference, sample

from pyllama import SamplingParams, _core
from pyllama.sampling import ALIASES, params_from

INF, NAN = math.inf, math.nan
SIZES = [1, 2, 7, 16, 17, 33, 1000]  # around the lanes of all levels


# ---- greedy


@pytest.mark.parametrize("n", SIZES)
def test_greedy_takes_the_largest(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        x = rng.standard_normal(n).astype(np.float32)
        assert sample(x, temperature=0) == x.argmax()
        assert sample(x, top_k=1) == x.argmax()


@pytest.mark.parametrize("n", SIZES)
def test_greedy_takes_the_first_of_equals(n: int) -> None:
    assert sample(np.zeros(n), temperature=0) == 0
    for first in range(0, n, 5):
        x = np.full(n, -1.0)
        x[first:] = 2.0
        assert sample(x, temperature=0) == first
        x[first + 1 :] = -3.0  # alone
        assert sample(x, temperature=0) == first


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.01])
@pytest.mark.parametrize("n", SIZES[1:])
def test_nan_is_never_drawn(n: int, temperature: float) -> None:
    rng = np.random.default_rng(n)
    for i in range(20):
        x = rng.standard_normal(n).astype(np.float32)
        x[rng.random(n) < 0.5] = NAN
        x[-1] = 0.0
        for cuts in ({}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}):
            assert not np.isnan(x[sample(x, temperature=temperature, seed=i, **cuts)]), cuts


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.01])
@pytest.mark.parametrize("n", SIZES[1:])
def test_minus_infinity_is_never_drawn(n: int, temperature: float) -> None:
    x = np.full(n, -INF)
    x[[n // 2, n - 1]] = 0.0, 0.1
    found = draws(x, 200, temperature=temperature) + draws(x, 200, temperature=temperature, top_k=5)
    assert set(found) <= {n // 2, n - 1}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_infinity_wins(temperature: float) -> None:
    for n in SIZES[1:]:
        x = np.zeros(n)
        x[n // 2] = INF
        assert set(draws(x, 20, temperature=temperature)) == {n // 2}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_nothing_is_a_number_no_token_is_drawn(temperature: float) -> None:
    for n in SIZES:
        for x in (np.full(n, NAN), np.full(n, -INF), np.where(np.arange(n) % 2, NAN, -INF)):
            assert sample(x, temperature=temperature, top_k=2, top_p=0.5) == _core.NO_TOKEN
        assert 0 <= sample(np.full(n, INF), temperature=temperature, top_k=2, top_p=0.5) < n
        x[-1] = -3e38
        assert sample(x, temperature=temperature) == n - 1


# ---- exact cuts

CUTS: list[tuple[list[float], dict[str, Any], set[int]]] = [
    ([0.1, 0.4, 0.2, 0.3], {"top_k": 2}, {1, 3}),
    ([0.25, 0.25, 0.25, 0.25], {"top_k": 2}, {0, 1}),
    ([0.2, 0.4, 0.2, 0.2], {"top_k": 3}, {0, 1, 2}),
    ([0.2, 0.3, 0.5], {"top_k": 3}, {0, 1, 2}),
    ([0.2, 0.3, 0.5], {"top_k": 100}, {0, 1, 2}),
    ([0.2, 0.3, 0.5], {"top_p": 0.6}, {1, 2}),  # 0.5 is not enough: the next one crosses
    ([0.2, 0.3, 0.5], {"top_p": 0.4}, {2}),
    ([0.25, 0.25, 0.25, 0.25], {"top_p": 0.5}, {0, 1}),  # exactly reached
    ([0.25, 0.25, 0.25, 0.25], {"top_p": 0.51}, {0, 1, 2}),
    ([0.25, 0.5, 0.25], {"top_p": 1e-6}, {1}),
    ([0.25, 0.5, 0.25], {"top_p": 1e-50}, {1}),  # 0 in float32
    ([0.2, 0.3, 0.5], {"top_p": 1.0}, {0, 1, 2}),
    ([0.5, 0.5], {"min_p": 1.0}, {0, 1}),
    ([0.5, 0.3, 0.2], {"min_p": 1.0}, {0}),
    ([0.5, 0.3, 0.2], {"min_p": 0.5}, {0, 1}),
    ([0.4, 0.3, 0.2, 0.1], {"top_k": 3, "top_p": 0.7}, {0, 1}),  # 0.7 of the 0.9 that top_k left: 0.63
    ([0.4, 0.3, 0.2, 0.1], {"top_k": 2, "min_p": 0.9}, {0}),
    ([0.4, 0.3, 0.2, 0.1], {"temperature": 1e-3}, {0}),
    ([0.8, 0.15, 0.05], {"typical_p": 0.1}, {0}),  # surprise 0.22 1.9 3.0, entropy 0.61
    ([0.4, 0.3, 0.2, 0.1], {"typical_p": 0.2}, {1}),  # surprise 0.92 1.20 1.61 2.30, entropy 1.28
    ([0.4, 0.3, 0.2, 0.1], {"typical_p": 0.5}, {1, 2}),
    ([0.4, 0.3, 0.2, 0.1], {"typical_p": 0.6}, {0, 1, 2}),
    ([0.4, 0.3, 0.2, 0.1], {"typical_p": 1e-30}, {1}),
    ([0.4, 0.3, 0.2, 0.1], {"typical_p": 1e-50}, {1}),  # 0 in float32
    ([0.4, 0.3, 0.2, 0.1], {"typical_p": 0.2, "min_p": 1.0}, {1}),  # of what is left
    ([0.4, 0.3, 0.2, 0.1], {"typical_p": 0.5, "top_p": 0.5}, {1}),
    ([0.4, 0.3, 0.2, 0.1], {"top_k": 2, "typical_p": 0.5}, {0}),  # 4/7 3/7: surprise 0.56 0.85, entropy 0.68
    ([0.25, 0.25, 0.25, 0.25], {"typical_p": 0.5}, {0, 1}),
    ([0.4, 0.3, 0.2, 0.1], {"temperature": 1e3, "top_k": 3}, {0, 1, 2}),
    ([0.4, 0.3, 0.2, 0.1], {"temperature": 0.5, "top_p": 0.6}, {0, 1}),  # squares: 16 9 4 1 of 30
]


@pytest.mark.parametrize(("p", "values", "kept"), CUTS)
def test_cuts(p: list[float], values: dict[str, Any], kept: set[int]) -> None:
    assert set(draws(logs(p), 600, **values)) == kept
    far = np.full(500, -50.0, np.float32)  # the same at the end of a larger vocabulary
    far[-len(p) :] = logs(p)
    assert set(draws(far, 600, **values)) == {500 - len(p) + i for i in kept}


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-40, 1e-44])
def test_a_low_temperature_is_greedy(temperature: float) -> None:
    assert set(draws([1.0, 3.0, 2.0, -5.0], 100, temperature=temperature)) == {1}


@pytest.mark.parametrize("temperature", [1e4, 1e30, 3e38])
def test_a_high_temperature_is_uniform(temperature: float) -> None:
    found = draws([1.0, 3.0, 2.0, -5.0], 800, temperature=temperature)
    assert all(140 < found[i] < 260 for i in range(4))


# ---- distributions


@pytest.mark.parametrize("n", [5, 40, 1000, 12000])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1.6},
        {"top_k": 4},
        {"typical_p": 0.3},
        {"typical_p": 0.9},
        {"top_p": 0.8},
        {"min_p": 0.15},
        {"top_k": 20, "typical_p": 0.7},
        {"typical_p": 0.6, "min_p": 0.3},
        {"temperature": 1.5, "typical_p": 0.8, "top_p": 0.8},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
        {"temperature": 2.0, "top_k": 300, "typical_p": 0.95, "top_p": 0.7, "min_p": 0.02},
    ],
)
def test_distribution(n: int, values: dict[str, Any]) -> None:
    z = []
    for seed in range(10):
        logits = (2 * np.random.default_rng([n, seed]).standard_normal(n)).astype(np.float32)
        p = reference(logits, **({"temperature": 1.0} | values))
        found = draws(logits, 1500 if n < 12000 else 400, first_seed=1000 * seed, **values)
        z.append(chi_square_z(found, p))
    assert max(z) < 4 and np.mean(z) < 1.5  # the draws never change: no flakes


@pytest.mark.parametrize(
    "values",
    [
        {"top_k": 70},
        {"top_k": 200},
        {"top_p": 0.3},
        {"top_p": 0.93},
        {"top_k": 250, "top_p": 0.7},
        {"typical_p": 0.4},
        {"typical_p": 0.9},
        {"top_k": 250, "typical_p": 0.5},
        {"min_p": 0.5},
    ],
)
def test_cuts_among_equals(values: dict[str, Any]) -> None:
    """Two distinct values only, so that a cut falls among equals: which of them stay is exact."""
    logits = np.random.default_rng(1).integers(0, 2, 300).astype(np.float32)
    kept = np.flatnonzero(reference(logits, 1.0, **values))
    assert 0 < len(kept) < 300 and set(draws(logits, 6000, **values)) == set(kept)


def test_cuts_of_a_flat_vocabulary() -> None:
    flat = np.zeros(5000)
    assert max(draws(flat, 600, top_k=50)) == 49 and max(draws(flat, 600, top_p=0.0101)) == 50


# ---- the generator


def test_philox_known_answer() -> None:
    """Salmon et al. 2011, the vectors of their library: words 0 and 1 of counter 0, key 0."""
    assert _core.uniform(0, 0) == (0x6627E8D5E169C58D >> 11) * 2.0**-53


def philox(counter: int, key: int) -> tuple[int, ...]:
    """Philox 4x32-10 from the paper."""
    c = [counter >> 32 * i & 0xFFFFFFFF for i in range(4)]
    k = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return tuple(c)


def test_uniform_is_philox() -> None:
    assert philox(0, 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox(2**128 - 1, 2**64 - 1) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 2**64, (50, 2), np.uint64).tolist()
    for seed, counter in [(2**64 - 1, 2**64 - 1), (1, 0), (0, 1), *pairs]:
        words = philox(counter, seed)
        assert _core.uniform(seed, counter) == ((words[0] << 32 | words[1]) >> 11) * 2.0**-53


def test_same_pair_same_draw() -> None:
    x = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    once = [sample(x, seed=s, counter=c) for s in range(20) for c in range(20)]
    assert once == [sample(x, seed=s, counter=c) for s in range(20) for c in range(20)]
    assert len(set(once)) > 50


# ---- parameters


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("temperature", -0.1, ValueError),
        ("temperature", NAN, ValueError),
        ("temperature", INF, ValueError),
        ("temperature", "1", TypeError),
        ("temperature", True, TypeError),
        ("top_p", 0, ValueError),
        ("top_p", 1.1, ValueError),
        ("top_p", -0.5, ValueError),
        ("top_p", NAN, ValueError),
        ("top_p", None, TypeError),
        ("min_p", -0.1, ValueError),
        ("min_p", 1.5, ValueError),
        ("top_k", -1, ValueError),
        ("top_k", 2**31, ValueError),
        ("top_k", 1.5, TypeError),
        ("top_k", False, TypeError),
        ("seed", -1, ValueError),
        ("seed", 2**64, ValueError),
        ("seed", 0.5, TypeError),
        ("max_tokens", 0, ValueError),
        ("max_tokens", 2.0, TypeError),
        ("stop", "", ValueError),
        ("stop", ["a", ""], ValueError),
        ("stop", ["a", "b\udc80"], ValueError),
        ("stop", [1], TypeError),
        ("n", 0, ValueError),
        ("n", 1.0, TypeError),
        ("n", None, TypeError),
        ("min_tokens", -1, ValueError),
        ("min_tokens", None, TypeError),
        ("typical_p", 0, ValueError),
        ("typical_p", 1.1, ValueError),
        ("repetition_penalty", 0, ValueError),
        ("repetition_penalty", INF, ValueError),
        ("repetition_penalty", "1", TypeError),
        ("frequency_penalty", 2.1, ValueError),
        ("presence_penalty", -2.1, ValueError),
        ("presence_penalty", NAN, ValueError),
        ("repeat_last_n", -2, ValueError),
        ("repeat_last_n", 1.5, TypeError),
        ("logit_bias", [1, 2], TypeError),
        ("logit_bias", {"5": 1}, TypeError),
        ("logit_bias", {-5: 1}, ValueError),
        ("logit_bias", {5: "x"}, TypeError),
        ("logit_bias", {5: 100.5}, ValueError),
        ("logit_bias", {5: -INF}, ValueError),
        ("allowed_token_ids", [], ValueError),
        ("allowed_token_ids", 5, TypeError),
        ("allowed_token_ids", "abc", TypeError),
        ("allowed_token_ids", [1.5], TypeError),
        ("banned_token_ids", {5: 1}, TypeError),
        ("banned_token_ids", [-1], ValueError),
        ("banned_token_ids", [2**31], ValueError),
        ("stop_token_ids", [True], TypeError),
        ("stop_token_ids", b"ab", TypeError),
        ("include_stop_str_in_output", 1, TypeError),
        ("logprobs", -1, ValueError),
        ("logprobs", True, TypeError),
        ("prompt_logprobs", 1.5, TypeError),
    ],
)
def test_bad_parameters(name: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        SamplingParams(**{name: value})  # type: ignore[arg-type]


def test_min_tokens_is_at_most_max_tokens() -> None:
    assert SamplingParams(min_tokens=5, max_tokens=5).min_tokens == SamplingParams(min_tokens=5).min_tokens
    with pytest.raises(ValueError, match="min_tokens: expected at most 4, max_tokens, found 5"):
        SamplingParams(min_tokens=5, max_tokens=4)


def test_what_is_given_is_copied() -> None:
    ids, bias = np.array([3, 5]), {np.int64(3): np.float32(0.5)}
    p = SamplingParams(allowed_token_ids=ids, stop_token_ids={7}, banned_token_ids=range(2), logit_bias=bias)
    ids[0], bias[np.int64(4)] = 9, np.float32(1)
    assert (p.allowed_token_ids, p.stop_token_ids, p.banned_token_ids) == ((3, 5), (7,), (0, 1))
    assert p.logit_bias == {3: 0.5} and type(next(iter(p.logit_bias))) is int


def test_numpy_numbers_are_numbers() -> None:
    assert SamplingParams(top_k=np.int64(3), top_p=np.float32(0.5)) == SamplingParams(top_k=3, top_p=0.5)


def test_defaults_and_limits() -> None:
    p = SamplingParams()
    assert (p.temperature, p.top_k, p.top_p, p.min_p, p.seed, p.max_tokens) == (1.0, 0, 1.0, 0.0, None, None)
    SamplingParams(temperature=0, top_p=1, min_p=1, top_k=2**31 - 1, seed=2**64 - 1, max_tokens=1, stop=())
    with pytest.raises(TypeError):
        SamplingParams(1)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        p.top_k = 3  # type: ignore[misc]


def test_stop_strings() -> None:
    assert SamplingParams().stop_strings() == ()
    assert SamplingParams(stop="ab").stop_strings() == ("ab",)
    assert SamplingParams(stop=["ab", "c"]).stop_strings() == ("ab", "c")


def test_seeds() -> None:
    assert SamplingParams(seed=7).draw_seed() == 7
    assert [SamplingParams(seed=2**64 - 2).draw_seed(i) for i in range(3)] == [2**64 - 2, 2**64 - 1, 0]
    assert len({SamplingParams().draw_seed() for _ in range(5)}) == 5


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_aliases(alias: str, name: str) -> None:
    value = {"stop": "x", "banned_token_ids": (2,), "typical_p": 0.5}.get(name, 2)
    assert getattr(params_from(None, {alias: value}), name) == value
    with pytest.raises(TypeError, match=name):
        params_from(None, {name: value, alias: value})


def test_options() -> None:
    given = SamplingParams(top_k=3)
    assert params_from(given, {}) is given
    assert params_from(None, {}) == SamplingParams()
    assert params_from(None, {"top_k": 3}) == given
    with pytest.raises(TypeError, match="not both"):
        params_from(given, {"top_k": 3})
    with pytest.raises(TypeError, match="nonsense"):
        params_from(None, {"nonsense": 1})
    with pytest.raises(TypeError, match="SamplingParams"):
        params_from({"top_k": 3}, {})  # type: ignore[arg-type]
