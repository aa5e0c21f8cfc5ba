"""Llama in plain torch: RMSNorm, RoPE on split heads, grouped-query attention, SwiGLU, tied embedding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Config:
    """dim, hidden_dim and n_heads * head_dim are multiples of 256, as K-quants need."""

    vocab_size: int
    dim: int = 256
    hidden_dim: int = 512
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int = 64
    n_ctx: int = 1024
    eps: float = 1e-5
    rope_base: float = 500000.0


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Over several documents in one row of tokens: each sees itself alone."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.q = nn.Linear(c.dim, c.n_heads * c.head_dim, bias=False)
        self.k = nn.Linear(c.dim, c.n_kv_heads * c.head_dim, bias=False)
        self.v = nn.Linear(c.dim, c.n_kv_heads * c.head_dim, bias=False)
        self.o = nn.Linear(c.n_heads * c.head_dim, c.dim, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], lengths: list[int]) -> Tensor:
        c, n = self.c, x.shape[0]
        q = rotate(self.q(x).view(n, c.n_heads, c.head_dim), rope)
        k = rotate(self.k(x).view(n, c.n_kv_heads, c.head_dim), rope)
        v = self.v(x).view(n, c.n_kv_heads, c.head_dim)
        k, v = (t.repeat_interleave(c.n_heads // c.n_kv_heads, 1) for t in (k, v))
        documents = zip(*(t.transpose(0, 1)[None].split(lengths, 2) for t in (q, k, v)), strict=True)
        seen = [F.scaled_dot_product_attention(*document, is_causal=True)[0] for document in documents]
        return self.o(torch.cat(seen, 1).transpose(0, 1).reshape(n, -1))


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """RoPE (Su et al. 2021): dimension i turns with i + head_dim / 2. x: [n, heads, head_dim]"""
    cos, sin = (t.to(x.dtype) for t in rope)
    one, other = x.chunk(2, -1)
    return torch.cat((one * cos - other * sin, other * cos + one * sin), -1)


class Block(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.attn_norm, self.attention = RMSNorm(c.dim, c.eps), Attention(c)
        self.ffn_norm = RMSNorm(c.dim, c.eps)
        self.gate = nn.Linear(c.dim, c.hidden_dim, bias=False)
        self.up = nn.Linear(c.dim, c.hidden_dim, bias=False)
        self.down = nn.Linear(c.hidden_dim, c.dim, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], lengths: list[int]) -> Tensor:
        x = x + self.attention(self.attn_norm(x), rope, lengths)
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.embedding = nn.Embedding(c.vocab_size, c.dim)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.n_layers))
        self.norm = RMSNorm(c.dim, c.eps)
        angles = torch.outer(
            torch.arange(c.n_ctx), c.rope_base ** (-torch.arange(0, c.head_dim, 2) / c.head_dim)
        )
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        # As large as what the blocks add, so that these do not drown which token it was; the last norm makes
        # up for it, since the embedding is the output matrix too.
        nn.init.normal_(self.embedding.weight)
        nn.init.constant_(self.norm.weight, c.dim**-0.5)
        for name, weight in self.layers.named_parameters():
            if weight.ndim == 2:
                residual = name.endswith(("o.weight", "down.weight"))
                nn.init.normal_(weight, std=(weight.shape[1] * (2 * c.n_layers if residual else 1)) ** -0.5)

    def forward(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Logits [n, vocab] of n ids: documents of the given lengths, one after another."""
        positions = torch.cat([torch.arange(n) for n in lengths])
        rope = self.cos[positions][:, None], self.sin[positions][:, None]
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, rope, lengths)
        return F.linear(self.norm(x), self.embedding.weight)
