"""Llama in float64, straight from the paper and from GGUF's layout of the weights: a witness that
knows nothing of Programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Weights = Mapping[str, Array]


def rmsnorm(x: Array, w: Array, eps: float) -> Array:
    return w * x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps)


def rotate(x: Array, base: float) -> Array:
    """x [n, heads, d]: the pair (2i, 2i + 1) at position t as a complex number times e^(i t base^(-2i/d))."""
    n, heads, d = x.shape
    pairs = x[..., 0::2] + 1j * x[..., 1::2]
    angles = np.outer(np.arange(n), base ** (-2.0 * np.arange(d // 2) / d))
    pairs = pairs * np.exp(1j * angles)[:, None, :]
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(n, heads, d)


def attention(h: Array, w: Weights, block: str, n_heads: int, n_kv: int, base: float) -> Array:
    n = len(h)
    q = rotate((h @ w[f"{block}attn_q.weight"].T).reshape(n, n_heads, -1), base)
    k = rotate((h @ w[f"{block}attn_k.weight"].T).reshape(n, n_kv, -1), base)
    v = (h @ w[f"{block}attn_v.weight"].T).reshape(n, n_kv, -1)
    future = np.triu(np.full((n, n), -np.inf), 1)
    out = np.empty_like(q)
    for head in range(n_heads):
        kv = head * n_kv // n_heads
        scores = q[:, head] @ k[:, kv].T / np.sqrt(q.shape[2]) + future
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, head] = scores @ v[:, kv] / scores.sum(axis=1, keepdims=True)
    return out.reshape(n, -1) @ w[f"{block}attn_output.weight"].T


def feed_forward(h: Array, w: Weights, block: str) -> Array:
    gate = h @ w[f"{block}ffn_gate.weight"].T
    return (gate / (1 + np.exp(-gate)) * (h @ w[f"{block}ffn_up.weight"].T)) @ w[f"{block}ffn_down.weight"].T


def llama64(w: Weights, metadata: Mapping[str, Any], token_ids: Sequence[int]) -> Array:
    """Logits [n, vocab] of one sequence, from GGUF tensors and metadata by name."""
    eps = metadata["llama.attention.layer_norm_rms_epsilon"]
    base = metadata.get("llama.rope.freq_base", 10000.0)
    n_heads = metadata["llama.attention.head_count"]
    n_kv = metadata.get("llama.attention.head_count_kv", n_heads)
    x = w["token_embd.weight"][np.array(token_ids)]
    for layer in range(metadata["llama.block_count"]):
        block = f"blk.{layer}."
        x = x + attention(rmsnorm(x, w[f"{block}attn_norm.weight"], eps), w, block, n_heads, n_kv, base)
        x = x + feed_forward(rmsnorm(x, w[f"{block}ffn_norm.weight"], eps), w, block)
    head = w.get("output.weight", w["token_embd.weight"])
    return rmsnorm(x, w["output_norm.weight"], eps) @ head.T
