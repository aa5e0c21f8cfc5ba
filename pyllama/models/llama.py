"""Llama (Touvron et al. 2023; Llama 2, 3): pre-norm blocks of grouped-query attention and SwiGLU."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from ..errors import UnsupportedModelError
from ..program import (
    Graph,
    Tensor,
    attend,
    embed,
    in_chunks,
    kv_append,
    rmsnorm,
    rope,
    sample,
    select_rows,
    swiglu,
)  # fmt: skip
from ..weights.binder import Binder, expect
from ..weights.gguf import GGUFFile


@dataclass(frozen=True)
class Config:
    """The dimensions of a model, named as everywhere in pyllama."""

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    n_ctx: int
    eps: float
    rope_base: float


class Llama:
    """The equations. `weights` holds Weights by role; `weights.layers[i]` those of block i."""

    def __init__(self, config: Config, weights: SimpleNamespace) -> None:
        self.config = config
        self.weights = weights
        self.eps = config.eps

    def record(self) -> Graph:
        """One forward: logits of the rows wanted."""
        c, w = self.config, self.weights
        graph = Graph(c.n_layers, c.n_heads, c.n_kv_heads, c.head_dim)
        x = embed(graph, w.embedding)
        for layer in range(c.n_layers):
            x = self.block(x, w.layers[layer], layer)
        x = in_chunks(x)
        sample(rmsnorm(x, w.norm, self.eps) @ w.head)
        return graph

    def block(self, x: Tensor, w: SimpleNamespace, layer: int) -> Tensor:
        """x + attention(norm(x)), then x + ffn(norm(x))"""
        h = rmsnorm(x, w.attn_norm, self.eps)
        q, k, v = h @ w.q, h @ w.k, h @ w.v
        q, k = rope(q), rope(k)
        kv_append(k, v, layer)
        if layer == self.config.n_layers - 1:  # all that follows concerns the wanted rows alone
            x, q = select_rows(x), select_rows(q)
        x = x + attend(q, self.config.head_dim**-0.5, layer) @ w.o
        h = rmsnorm(x, w.ffn_norm, self.eps)
        return x + swiglu(h @ w.gate, h @ w.up) @ w.down


def read_config(file: GGUFFile) -> Config:
    """The dimensions from GGUF metadata and tensor shapes. Raises ModelLoadError."""

    def key(name: str) -> str:
        return f"llama.{name}"

    dim = file.get_int(key("embedding_length"), min=1, max=1 << 16)
    n_heads = file.get_int(key("attention.head_count"), min=1, max=1 << 12)
    head_dim = file.get_int(key("attention.key_length"), max(1, dim // n_heads), min=2, max=1024)
    config = Config(
        dim=dim,
        hidden_dim=file.get_int(key("feed_forward_length"), min=1, max=1 << 20),
        n_layers=file.get_int(key("block_count"), min=1, max=1 << 10),
        n_heads=n_heads,
        n_kv_heads=file.get_int(key("attention.head_count_kv"), n_heads, min=1, max=n_heads),
        head_dim=head_dim,
        vocab_size=file.tensor("token_embd.weight").shape[0],
        n_ctx=file.get_int(key("context_length"), min=1, max=1 << 22),
        eps=file.get_float(key("attention.layer_norm_rms_epsilon"), 1e-5, min=0.0, max=1.0),
        rope_base=file.get_float(key("rope.freq_base"), 10000.0, min=1.0, max=1e12),
    )
    expect(
        file,
        key("attention.head_count_kv"),
        f"a divisor of {n_heads}",
        config.n_kv_heads,
        n_heads % config.n_kv_heads == 0,
    )
    expect(file, key("attention.key_length"), "an even number", head_dim, head_dim % 2 == 0)
    for name, value in (("attention.value_length", head_dim), ("rope.dimension_count", head_dim)):
        expect(file, key(name), value, file.get_int(key(name), value))
    for name, plain in {
        "rope.scaling.type": "none",
        "attention.sliding_window": 0,
        "expert_count": 0,
    }.items():
        found = file.metadata.get(key(name), plain)
        if found != plain:
            raise UnsupportedModelError(f"{file.path}: {key(name)}: expected {plain}, found {found!r}")
    return config


def bind_weights(file: GGUFFile, config: Config, binder: Binder) -> SimpleNamespace:
    """The tensors of the file by role. Raises ModelLoadError for one missing or of another shape."""
    c, matrix, vector = config, binder.matrix, binder.vector
    q_rows, kv_rows = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim

    def block(i: int) -> SimpleNamespace:
        b = f"blk.{i}."
        return SimpleNamespace(
            attn_norm=vector(b + "attn_norm.weight", c.dim),
            q=matrix(b + "attn_q.weight", q_rows, c.dim, rope_head=c.head_dim),
            k=matrix(b + "attn_k.weight", kv_rows, c.dim, rope_head=c.head_dim),
            v=matrix(b + "attn_v.weight", kv_rows, c.dim),
            o=matrix(b + "attn_output.weight", c.dim, q_rows),
            ffn_norm=vector(b + "ffn_norm.weight", c.dim),
            gate=matrix(b + "ffn_gate.weight", c.hidden_dim, c.dim),
            up=matrix(b + "ffn_up.weight", c.hidden_dim, c.dim),
            down=matrix(b + "ffn_down.weight", c.dim, c.hidden_dim),
        )

    embedding = matrix("token_embd.weight", c.vocab_size, c.dim)
    tied = "output.weight" not in file.tensors
    weights = SimpleNamespace(
        embedding=embedding,
        layers=[block(i) for i in range(c.n_layers)],
        norm=vector("output_norm.weight", c.dim),
        head=embedding if tied else matrix("output.weight", c.vocab_size, c.dim),
    )
    binder.finish()
    return weights
