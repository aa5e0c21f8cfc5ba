"""What pyllama finds on this machine: facts, a check of its kernels, its speed, and what to expect of models.

Models without training (synthetic.py) run through LLM as any other does: what is measured is what users get.
"""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import _core
from .cpu import (
    available_memory,
    cache_bytes,
    default_threads,
    huge_bytes,
    huge_pages,
    thread_limits,
)
from .llm import LLM
from .synthetic import Shape, random_blocks, write_model

Section = dict[str, Any]

REFERENCE = "scalar"
CHECK_SHAPE = Shape(256, 768, 1, 4, 2, 64, 269)  # small; 269 rows leave a part of a panel
CHECK_TOKENS = 600  # more than one chunk of keys
# Largest difference of logits, in parts of the largest logit. What rounds activations to 8 or 16 bits may
# round the other way where the last bit of a norm differs.
TOLERANCE = {"F32": 1e-4, "BF16": 3e-2, "I8": 3e-2}

FORMATS = ("Q4_K", "Q8_0")  # that speed is measured with
PROBE_SHAPE = Shape(2048, 8192, 1, 32, 8, 64, 512)
PROBE_BYTES = 128 << 20  # of weights at least; four times the largest cache, if that is more
PROBE_MOST = 1 << 30
PROBE_TOKENS = 20 * _core.TILE_MAX  # of a prompt
PROBE_SECONDS = 0.8

MODELS = {  # real ones of these sizes
    "1B": Shape(2048, 8192, 16, 32, 8, 64, 128256),  # Llama 3.2
    "3B": Shape(3072, 8192, 28, 24, 8, 128, 128256),
    "8B": Shape(4096, 14336, 32, 32, 8, 128, 128256, tied=False),  # Llama 3.1
    "14B": Shape(5120, 13824, 48, 40, 8, 128, 152064, tied=False),  # Qwen 2.5
}


def examine(say: Callable[[str], None] = lambda what: None) -> Section:
    """Everything. say: hears what is being done. Raises ValueError for a PYLLAMA_ISA that is none."""
    level = _core.Kernels(os.environ.get("PYLLAMA_ISA") or None).name
    report: Section = {"isa": isa_section(level), "cpu": cpu_section(), "memory": memory_section()}
    say("checking kernels")
    report["self_test"] = list(self_test(level))
    report["speed"] = {}
    for kind in FORMATS:
        say(f"measuring {kind}")
        report["speed"][kind] = measure(kind)
    report["expect"] = list(expect(report["speed"], report["memory"]["available"]))
    report["ok"] = all(row["ok"] for row in report["self_test"])
    return report


def isa_section(level: str) -> Section:
    """The levels of this build, which of them the CPU runs, and which one is used."""
    return {
        "used": level,
        "forced": bool(os.environ.get("PYLLAMA_ISA")),
        "levels": [{"name": name, "runs": runs} for name, runs in _core.levels()],
    }


def cpu_section() -> Section:
    """CPUs, what bounds the threads, and the threads."""
    limits = thread_limits()
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "limits": limits,
        "threads": default_threads(),
        "reason": min(limits, key=lambda reason: limits[reason]),
        "cache": cache_bytes(),
    }


def memory_section() -> Section:
    """Bytes that may still be taken, and the state of huge pages."""
    return {"available": available_memory(), "huge_pages": huge_pages()}


# ---- the check ----


def self_test(level: str) -> Iterator[Section]:
    """What every format and cache type gives at `level` against the scalar level, one row each."""
    kernels, reference = _core.Kernels(level), _core.Kernels(REFERENCE)
    cases = [*((kind, "f16") for kind in kernels.formats), *(("F32", kv) for kv in _core.KV_DTYPES[1:])]
    with tempfile.TemporaryDirectory(prefix="pyllama-") as folder:
        for kind, kv_dtype in cases:
            path = Path(folder, f"{kind}.gguf")
            write_model(path, CHECK_SHAPE, kind, random_blocks(reference, kind), n_ctx=CHECK_TOKENS + 8)
            act = _core.ACTS[kernels.act(kernels.formats[kind])]
            with _isa(level):
                found, drawn = outputs(path, kv_dtype, act == "F32")
            with _isa(REFERENCE):
                expected, drawn_there = outputs(path, kv_dtype, act == "F32")
            error = float(np.abs(found - expected).max() / np.abs(expected).max())
            ok = error <= TOLERANCE[act] and drawn == drawn_there  # False for NaN
            row = {"format": kind, "activations": act, "kv": kv_dtype}
            yield row | {"error": error, "tolerance": TOLERANCE[act], "ok": ok}


def outputs(path: Path, kv_dtype: str, exact: bool) -> tuple[np.ndarray, list[int]]:
    """Logits float32 [n, vocab] of prompts of every width of a tile.

    exact: also those of a long prompt, and tokens drawn after it, which rounding will not change.
    """
    ids = np.random.default_rng(2).integers(0, CHECK_SHAPE.vocab_size, CHECK_TOKENS).tolist()
    with LLM(path, max_batch=1, kv_dtype=kv_dtype) as llm:
        logits = [llm.logits(ids[:n]) for n in range(1, _core.TILE_MAX + 1)]
        drawn: list[int] = []
        if exact:
            logits.append(llm.logits(ids)[-1:])
            for temperature in (0.0, 1.0):
                [result] = llm.generate(ids[:-8], temperature=temperature, max_tokens=4, seed=3)
                drawn += result.outputs[0].token_ids
    return np.concatenate(logits), drawn


@contextlib.contextmanager
def _isa(level: str) -> Iterator[None]:
    """PYLLAMA_ISA is `level` in the block."""
    before = os.environ.get("PYLLAMA_ISA")
    os.environ["PYLLAMA_ISA"] = level
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYLLAMA_ISA"]
        else:
            os.environ["PYLLAMA_ISA"] = before


# ---- the speed ----


def measure(kind: str) -> Section:
    """Bytes of weights per second while generating, multiply-adds per second while reading a prompt.

    The model is larger than the caches. huge: the share of its weights on huge pages.
    """
    kernels = _core.Kernels(os.environ.get("PYLLAMA_ISA") or None)
    per_weight = bytes_per_weight(kernels, kind, PROBE_SHAPE.dim)
    size = min(
        PROBE_MOST, max(PROBE_BYTES, 4 * (cache_bytes() or 0)), (available_memory() or PROBE_MOST) // 4
    )
    n_layers = max(1, round(size / (per_weight * PROBE_SHAPE.n_layer_params)))
    shape = Shape(**{**vars(PROBE_SHAPE), "n_layers": n_layers})
    with tempfile.TemporaryDirectory(prefix="pyllama-") as folder:
        path = Path(folder, "empty.gguf")
        write_model(path, shape, kind, None, n_ctx=4096)
        before = huge_bytes() or 0
        with LLM(path, max_batch=1) as llm:
            weights = llm.model.memory_need()["weights"]
            huge = huge_bytes()
            decode, prefill = _decode_tps(llm), _prefill_tps(llm)
            n_threads = llm.n_threads
    return {
        "weights": weights,
        "bytes_per_s": decode * weights,
        "macs_per_s": prefill * shape.n_layer_params,
        "bytes_per_weight": per_weight,
        "huge": None if huge is None else min(1.0, (huge - before) / weights),
        "n_threads": n_threads,
    }


def bytes_per_weight(kernels: _core.Kernels, kind: str, n_cols: int) -> float:
    """Bytes that a weight takes in memory, packed."""
    return kernels.panel_bytes(kernels.formats[kind], n_cols) / (kernels.lanes * n_cols)


def _decode_tps(llm: LLM) -> float:
    """Tokens per second of one sequence, the best of several runs."""
    n, best = 3, 0.0
    for _ in range(4):  # the first to learn how many tokens fit into the time
        [result] = llm.generate([1], temperature=0, max_tokens=n, ignore_eos=True)
        best = max(best, result.timings.decode_tps)
        n = max(3, min(llm.n_ctx // 2, round(PROBE_SECONDS / 3 * best)))
    return best


def _prefill_tps(llm: LLM) -> float:
    """Tokens per second of a prompt, the best of several runs; of a short one where that is slow already."""
    best = 0.0
    for n in (_core.TILE_MAX, PROBE_TOKENS, PROBE_TOKENS, PROBE_TOKENS):
        if best and n / best > PROBE_SECONDS:
            break
        [result] = llm.generate([1] * n, temperature=0, max_tokens=1)
        best = max(best, result.timings.prefill_tps)
    return best


# ---- what to expect ----


def expect(speed: dict[str, Section], available: int | None) -> Iterator[Section]:
    """Tokens per second of models of real sizes: one sequence, a short context."""
    for name, shape in MODELS.items():
        for kind, measured in speed.items():
            size = round(shape.n_params * measured["bytes_per_weight"])
            read = (shape.n_layer_params + shape.n_head_params) * measured["bytes_per_weight"]
            yield {
                "model": name,
                "format": kind,
                "weights": size,
                "fits": None if available is None else size < available,
                "prefill_tps": measured["macs_per_s"] / shape.n_layer_params,
                "decode_tps": measured["bytes_per_s"] / read,
            }
