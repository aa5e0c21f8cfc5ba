"""Llama (Touvron et al. 2023; Llama 2, 3): pre-norm blocks of grouped-query attention and SwiGLU.

The relatives are subclasses, one file each, named as `general.architecture`: they override what
differs. `MODEL` is the class of a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

from ..errors import UnsupportedModelError
from ..program import (
    Graph,
    Rope,
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
from ..weights.gguf_header import load_error
from ..weights.source import ModelSource


@dataclass(frozen=True, kw_only=True)
class Config:
    """The dimensions of a model, named as everywhere in pyllama.

    rope_dim: rotated values of each head. windows: per layer, the positions that attention sees,
    0 for all.
    """

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    n_ctx: int
    eps: float
    rope_dim: int
    rope_base: float
    windows: tuple[int, ...]


class Llama:
    """The equations. `weights` holds Weights by role; `weights.layers[i]` those of block i."""

    qkv_bias: ClassVar[bool | None] = None  # None: as the file has it

    def __init__(self, config: Config, weights: SimpleNamespace, rope: Rope) -> None:
        self.config, self.weights, self.rope = config, weights, rope

    def record(self) -> Graph:
        """One forward: logits of the rows wanted."""
        c = self.config
        graph = Graph(c.n_layers, c.n_heads, c.n_kv_heads, c.head_dim, self.rope)
        x = self.embed(graph)
        for layer, w in enumerate(self.weights.layers):
            x = self.block(x, w, layer)
        sample(self.logits(in_chunks(x)))
        return graph

    def embed(self, graph: Graph) -> Tensor:
        """x = E[token]"""
        return embed(graph, self.weights.embedding)

    def block(self, x: Tensor, w: SimpleNamespace, layer: int) -> Tensor:
        """x + attention(norm(x)), then x + ffn(norm(x))"""
        c = self.config
        h = rmsnorm(x, w.attn_norm, c.eps)
        q, k, v = h @ w.q, h @ w.k, h @ w.v
        q, k = self.place(q, k, w, layer)
        kv_append(k, v, layer)
        if layer == c.n_layers - 1:  # all that follows concerns the wanted rows alone
            x, q = select_rows(x), select_rows(q)
        x = self.residual(x, attend(q, self.attention_scale(), layer, c.windows[layer]) @ w.o)
        h = rmsnorm(x, w.ffn_norm, c.eps)
        return self.residual(x, swiglu(h @ w.gate, h @ w.up) @ w.down)

    def place(self, q: Tensor, k: Tensor, w: SimpleNamespace, layer: int) -> tuple[Tensor, Tensor]:
        """Queries and keys learn their positions."""
        return rope(q), rope(k)

    def attention_scale(self) -> float:
        """1 / sqrt(head_dim)"""
        return self.config.head_dim**-0.5

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """x + y"""
        return x + y

    def logits(self, x: Tensor) -> Tensor:
        """norm(x) W^T"""
        return rmsnorm(x, self.weights.norm, self.config.eps) @ self.weights.head

    # ---- from a file

    @classmethod
    def read_config(cls, source: ModelSource) -> Config:
        """The dimensions from metadata and tensor shapes. Raises ModelLoadError, UnsupportedModelError."""
        arch = source.get_str("general.architecture")

        def integer(name: str, *default: int, low: int = 1, high: int) -> int:
            found: int = source.get_int(f"{arch}.{name}", *default, min=low, max=high)
            return found

        dim, n_layers = integer("embedding_length", high=1 << 16), integer("block_count", high=1 << 10)
        n_heads = integer("attention.head_count", high=1 << 12)
        head_dim = integer("attention.key_length", max(1, dim // n_heads), low=2, high=1024)
        n_kv_heads = integer("attention.head_count_kv", n_heads, high=n_heads)
        rope_dim = integer("rope.dimension_count", head_dim, low=2, high=head_dim)
        kv_key = f"{arch}.attention.head_count_kv"
        expect(source, kv_key, f"a divisor of {n_heads}", n_kv_heads, n_heads % n_kv_heads == 0)
        for name, value in (("attention.key_length", head_dim), ("rope.dimension_count", rope_dim)):
            expect(source, f"{arch}.{name}", "an even number", value, value % 2 == 0)
        for name, value in (("attention.value_length", head_dim), ("expert_count", 0)):
            found = source.get_int(f"{arch}.{name}", value)
            if found != value:
                raise load_error(source.path, f"{arch}.{name}", value, found, UnsupportedModelError)
        n_ctx = integer("context_length", high=1 << 22)
        return Config(
            dim=dim,
            hidden_dim=integer("feed_forward_length", high=1 << 20),
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            vocab_size=source.tensor("token_embd.weight").shape[0],
            n_ctx=n_ctx,
            eps=source.get_float(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5, min=0.0, max=1.0),
            rope_dim=rope_dim,
            rope_base=source.get_float(f"{arch}.rope.freq_base", 10000.0, min=2.0, max=1e12),
            windows=read_windows(source, arch, n_layers, n_ctx),
        )

    @classmethod
    def bind(cls, binder: Binder, config: Config) -> SimpleNamespace:
        """The tensors of the file by role. Raises ModelLoadError for one missing or of another shape."""
        c = config
        embedding = binder.matrix("token_embd.weight", c.vocab_size, c.dim)
        tied = "output.weight" not in binder.source.tensors
        weights = SimpleNamespace(
            embedding=embedding,
            layers=[cls.bind_block(binder, c, f"blk.{i}.") for i in range(c.n_layers)],
            norm=binder.vector("output_norm.weight", c.dim),
            head=embedding if tied else binder.matrix("output.weight", c.vocab_size, c.dim),
        )
        binder.finish()
        return weights

    @classmethod
    def bind_block(cls, binder: Binder, c: Config, b: str) -> SimpleNamespace:
        """The tensors of the block whose names begin with `b`."""
        linear, bias, head = binder.linear, cls.qkv_bias, c.head_dim
        q_rows, kv_rows = c.n_heads * head, c.n_kv_heads * head
        return SimpleNamespace(
            attn_norm=binder.vector(b + "attn_norm.weight", c.dim),
            q=linear(b + "attn_q", q_rows, c.dim, bias=bias, rope=(head, c.rope_dim)),
            k=linear(b + "attn_k", kv_rows, c.dim, bias=bias, rope=(head, c.rope_dim)),
            v=linear(b + "attn_v", kv_rows, c.dim, bias=bias),
            o=linear(b + "attn_output", c.dim, q_rows),
            ffn_norm=binder.vector(b + "ffn_norm.weight", c.dim),
            gate=linear(b + "ffn_gate", c.hidden_dim, c.dim),
            up=linear(b + "ffn_up", c.hidden_dim, c.dim),
            down=linear(b + "ffn_down", c.dim, c.hidden_dim),
        )


def read_windows(source: ModelSource, arch: str, n_layers: int, n_ctx: int) -> tuple[int, ...]:
    """Per layer the window of its attention: `attention.sliding_window`, 0 where it sees all.

    One of the whole context sees all too; wider ones are no different, and too large for int32 positions.
    `attention.sliding_window_pattern` tells which layers have it; without, all.
    """
    window = min(source.get_int(f"{arch}.attention.sliding_window", 0, min=0, max=1 << 31), n_ctx)
    key = f"{arch}.attention.sliding_window_pattern"
    slides = source.get_array(key, "bool", [True] * n_layers, length=n_layers)
    return tuple(window if s else 0 for s in slides)


MODEL = Llama
