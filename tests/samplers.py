"""What is drawn: C called on arrays, and the same in numpy."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from pyllama import _core

KERNELS = _core.Kernels(os.environ.get("PYLLAMA_ISA") or None)
OFF = {"temperature": 1.0, "top_p": 1.0, "typical_p": 1.0, "repetition": 1.0, "last_n": -1, "target": -1}


def record(**values: Any) -> np.ndarray:
    """One SAMPLING record; what is not named is off. An array is passed by its address: keep it."""
    made = np.zeros(1, _core.SAMPLING)
    for name, value in (OFF | values).items():
        made[name] = value.ctypes.data if isinstance(value, np.ndarray) else value
    return made


def sample(logits: Sequence[float] | np.ndarray, **values: Any) -> int:
    """One draw."""
    return KERNELS.sample(np.array(logits, np.float32), record(**values))


def draws(logits: Sequence[float] | np.ndarray, n: int, first_seed: int = 0, **values: Any) -> Counter[int]:
    """How often each token comes in n draws, over seeds and, unless it is given, counters."""
    x, made = np.array(logits, np.float32), record(**values)
    n_counters = 1 if "counter" in values else 64
    found: Counter[int] = Counter()
    for i in range(n):
        made["seed"] = first_seed + i // n_counters
        if n_counters > 1:
            made["counter"] = i % n_counters
        found[KERNELS.sample(x, made)] += 1
    return found


def logs(p: Sequence[float]) -> np.ndarray:
    """Logits of these probabilities."""
    return np.log(np.array(p, np.float64)).astype(np.float32)


def bit_mask(allowed: Collection[int], n: int) -> np.ndarray:
    """One bit per token, set for those in `allowed`."""
    return np.packbits(np.isin(np.arange(n), list(allowed)), bitorder="little")


def reference(
    logits: np.ndarray,
    temperature: float,
    top_k: int = 0,
    typical_p: float = 1.0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> np.ndarray:
    """Probabilities: temperature, then the cuts in this order; of equals the lower index stays."""
    x = logits.astype(np.float64) / temperature
    p = np.exp(x - x.max())
    order = np.argsort(-p, kind="stable")
    if 0 < top_k < len(p):
        order = order[:top_k]
    order = order[p[order] > 0]
    if typical_p < 1:
        surprise = -np.log(p[order] / p[order].sum())
        entropy = (np.exp(-surprise) * surprise).sum()
        order = order[np.argsort(np.abs(surprise - entropy), kind="stable")]
        order = order[np.cumsum(p[order]) - p[order] < typical_p * p[order].sum()]
        order = order[np.argsort(-p[order], kind="stable")]
    if top_p < 1:
        order = order[np.cumsum(p[order]) - p[order] < top_p * p[order].sum()]
    order = order[p[order] >= min_p * p[order].max()]
    kept = np.zeros_like(p)
    kept[order] = p[order]
    return kept / kept.sum()


def adjusted(
    logits: np.ndarray,
    prompt: Sequence[int] = (),
    output: Sequence[int] = (),
    *,
    allowed: Collection[int] | None = None,
    banned: Collection[int] = (),
    bias: Mapping[int, float] | None = None,
    repetition: float = 1.0,
    frequency: float = 0.0,
    presence: float = 0.0,
    last_n: int = -1,
) -> np.ndarray:
    """Masks, biases and penalties in float32, one token at a time."""
    x = logits.astype(np.float32)
    tokens = [(t, False) for t in prompt] + [(t, True) for t in output]
    window = tokens[max(0, len(tokens) - last_n) :] if last_n >= 0 else tokens
    for i in range(len(x)):
        if (allowed is not None and i not in allowed) or i in banned:
            x[i] = -math.inf
        x[i] += np.float32((bias or {}).get(i, 0.0))
        if any(t == i for t, _ in window):
            x[i] = x[i] / np.float32(repetition) if x[i] > 0 else x[i] * np.float32(repetition)
        if n := sum(t == i and drawn for t, drawn in window):
            x[i] -= np.float32(frequency) * np.float32(n)
            x[i] -= np.float32(presence)
    return x


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """In float64."""
    x = logits.astype(np.float64) - logits.max()
    return x - np.log(np.exp(x).sum())


def ranked(logits: np.ndarray) -> np.ndarray:
    """Tokens, the largest logit first, of equals the lower token."""
    return np.argsort(-logits, kind="stable")


def chi_square_z(found: Counter[int], p: np.ndarray) -> float:
    """How many standard deviations chi^2 is above its mean (Wilson & Hilferty 1931), rare tokens pooled."""
    n = sum(found.values())
    observed = np.array([found[i] for i in range(len(p))], float)
    assert not observed[p == 0].any(), "a token was drawn that had been cut"
    common = p * n >= 8
    e = np.append(p[common], p[~common].sum()) * n
    o = np.append(observed[common], observed[~common].sum())
    e, o = (e, o) if e[-1] >= 8 else (e[:-1], o[:-1])
    df = len(e) - 1
    if df == 0:
        return 0.0
    return float(((((o - e) ** 2 / e).sum() / df) ** (1 / 3) - (1 - 2 / (9 * df))) / math.sqrt(2 / (9 * df)))
