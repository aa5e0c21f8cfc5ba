"""The oracle: an interpreter of recorded Programs in float64."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pyllama import _core
from pyllama.fusion import Rule, fuse
from pyllama.model import architecture
from pyllama.program import Graph, Node, Tensor, Weight
from pyllama.rope import read_rope
from pyllama.weights.binder import Binder
from pyllama.weights.source import ModelSource

Array = np.ndarray


def record(source: ModelSource, rules: Iterable[Rule] = ()) -> tuple[Graph, list[Node]]:
    """What a model records, rewritten by `rules`."""
    arch = architecture(source)
    config = arch.read_config(source)
    binder = Binder(source, _core.Kernels(os.environ.get("PYLLAMA_ISA") or None), "auto")
    rope = read_rope(
        source, source.metadata["general.architecture"], config.rope_dim, config.rope_base, config.n_ctx
    )
    graph = arch(config, arch.bind(binder, config), rope).record()
    return graph, fuse(graph.nodes, rules)


def half_split(w: Array, head: int, n: int) -> Array:
    """The first n rows of each head 0, 1, 2, 3 ... -> 0, 2, ... 1, 3, ...: pairs become halves."""
    heads = w.reshape(-1, head, *w.shape[1:])
    order = [*range(0, n, 2), *range(1, n, 2), *range(n, head)]
    return heads[:, order].reshape(w.shape)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


class Interpreter:
    """Runs nodes in order for one sequence from position 0. Memory is that of root tensors: an op
    that works in place destroys what was there, as in C."""

    def __init__(self, graph: Graph, weights: dict[str, Array], ids: Sequence[int]) -> None:
        self.graph, self.weights = graph, weights
        self.ids = np.array(ids)
        self.memory: dict[int, Array] = {}
        self.cache: dict[int, tuple[Array, Array]] = {}
        self.logits = np.empty(0)

    def get(self, tensor: Tensor) -> Array:
        return self.memory[id(tensor.root())]

    def run(self, nodes: Iterable[Node]) -> Array:
        """Executes `nodes`; the logits [n, vocab]."""
        for node in nodes:
            inputs = [self.get(t) for t in node.inputs]
            method: Callable[..., object] = getattr(self, node.kind.lower())
            found = method(node, *inputs)
            outputs = found if isinstance(found, tuple) else () if found is None else (found,)
            assert len(outputs) == len(node.outputs), node.describe()
            for tensor, value in zip(node.outputs, outputs, strict=True):
                assert value.shape == (len(self.ids), tensor.width), node.describe()
                self.memory[id(tensor.root())] = value
        return self.logits

    def value(self, w: Weight) -> Array:
        """W [n_rows, n_cols] or [n_cols] as the kernels hold it."""
        values = self.weights[w.name][w.first_row : w.first_row + (w.n_rows or w.n_cols)]
        return half_split(values, w.rope_head, w.rope_dim) if w.rope_head else values

    def linear(self, x: Array, w: Weight) -> Array:
        y = x @ self.value(w).T
        return y + self.value(w.bias) if w.bias else y

    def heads(self, x: Array) -> Array:
        return x.reshape(len(x), -1, self.graph.head_dim)

    # ---- the ops, as in csrc/pyllama.h

    def embed(self, node: Node) -> Array:
        return self.value(node.weights[0])[self.ids]

    def rope_table(self, node: Node) -> Array:
        angles = np.arange(len(self.ids))[:, None] * self.graph.rope.inv_freq
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * node.value

    def norm(self, node: Node, x: Array) -> Array:
        assert node.vector is not None
        return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + node.value) * self.value(node.vector)

    def norm_heads(self, node: Node, x: Array) -> Array:
        heads = self.heads(x)
        return self.norm(node, heads.reshape(-1, heads.shape[2])).reshape(x.shape)

    def scale(self, node: Node, x: Array) -> Array:
        return x * node.value

    def act(self, node: Node, x: Array) -> Array:
        return x

    norm_act = norm

    def matmul(self, node: Node, x: Array) -> tuple[Array, ...]:
        return tuple(self.linear(x, w) for w in node.weights)

    def matmul_add(self, node: Node, x: Array, y: Array) -> Array:
        return y + self.linear(x, node.weights[0]) * node.value

    def matmul_swiglu(self, node: Node, x: Array) -> Array:
        gate, up = (self.linear(x, w) for w in node.weights)
        return silu(gate) * up

    def swiglu(self, node: Node, gate: Array, up: Array) -> Array:
        return silu(gate) * up

    def add(self, node: Node, x: Array, y: Array) -> Array:
        return x + y

    def rope(self, node: Node, x: Array, table: Array) -> Array:
        half = table.shape[1] // 2
        a, b, rest = np.split(self.heads(x), [half, 2 * half], axis=2)
        cos, sin = np.split(table[:, None, :], 2, axis=2)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=2).reshape(x.shape)

    def kv_append(self, node: Node, k: Array, v: Array) -> None:
        assert node.layer not in self.cache
        self.cache[node.layer] = self.heads(k).copy(), self.heads(v).copy()

    def attend(self, node: Node, x: Array) -> Array:
        group = self.graph.n_heads // self.graph.n_kv_heads
        keys, values = (np.repeat(a, group, axis=1) for a in self.cache[node.layer])
        s = np.einsum("qhd,khd->hqk", self.heads(x), keys) * node.value
        seen = np.tri(s.shape[1], dtype=bool)
        if node.window:
            seen &= ~np.tri(s.shape[1], k=-node.window, dtype=bool)
        s[:, ~seen] = -np.inf
        p = np.exp(s - s.max(axis=2, keepdims=True))
        p /= p.sum(axis=2, keepdims=True)
        return np.einsum("hqk,khd->qhd", p, values).reshape(x.shape)

    def select(self, node: Node, x: Array) -> Array:
        return x

    def sample(self, node: Node, x: Array) -> None:
        self.logits = x


def run_reference(
    graph_nodes: Iterable[Node],
    graph: Graph,
    weights: dict[str, Array],
    token_ids: Sequence[int],
) -> Array:
    """Logits [n, vocab] in float64 of one sequence from position 0."""
    return Interpreter(graph, weights, token_ids).run(graph_nodes)
