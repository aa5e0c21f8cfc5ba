"""Llama models of any shape that were never trained: random ones to compare kernels with, and empty ones,
which take no disk, to measure speed with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ._core import Kernels
from .weights.gguf import GGML_TYPES
from .weights.gguf_write import NewTensor, tensor_bytes, write_gguf

N_BYTES = 256  # byte tokens; <unk>, <s>, </s> come before them


@dataclass(frozen=True)
class Shape:
    """The dimensions of a Llama model, named as in models/llama.py. tied: the head is the embedding."""

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool = True

    def layer(self) -> dict[str, tuple[int, int]]:
        """The matrices of a block, by GGUF's names: rows, columns."""
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return {
            "attn_q": (q, self.dim),
            "attn_k": (kv, self.dim),
            "attn_v": (kv, self.dim),
            "attn_output": (self.dim, q),
            "ffn_gate": (self.hidden_dim, self.dim),
            "ffn_up": (self.hidden_dim, self.dim),
            "ffn_down": (self.dim, self.hidden_dim),
        }

    @property
    def n_layer_params(self) -> int:
        """Weights of all blocks: what every token of a prompt is multiplied with."""
        return self.n_layers * sum(rows * cols for rows, cols in self.layer().values())

    @property
    def n_head_params(self) -> int:
        """Weights of the head: read once more for every token that is generated."""
        return self.vocab_size * self.dim

    @property
    def n_params(self) -> int:
        """All weights of matrices."""
        return self.n_layer_params + self.n_head_params * (1 if self.tied else 2)


def write_model(
    path: str | os.PathLike[str], shape: Shape, kind: str, blocks: np.ndarray | None, n_ctx: int
) -> None:
    """Writes a model whose matrices are all of type `kind`. blocks: uint8 [n, block bytes], from which the
    weights are drawn; None: all weights are zero. vocab_size is at least 3 + 256. Raises OSError."""
    rng = np.random.default_rng(0)

    def matrix(name: str, rows: int, cols: int) -> NewTensor:
        if blocks is None:
            return name, kind, (rows, cols), None
        n = tensor_bytes(kind, (rows, cols)) // blocks.shape[1]
        return name, kind, (rows, cols), blocks[rng.integers(0, len(blocks), n)].tobytes()

    ones = np.ones(shape.dim, "<f4").tobytes()

    def tensors() -> Iterator[NewTensor]:
        yield matrix("token_embd.weight", shape.vocab_size, shape.dim)
        yield "output_norm.weight", "F32", (shape.dim,), ones
        if not shape.tied:
            yield matrix("output.weight", shape.vocab_size, shape.dim)
        for i in range(shape.n_layers):
            for norm in ("attn_norm", "ffn_norm"):
                yield f"blk.{i}.{norm}.weight", "F32", (shape.dim,), ones
            for name, (rows, cols) in shape.layer().items():
                yield matrix(f"blk.{i}.{name}.weight", rows, cols)

    write_gguf(path, _metadata(shape, n_ctx), tensors())


def _metadata(shape: Shape, n_ctx: int) -> dict[str, object]:
    n_words = shape.vocab_size - 3 - N_BYTES
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(N_BYTES))]
    tokens += [f"w{i}" for i in range(n_words)]
    return {
        "general.architecture": "llama",
        "llama.context_length": n_ctx,
        "llama.embedding_length": shape.dim,
        "llama.feed_forward_length": shape.hidden_dim,
        "llama.block_count": shape.n_layers,
        "llama.attention.head_count": shape.n_heads,
        "llama.attention.head_count_kv": shape.n_kv_heads,
        "llama.attention.key_length": shape.head_dim,
        "llama.attention.value_length": shape.head_dim,
        "llama.rope.dimension_count": shape.head_dim,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * N_BYTES + [1] * n_words,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def random_blocks(kernels: Kernels, kind: str, n: int = 512) -> np.ndarray:
    """uint8 [n, block bytes]: random blocks of a format, every code of it, whose largest weight lies between
    2^-7 and 2^-3. Whatever the format: those are kept that its own definition finds so."""
    fmt = kernels.formats[kind]
    size = next(n_bytes for name, _, n_bytes in GGML_TYPES.values() if name == kind)
    rng = np.random.default_rng(1)
    found: list[np.ndarray] = []
    while sum(map(len, found)) < n:
        blocks = rng.integers(0, 256, (1 << 15, size), np.uint8)
        largest = np.abs(kernels.dequantize(fmt, blocks.ravel()).reshape(len(blocks), -1)).max(1)
        found.append(blocks[(largest > 2**-7) & (largest < 2**-3)])  # False for NaN
    return np.concatenate(found)[:n]
