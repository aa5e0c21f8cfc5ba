"""The engines that are compared, each driven as its users drive it at its fastest.

An engine has `load`, `prefill`, `decode` and `batch`; all times are seconds of wall clock. Token ids are
random: speed does not depend on them. `depth` tokens are in the KV cache before the clock starts.
"""

from __future__ import annotations

import ctypes
import random
import time
from typing import Any

BATCH = 2048  # tokens per call of llama.cpp, 512 of them at once; its defaults


class Pyllama:
    """Through LLM.generate, the public API with all that it does."""

    def load(self, path: str, n_ctx: int, n_threads: int, n_seqs: int) -> None:
        import pyllama

        self._llm = pyllama.LLM(path, n_ctx=n_ctx, n_threads=n_threads, max_batch=n_seqs)
        self._vocab = self._llm.model.config.vocab_size
        self._rng = random.Random(0)
        self._filled: list[int] = []

    def _ids(self, n: int) -> list[int]:
        return [self._rng.randrange(3, self._vocab) for _ in range(n)]

    def _generate(self, prompts: list[list[int]], n: int) -> float:
        start = time.perf_counter()
        self._llm.generate(prompts, max_tokens=n, temperature=0, ignore_eos=True)
        return time.perf_counter() - start

    def _fill(self, depth: int) -> list[int]:
        """`depth` tokens of which the prefix cache has the KV."""
        if len(self._filled) != depth:
            self._filled = self._ids(depth)
            if depth:
                self._generate([[*self._filled, *self._ids(1)]], 1)
        return self._filled

    def prefill(self, n: int, depth: int) -> float:
        return self._generate([[*self._fill(depth), *self._ids(n)]], 1)

    def decode(self, n: int, depth: int) -> float:
        return self._generate([[*self._fill(depth), *self._ids(1)]], n)

    def batch(self, n: int, n_seqs: int) -> float:
        return self._generate([self._ids(1) for _ in range(n_seqs)], n)


class LlamaCpp:
    """Through the C API, as llama-bench and llama-batched-bench drive it: one call per token, flash attention
    on, nothing sampled."""

    def load(self, path: str, n_ctx: int, n_threads: int, n_seqs: int) -> None:
        import llama_cpp as lib

        self._lib: Any = lib
        self._quiet = lib.llama_log_callback(lambda *_: None)
        lib.llama_log_set(self._quiet, ctypes.c_void_p(0))
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        p = lib.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_seq_max = n_ctx * n_seqs, BATCH, 512, n_seqs
        p.n_threads = p.n_threads_batch = n_threads
        p.flash_attn_type, p.kv_unified = 1, True
        self._ctx = lib.llama_init_from_model(self._model, p)
        self._vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        self._batch = lib.llama_batch_init(BATCH, 0, 1)
        self._rng, self._depth = random.Random(0), -1

    def _decode(self, rows: list[tuple[int, int, bool]]) -> None:
        """rows: position, sequence, are its logits wanted"""
        b = self._batch
        b.n_tokens = len(rows)
        for i, (pos, seq, wanted) in enumerate(rows):
            b.token[i], b.pos[i], b.logits[i] = self._rng.randrange(3, self._vocab), pos, wanted
            b.n_seq_id[i], b.seq_id[i][0] = 1, seq
        if self._lib.llama_decode(self._ctx, b):
            raise RuntimeError("llama_decode failed")
        self._lib.llama_synchronize(self._ctx)

    def _prompt(self, first: int, n: int) -> None:
        for at in range(first, first + n, BATCH):
            end = min(at + BATCH, first + n)
            self._decode([(pos, 0, pos == first + n - 1) for pos in range(at, end)])

    def _fill(self, depth: int) -> None:
        """The cache holds `depth` tokens of sequence 0 and nothing else."""
        memory = self._lib.llama_get_memory(self._ctx)
        if depth and self._depth == depth:
            self._lib.llama_memory_seq_rm(memory, 0, depth, -1)
            return
        self._lib.llama_memory_clear(memory, False)
        self._prompt(0, depth)
        self._depth = depth

    def prefill(self, n: int, depth: int) -> float:
        self._fill(depth)
        start = time.perf_counter()
        self._prompt(depth, n)
        return time.perf_counter() - start

    def decode(self, n: int, depth: int) -> float:
        self._fill(depth)
        start = time.perf_counter()
        for i in range(n):
            self._decode([(depth + i, 0, True)])
        return time.perf_counter() - start

    def batch(self, n: int, n_seqs: int) -> float:
        self._fill(0)
        start = time.perf_counter()
        for i in range(n):
            self._decode([(i, seq, True) for seq in range(n_seqs)])
        return time.perf_counter() - start


ENGINES = {"pyllama": Pyllama, "llama.cpp": LlamaCpp}
