"""Phi-3, Phi-3.5 and Phi-4 (Abdin et al. 2024): Llama whose files fuse Q, K, V and gate, up."""

from __future__ import annotations

from types import SimpleNamespace

from ..weights.binder import Binder
from .llama import Config, Llama


class Phi3(Llama):
    """Llama's equations; Q, K and V are rows of one matrix, gate and up of another."""

    @classmethod
    def bind_block(cls, binder: Binder, c: Config, b: str) -> SimpleNamespace:
        if b + "attn_qkv.weight" not in binder.source.tensors:  # some converters split them
            return super().bind_block(binder, c, b)
        q_rows, kv_rows = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
        q, k, v = binder.stacked(b + "attn_qkv", (q_rows, kv_rows, kv_rows), c.dim)
        gate, up = binder.stacked(b + "ffn_up", (c.hidden_dim, c.hidden_dim), c.dim)
        return SimpleNamespace(
            attn_norm=binder.vector(b + "attn_norm.weight", c.dim),
            q=q,
            k=k,
            v=v,
            o=binder.linear(b + "attn_output", c.dim, q_rows),
            ffn_norm=binder.vector(b + "ffn_norm.weight", c.dim),
            gate=gate,
            up=up,
            down=binder.linear(b + "ffn_down", c.dim, c.hidden_dim),
        )


MODEL = Phi3
