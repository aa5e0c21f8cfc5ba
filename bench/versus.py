"""pyllama against llama.cpp on one GGUF: interleaved pairs, medians of the pairwise ratios.

    python bench/versus.py MODEL.gguf -t 2 -p 512 -n 64 --batch 8 --pairs 7

llama.cpp is driven through llama-cpp-python's low-level API with flash attention on, its bare
decode loop against our whole public API. Engines take turns, in random order within a pair, so that
a machine whose speed drifts still gives a fair ratio. Needs: pip install llama-cpp-python.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time

import numpy as np


class Pyllama:
    """Through LLM.generate."""

    name = "pyllama"

    def __init__(self, path: str, n_ctx: int, n_threads: int, n_seqs: int) -> None:
        import pyllama

        self.llm = pyllama.LLM(
            path, n_ctx=n_ctx, n_threads=n_threads, max_batch=max(n_seqs, 1), prefix_cache=False
        )
        self.params = {"temperature": 0, "ignore_eos": True}

    def prefill(self, ids: list[int]) -> float:
        """Tokens per second of one prompt."""
        start = time.perf_counter()
        self.llm.generate([ids], max_tokens=1, **self.params)
        return len(ids) / (time.perf_counter() - start)

    def decode(self, first: list[int], n: int) -> float:
        """Tokens per second, all sequences together, n tokens after one token each."""
        start = time.perf_counter()
        self.llm.generate([[t] for t in first], max_tokens=n, **self.params)
        return len(first) * n / (time.perf_counter() - start)


class LlamaCpp:
    """Through the C API, as llama-bench and llama-batched-bench drive it."""

    name = "llama.cpp"

    def __init__(self, path: str, n_ctx: int, n_threads: int, n_seqs: int) -> None:
        import ctypes

        import llama_cpp as lib

        self.lib, self.n_seqs = lib, n_seqs
        self.quiet = lib.llama_log_callback(lambda *_: None)
        lib.llama_log_set(self.quiet, ctypes.c_void_p(0))
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        p = lib.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_seq_max = n_ctx * max(n_seqs, 1), 2048, 512, max(n_seqs, 1)
        p.n_threads = p.n_threads_batch = n_threads
        p.flash_attn_type, p.kv_unified = 1, True
        self.ctx = lib.llama_init_from_model(self.model, p)
        self.vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.batch = lib.llama_batch_init(2048, 0, 1)

    def _fill(self, rows: list[tuple[int, int, int, bool]]) -> None:
        b = self.batch
        b.n_tokens = len(rows)
        for i, (token, pos, seq, wanted) in enumerate(rows):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, pos, 1, wanted
            b.seq_id[i][0] = seq

    def _clear(self) -> None:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.ctx), False)

    def prefill(self, ids: list[int]) -> float:
        self._clear()
        self._fill([(t, i, 0, i == len(ids) - 1) for i, t in enumerate(ids)])
        start = time.perf_counter()
        self.lib.llama_decode(self.ctx, self.batch)
        self.lib.llama_synchronize(self.ctx)
        return len(ids) / (time.perf_counter() - start)

    def decode(self, first: list[int], n: int) -> float:
        """As llama-bench: each step's token is random, nothing is sampled."""
        self._clear()
        draw = random.Random(1)
        start = time.perf_counter()
        for pos in range(n):
            self._fill([(draw.randrange(self.vocab), pos, s, True) for s in range(len(first))])
            self.lib.llama_decode(self.ctx, self.batch)
            self.lib.llama_synchronize(self.ctx)
        return len(first) * n / (time.perf_counter() - start)


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    rng = np.random.default_rng(1)
    medians = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    return float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


def compare(ours, theirs, run, pairs: int, pause: float) -> dict[str, object]:
    """`run(engine)` in turn on both; a warm-up first."""
    samples: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    order = random.Random(0)
    for i in range(pairs + 1):
        for engine in order.sample([ours, theirs], 2):
            speed = run(engine)
            if i:
                samples[engine.name].append(speed)
            time.sleep(pause)
    ratios = np.array(samples[ours.name]) / np.array(samples[theirs.name])
    low, high = interval(ratios)
    medians = {name: float(np.median(s)) for name, s in samples.items()}
    return {"ratio": float(np.median(ratios)), "low": low, "high": high, **medians, "samples": samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-p", "--prompt", type=int, default=512, help="0: no prefill test")
    parser.add_argument("-n", "--gen", type=int, default=64, help="0: no decode test")
    parser.add_argument("--batch", type=int, nargs="*", default=[], help="sequences decoded together")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--pause", type=float, default=0.5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    n_seqs = max([1, *args.batch])
    n_ctx = max(args.prompt, args.gen) + 8
    ours = Pyllama(args.model, n_ctx, args.threads, n_seqs)
    theirs = LlamaCpp(args.model, n_ctx, args.threads, n_seqs)
    ids = np.random.default_rng(0).integers(3, theirs.vocab, max(args.prompt, n_seqs)).tolist()
    tests = [(f"pp{args.prompt}", lambda e: e.prefill(ids[: args.prompt]))] if args.prompt else []
    if args.gen:
        tests += [(f"tg{args.gen}", lambda e: e.decode(ids[:1], args.gen))]
    tests += [(f"tg{args.gen} x {b}", lambda e, b=b: e.decode(ids[:b], args.gen)) for b in args.batch]
    if not args.json:
        print("| test | pyllama t/s | llama.cpp t/s | ratio (95 %) |\n| --- | ---: | ---: | ---: |")
    for name, run in tests:
        row = compare(ours, theirs, run, args.pairs, args.pause)
        if args.json:
            print(json.dumps({"test": name, **row}))
        else:
            values = f"{row['pyllama']:.2f} | {row['llama.cpp']:.2f}"
            print(f"| {name} | {values} | {row['ratio']:.2f} ({row['low']:.2f} - {row['high']:.2f}) |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
