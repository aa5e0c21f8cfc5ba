"""The oracle: an interpreter of recorded Programs in float64."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pyllama import _core
from pyllama.fusion import Rule, fuse
from pyllama.models import llama
from pyllama.program import Graph, Node, Tensor, Weight
from pyllama.weights.binder import Binder
from pyllama.weights.gguf import GGUFFile

Array = np.ndarray


def record(path: str, rules: Iterable[Rule] = ()) -> tuple[Graph, list[Node], Array]:
    """What a Llama file records, rewritten by `rules`, and the rotary frequencies [head_dim / 2]."""
    with GGUFFile(path) as file:
        config = llama.read_config(file)
        binder = Binder(file, _core.Kernels(os.environ.get("PYLLAMA_ISA") or None), "auto")
        factors = binder.rope_factors("rope_freqs.weight", config.head_dim // 2)
        graph = llama.Llama(config, llama.bind_weights(file, config, binder)).record()
    inv_freq = config.rope_base ** (-np.arange(0, config.head_dim, 2) / config.head_dim) / factors
    return graph, fuse(graph.nodes, rules), inv_freq


def half_split(w: Array, head: int) -> Array:
    """Rows of each head 0, 1, 2, 3 ... -> 0, 2, ... 1, 3, ...: pairs of neighbours become halves."""
    pairs = w.reshape(-1, head // 2, 2, w.shape[1])
    return pairs.transpose(0, 2, 1, 3).reshape(w.shape)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


class Interpreter:
    """Runs nodes in order for one sequence from position 0. Memory is that of root tensors: an op
    that works in place destroys what was there, as in C."""

    def __init__(self, graph: Graph, weights: dict[str, Array], inv_freq: Array, ids: Sequence[int]) -> None:
        self.graph, self.weights, self.inv_freq = graph, weights, inv_freq
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

    def matrix(self, w: Weight) -> Array:
        """W [n_rows, n_cols] as the kernels hold it."""
        values = self.weights[w.name]
        return half_split(values, w.rope_head) if w.rope_head else values

    def linear(self, x: Array, w: Weight) -> Array:
        y = x @ self.matrix(w).T
        return y + self.weights[w.bias.name] if w.bias else y

    def heads(self, x: Array) -> Array:
        return x.reshape(len(x), -1, self.graph.head_dim)

    # ---- the ops, as in csrc/pyllama.h

    def embed(self, node: Node) -> Array:
        return self.matrix(node.weights[0])[self.ids]

    def rope_table(self, node: Node) -> Array:
        angles = np.arange(len(self.ids))[:, None] * self.inv_freq
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    def norm(self, node: Node, x: Array) -> Array:
        assert node.vector is not None
        return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + node.value) * self.weights[node.vector.name]

    def act(self, node: Node, x: Array) -> Array:
        return x

    norm_act = norm

    def matmul(self, node: Node, x: Array) -> tuple[Array, ...]:
        return tuple(self.linear(x, w) for w in node.weights)

    def matmul_add(self, node: Node, x: Array, y: Array) -> Array:
        return y + self.linear(x, node.weights[0])

    def matmul_swiglu(self, node: Node, x: Array) -> Array:
        gate, up = (self.linear(x, w) for w in node.weights)
        return silu(gate) * up

    def swiglu(self, node: Node, gate: Array, up: Array) -> Array:
        return silu(gate) * up

    def add(self, node: Node, x: Array, y: Array) -> Array:
        return x + y

    def rope(self, node: Node, x: Array, table: Array) -> Array:
        a, b = np.split(self.heads(x), 2, axis=2)
        cos, sin = np.split(table[:, None, :], 2, axis=2)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=2).reshape(x.shape)

    def kv_append(self, node: Node, k: Array, v: Array) -> None:
        assert node.layer not in self.cache
        self.cache[node.layer] = self.heads(k).copy(), self.heads(v).copy()

    def attend(self, node: Node, x: Array) -> Array:
        group = self.graph.n_heads // self.graph.n_kv_heads
        keys, values = (np.repeat(a, group, axis=1) for a in self.cache[node.layer])
        s = np.einsum("qhd,khd->hqk", self.heads(x), keys) * node.value
        s[:, np.triu(np.ones(s.shape[1:], bool), 1)] = -np.inf
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
    inv_freq: Array,
    token_ids: Sequence[int],
) -> Array:
    """Logits [n, vocab] in float64 of one sequence from position 0."""
    return Interpreter(graph, weights, inv_freq, token_ids).run(graph_nodes)
