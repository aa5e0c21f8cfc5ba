"""Qwen3 (Yang et al. 2025): Llama whose queries and keys are normed, head by head."""

from __future__ import annotations

from types import SimpleNamespace

from ..program import Tensor, rmsnorm_heads
from ..weights.binder import Binder
from .llama import Config, Llama


class Qwen3(Llama):
    """q = rope(norm(h W_q^T)), and so k"""

    def place(self, q: Tensor, k: Tensor, w: SimpleNamespace, layer: int) -> tuple[Tensor, Tensor]:
        eps = self.config.eps
        return super().place(rmsnorm_heads(q, w.q_norm, eps), rmsnorm_heads(k, w.k_norm, eps), w, layer)

    @classmethod
    def bind_block(cls, binder: Binder, c: Config, b: str) -> SimpleNamespace:
        w = super().bind_block(binder, c, b)
        w.q_norm = binder.vector(b + "attn_q_norm.weight", c.head_dim)
        w.k_norm = binder.vector(b + "attn_k_norm.weight", c.head_dim)
        return w


MODEL = Qwen3
