"""How far pyllama is from the same weights in float64 maths, and from a trained model's published output."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ggufmodel import FORMATS, ModelFiles, dequantize, random_ids
from llama64 import llama64
from published import SHARED, needs_shared

from pyllama import LLM, _core
from pyllama.weights.gguf import GGUFFile

STORIES = SHARED / "stories260k"
VOCAB = SHARED / "vocab" / "ggml-vocab-llama-spm.gguf"

# Mean KL of the default path, in nats: activations are rounded to the weights' kind, KV to f16.
MOST_KL = {"F32": 1e-7, "BF16": 5.5e-6, "Q8_0": 6e-5, "Q4_K": 5e-4}
MOST_KL_MIXED = {  # as quantizers write a file: the output matrix in Q6_K
    "F16": 1.5e-7,
    "Q4_0": 2.5e-5,
    "Q4_1": 1e-4,
    "Q5_0": 8e-5,
    "Q5_1": 1e-4,
    "Q2_K": 3e-4,
    "Q3_K": 1.9e-4,
    "Q4_K": 2e-4,
    "Q5_K": 1.7e-4,
    "Q6_K": 1e-4,
    "IQ4_NL": 5.5e-5,
    "IQ4_XS": 2e-4,
}
SMALL = {"dim": 256, "hidden_dim": 512, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 512}
MOST_KL_SMALL = {  # a third more than measured
    "F32": 2e-8,
    "BF16": 6e-6,
    "F16": 1e-8,
    "Q8_0": 7.5e-5,
    "Q4_0": 1.8e-5,
    "Q4_1": 1.1e-4,
    "Q5_0": 7.5e-5,
    "Q5_1": 1.2e-4,
    "Q2_K": 1e-4,
    "Q3_K": 9.5e-5,
    "Q4_K": 8e-5,
    "Q5_K": 7e-5,
    "Q6_K": 9e-5,
    "IQ4_NL": 3.7e-5,
    "IQ4_XS": 8.5e-5,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return ModelFiles(tmp_path_factory.mktemp("models"))


def exact(path: str, ids: list[int]) -> np.ndarray:
    """float64 logits [n, vocab]."""
    with GGUFFile(path) as file:
        return llama64(dequantize(path), file.metadata, ids)


def logits(path: str, ids: list[int], **options: Any) -> np.ndarray:
    with LLM(path, n_ctx=128, use_hugepages=False, **options) as llm:
        return llm.logits(ids).astype(np.float64)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def mean_kl(expected: np.ndarray, found: np.ndarray) -> float:
    """KL(expected || found), mean over rows of logits."""
    p, q = log_softmax(expected), log_softmax(found)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def worst(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest error as a share of the largest logit."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# ---- random models


def test_every_format_is_here() -> None:
    assert set(MOST_KL_SMALL) == set(FORMATS) == set(_core.Kernels(None).formats)


@pytest.mark.parametrize("format", MOST_KL_SMALL)
def test_small(files: ModelFiles, format: str) -> None:
    found = []
    for seed in (1, 2, 3) if format in MOST_KL else (1,):
        path, ids = files(**SMALL, format=format, seed=seed), random_ids(96, 512, seed)
        expected = exact(path, ids)
        found.append(mean_kl(expected, logits(path, ids)))
        assert worst(expected, logits(path, ids, compute="f32")) <= 1e-4
    assert np.mean(found) <= MOST_KL_SMALL[format], found


@pytest.mark.parametrize("format", ["F32", "F16", "Q8_0", "Q4_K", "Q6_K"])
def test_bf16(files: ModelFiles, format: str) -> None:
    """Rounding weights and activations to bfloat16 costs less than activations of 8 bits do."""
    path, ids = files(**SMALL, format=format), random_ids(96, 512)
    found = logits(path, ids, compute="bf16")
    assert 0 < mean_kl(exact(path, ids), found) <= 2e-5


def test_kv_dtype_is_worth_its_memory(files: ModelFiles) -> None:
    """With F32 weights nothing but the cache is rounded: in f32 the error must all but vanish."""
    path, ids = files(**SMALL, format="F32"), random_ids(96, 512)
    expected = exact(path, ids)
    assert mean_kl(expected, logits(path, ids, kv_dtype="f32")) <= 1e-11
    assert worst(expected, logits(path, ids, kv_dtype="f32")) <= 1e-5
    for kv_dtype, most in (("f16", 1e-7), ("bf16", 5e-6), ("q8_0", 2e-5)):
        assert 0 < mean_kl(expected, logits(path, ids, kv_dtype=kv_dtype)) <= most, kv_dtype


def test_far_positions(files: ModelFiles) -> None:
    """RoPE angles and key chunks far from the start, seen by an attention that tells keys apart."""
    small = {"dim": 32, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1}
    path = files(**small, n_ctx=4096, sharpness=8.0)
    ids = random_ids(2100)
    with LLM(path, use_hugepages=False, compute="f32") as llm:
        assert worst(exact(path, ids), llm.logits(ids)) <= 1e-5  # float32 angles: 5e-5


@functools.cache
def tool() -> ModuleType:
    """shared/tools/make_gguf.py, which reads the vocabulary once."""
    spec = importlib.util.spec_from_file_location("make_gguf", SHARED.parent / "tools" / "make_gguf.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.GGUFReader = functools.cache(module.GGUFReader)  # type: ignore[attr-defined]
    return module


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a file of the tool's shape "tiny" and returns its path."""

    def make(format: str, seed: int, more: str = "--pure") -> str:
        path = str(tmp_path / "tiny.gguf")
        arguments = f"--shape tiny --type {format} --seed {seed} --vocab {VOCAB} {more}"
        monkeypatch.setattr(sys, "argv", ["make_gguf.py", path, *arguments.split()])
        tool().main()
        return path

    return make


@needs_shared
@pytest.mark.parametrize("format", MOST_KL)
def test_tiny(tiny: Callable[..., str], format: str) -> None:
    found = []
    for seed in (1, 2, 3):
        path, ids = tiny(format, seed), random_ids(96, 32000, seed)
        expected = exact(path, ids)
        found.append(mean_kl(expected, logits(path, ids)))
        if seed == 1:
            assert worst(expected, logits(path, ids, compute="f32")) <= 1e-4
    assert np.mean(found) <= MOST_KL[format], found


@needs_shared
@pytest.mark.parametrize("format", MOST_KL_MIXED)
def test_tiny_mixed(tiny: Callable[..., str], format: str) -> None:
    path, ids = tiny(format, 1, ""), random_ids(96, 32000, 1)
    assert mean_kl(exact(path, ids), logits(path, ids)) <= MOST_KL_MIXED[format]


# ---- a trained model


@needs_shared
@pytest.mark.parametrize("compute", ["f32", "auto"])
def test_stories_logits(compute: str) -> None:
    """transformers' float32 logits of the same weights."""
    ids = json.loads((STORIES / "logits_prompt.json").read_text())["ids"]
    expected = np.load(STORIES / "logits_f32.npy")
    found = logits(str(STORIES / "stories260k-f32.gguf"), ids, compute=compute)
    assert np.abs(found - expected).max() <= (2e-4 if compute == "f32" else 2e-2)  # auto: KV is f16


@needs_shared
@pytest.mark.parametrize("compute", ["f32", "auto"])
def test_stories_text(compute: str) -> None:
    """The published greedy text."""
    expected = (STORIES / "expected.txt").read_text()
    with LLM(STORIES / "stories260k-f32.gguf", compute=compute, use_hugepages=False) as llm:
        text = llm.generate("", temperature=0, max_tokens=200)[0].text
    assert text.startswith(expected.rstrip("\n"))
