"""How long drawing a token takes: microseconds of one thread, by what is asked for.

    python bench/sampling.py [--vocab 128256]

Logits are normal with a few tokens far above, as a model's are. PYLLAMA_ISA chooses the level.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np

from pyllama import _core

OFF = {"temperature": 1.0, "top_p": 1.0, "typical_p": 1.0, "repetition": 1.0, "last_n": -1, "target": -1}
ASKED: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "temperature": {},
    "top_k 40": {"top_k": 40},
    "top_p 0.95": {"top_p": 0.95},
    "min_p 0.05": {"min_p": 0.05},
    "top_k 40, top_p 0.95, min_p 0.05, temperature 0.8": {
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
        "temperature": 0.8,
    },
    "typical_p 0.9": {"typical_p": 0.9},
}


def model_logits(vocab: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [vocab]"""
    x = 2.0 * rng.standard_normal(vocab)
    x[rng.integers(0, vocab, 200)] += rng.exponential(4.0, 200)
    return x.astype(np.float32)


def microseconds(kernels: _core.Kernels, logits: list[np.ndarray], asked: dict[str, Any], n: int) -> float:
    """The median over n draws."""
    params = np.zeros(1, _core.SAMPLING)
    for name, value in (OFF | asked).items():
        params[name] = value
    times = []
    for i in range(n):
        params["seed"] = i
        begin = time.perf_counter()
        kernels.sample(logits[i % len(logits)], params)
        times.append(time.perf_counter() - begin)
    return 1e6 * float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--draws", type=int, default=500)
    args = parser.parse_args()
    kernels = _core.Kernels(os.environ.get("PYLLAMA_ISA") or None)
    rng = np.random.default_rng(0)
    logits = [model_logits(args.vocab, rng) for _ in range(8)]
    print(f"{kernels.name}, {args.vocab} tokens")
    for name, asked in ASKED.items():
        print(f"{microseconds(kernels, logits, asked, args.draws):8.1f} us  {name}")


if __name__ == "__main__":
    main()
