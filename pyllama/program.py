"""A model's equations, recorded: symbolic tensors in, a flat list of ops out.

A model file computes with `Tensor`s as it would with arrays; each operation appends a `Node` to the
`Graph`. `fusion.py` rewrites the nodes, `plan.py` gives them memory and barriers, csrc/program.c
runs them. `tests/reference.py` interprets the same nodes in float64.

Rows come in three domains (csrc/pyllama.h): "tokens", "outputs", "head".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

DOMAINS = ("tokens", "outputs", "head")


@dataclass(frozen=True)
class Weight:
    """A matrix [n_rows, n_cols] or a vector [n_cols] (n_rows == 0) of the model.

    `format` names the kernel's format, `source` the file's: they differ where compute="f32" asks
    for dequantized weights. `act` indexes _core.ACTS. `rope_head` > 0: the rows of each head of so
    many lie interleaved in the file, rope_dim of them, and are stored half split. The rows begin at
    `first_row` of the tensor `name`.
    """

    name: str
    n_rows: int
    n_cols: int
    format: str = "F32"
    source: str = "F32"
    act: int = 0
    rope_head: int = 0
    rope_dim: int = 0
    first_row: int = 0
    bias: Weight | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What it is in its file: equal keys are one matrix in memory."""
        return self.name, self.first_row


@dataclass(frozen=True, eq=False)
class Rope:
    """Rotary frequencies [rope_dim / 2] in radians per position, and what cos and sin are times."""

    inv_freq: np.ndarray
    factor: float = 1.0


@dataclass(eq=False)
class Tensor:
    """Rows of `width` float32, or of activations for a matmul where `act` >= 0."""

    graph: Graph
    width: int
    domain: str
    act: int = -1
    base: Tensor | None = None  # shares the memory of this one

    def __matmul__(self, w: Weight) -> Tensor:
        """x W^T + b"""
        return matmul(self, w)

    def __add__(self, other: Tensor) -> Tensor:
        """x + y"""
        return self.graph.add("ADD", [self, other], self.width, self.domain)

    def __mul__(self, factor: float) -> Tensor:
        """x * factor"""
        if factor == 1.0:
            return self
        return self.graph.add("SCALE", [self], self.width, self.domain, value=factor)

    def root(self) -> Tensor:
        """The tensor whose memory this one uses."""
        return self if self.base is None else self.base.root()


@dataclass(eq=False)
class Node:
    """One op: kind as in csrc/pyllama.h, without PL_."""

    kind: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    weights: list[Weight] = field(default_factory=list)
    vector: Weight | None = None
    value: float = 0.0
    layer: int = 0
    window: int = 0
    domain: str = "tokens"

    def describe(self) -> str:
        """The node as one line of `inspect --program`."""
        names = [w.name for w in self.weights] + ([self.vector.name] if self.vector else [])
        shapes = "x".join(str(t.width) for t in self.inputs) or "-"
        outs = "+".join(str(t.width) for t in self.outputs) or "-"
        return f"{self.kind:<15} {self.domain:<8} {shapes:>12} -> {outs:<15} {' '.join(names)}".rstrip()


@dataclass
class Graph:
    """What a model file records into. Dimensions are those of the model's attention."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rope: Rope
    nodes: list[Node] = field(default_factory=list)
    rope_table: Tensor | None = None

    def add(
        self,
        kind: str,
        inputs: Sequence[Tensor],
        width: int,
        domain: str,
        *,
        weights: Sequence[Weight] = (),
        vector: Weight | None = None,
        value: float = 0.0,
        layer: int = 0,
        window: int = 0,
        act: int = -1,
        base: Tensor | None = None,
    ) -> Tensor:
        """Appends a node with one output and returns it."""
        out = Tensor(self, width, domain, act, base)
        node = Node(kind, list(inputs), [out], list(weights), vector, value, layer, window, domain)
        self.nodes.append(node)
        return out


def embed(graph: Graph, w: Weight) -> Tensor:
    """x_t = E[token_t]"""
    rope = graph.rope
    graph.rope_table = graph.add("ROPE_TABLE", [], 2 * len(rope.inv_freq), "tokens", value=rope.factor)
    return graph.add("EMBED", [], w.n_cols, "tokens", weights=[w])


def rmsnorm(x: Tensor, w: Weight, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * w  (Zhang & Sennrich 2019)"""
    return x.graph.add("NORM", [x], x.width, x.domain, vector=w, value=eps)


def rmsnorm_heads(x: Tensor, w: Weight, eps: float) -> Tensor:
    """rmsnorm of each head by itself (Henry et al. 2020); in place"""
    return x.graph.add("NORM_HEADS", [x], x.width, x.domain, vector=w, value=eps, base=x)


def matmul(x: Tensor, w: Weight) -> Tensor:
    """x W^T + b, x becoming what the kernel of W's format reads"""
    acts = x.graph.add("ACT", [x], x.width, x.domain, act=w.act)
    return x.graph.add("MATMUL", [acts], w.n_rows, x.domain, weights=[w])


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up  (Shazeer 2020)"""
    return gate.graph.add("SWIGLU", [gate, up], gate.width, gate.domain)


def rope(x: Tensor) -> Tensor:
    """The first rope_dim of each head rotated by its position, pairs (i, i + rope_dim / 2)
    (Su et al. 2021); in place"""
    table = x.graph.rope_table
    assert table is not None, "embed() comes first"
    return x.graph.add("ROPE", [x, table], x.width, x.domain, base=x)


def kv_append(k: Tensor, v: Tensor, layer: int) -> None:
    """The cache of `layer` <- k, v at the rows' positions"""
    out = k.graph.add("KV_APPEND", [k, v], 0, k.domain, layer=layer)
    k.graph.nodes[-1].outputs.remove(out)


def attend(q: Tensor, scale: float, layer: int, window: int = 0) -> Tensor:
    """softmax(q K^T scale) V over the cached keys at or before each row's position; with a window,
    over the last so many of them"""
    return q.graph.add("ATTEND", [q], q.width, q.domain, value=scale, layer=layer, window=window)


def select_rows(x: Tensor) -> Tensor:
    """tokens -> outputs: the rows whose logits are wanted"""
    return x.graph.add("SELECT", [x], x.width, "outputs")


def in_chunks(x: Tensor) -> Tensor:
    """outputs -> head: the same rows, a chunk at a time"""
    return Tensor(x.graph, x.width, "head", x.act, x)


def sample(logits: Tensor) -> None:
    """Logits out, or the next token drawn, as the batch asks"""
    out = logits.graph.add("SAMPLE", [logits], 0, logits.domain)
    logits.graph.nodes[-1].outputs.remove(out)
