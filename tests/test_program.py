"""Programs: every rewrite keeps the result, memory is never shared by the living, nobody races."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ggufmodel import ModelFiles, bits, dequantize, forward, make_model, random_ids
from llama64 import llama64
from reference import record, run_reference

from pyllama import _core
from pyllama.fusion import RULES, Rule, fuse
from pyllama.model import Model
from pyllama.plan import HEAD_ROWS, PRIVATE_ROWS, Limits, barriers, live_buffers, place
from pyllama.program import Graph, Node, Rope, Tensor, Weight, attend, kv_append, matmul, rope
from pyllama.weights.gguf import GGUFFile

SHAPES: dict[str, dict[str, Any]] = {
    "gqa": {},
    "mha": {"n_kv_heads": 4, "hidden_dim": 96, "format": "Q8_0"},
    "group of 3": {"n_heads": 6, "dim": 96, "hidden_dim": 128, "tied": True},
    "group of 16": {"n_heads": 16, "n_kv_heads": 1, "head_dim": 8},
    "group of 13": {"n_heads": 26, "n_kv_heads": 2, "head_dim": 4, "n_layers": 1},
    "group of 26": {"n_heads": 26, "n_kv_heads": 1, "head_dim": 4, "n_layers": 1},
    "head_dim 6": {"head_dim": 6, "vocab_size": 263},
    "head_dim 80": {"head_dim": 80, "tied": True, "format": "BF16", "hidden_dim": 171},
    "odd": {"dim": 51, "head_dim": 14, "hidden_dim": 77, "vocab_size": 259, "format": "BF16"},
    "one layer": {"n_layers": 1, "vocab_size": 320, "eps": 0.1, "rope_base": 1e6},
    "Q4_K": {"dim": 256, "hidden_dim": 256, "format": "Q4_K"},
}
BY_NAME = {rule.__name__: (rule,) for rule in RULES} | {"all": RULES}
EVERY_SET = [c for n in range(len(RULES) + 1) for c in itertools.combinations(RULES, n)]
IDS = random_ids(HEAD_ROWS + 7, 259)  # the head takes two chunks
weights_of = functools.cache(dequantize)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return ModelFiles(tmp_path_factory.mktemp("models"))


def interpret(path: str, rules: Sequence[Rule]) -> np.ndarray:
    with GGUFFile(path) as source:
        graph, nodes = record(source, rules)
    return run_reference(nodes, graph, weights_of(path), IDS)


# ---- two witnesses


@pytest.mark.parametrize("shape", SHAPES)
def test_interpreter_is_llama(files: ModelFiles, shape: str) -> None:
    path = files(**SHAPES[shape])
    with GGUFFile(path) as file:
        expected = llama64(weights_of(path), file.metadata, IDS)
    assert np.abs(interpret(path, ()) - expected).max() <= 1e-9
    assert 1 < np.abs(expected).max() < 100  # a model that says something


@pytest.mark.parametrize("shape", SHAPES)
def test_executor_is_llama(files: ModelFiles, shape: str) -> None:
    path = files(**SHAPES[shape])
    expected = interpret(path, RULES)
    found = forward(path, [[(0, IDS)]], n_threads=2, compute="f32")[0]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


# ---- rewrites


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", BY_NAME)
def test_fused_is_plain_in_float64(files: ModelFiles, shape: str, name: str) -> None:
    path = files(**SHAPES[shape])
    assert np.abs(interpret(path, BY_NAME[name]) - interpret(path, ())).max() <= 1e-12


def test_every_set_of_rules_in_float64(files: ModelFiles) -> None:
    path = files(**SHAPES["gqa"])
    for rules in EVERY_SET:
        assert np.abs(interpret(path, rules) - interpret(path, ())).max() <= 1e-12, rules


def run_bits(path: str, rules: Sequence[Rule]) -> np.ndarray:
    """A prompt, single tokens (the private schedule) and a second sequence, as bits."""
    a, b = IDS[: HEAD_ROWS + 2], IDS[HEAD_ROWS + 2 :]
    steps = [[(0, a)], [(0, b[:1])], [(0, b[1:2]), (1, a[:1])], [(1, a[1:9]), (0, b[2:])]]
    result = forward(path, steps, rules=rules, n_threads=2)
    return bits(np.concatenate([result[0], result[1]]))


@pytest.mark.parametrize("shape", SHAPES)
def test_fused_has_the_same_bits(files: ModelFiles, shape: str) -> None:
    path = files(**SHAPES[shape])
    plain = run_bits(path, ())
    for name, rules in BY_NAME.items():
        assert np.array_equal(run_bits(path, rules), plain), name


def test_every_set_of_rules_has_the_same_bits(files: ModelFiles) -> None:
    path = files(**SHAPES["mha"])
    plain = run_bits(path, ())
    for rules in EVERY_SET:
        assert np.array_equal(run_bits(path, rules), plain), [r.__name__ for r in rules]


def test_what_all_rules_leave(files: ModelFiles) -> None:
    with GGUFFile(files(**SHAPES["gqa"])) as source:
        _, nodes = record(source, RULES)
    layer = ["NORM_ACT", "MATMUL", "ROPE", "ROPE", "KV_APPEND", "ATTEND", "ACT", "MATMUL_ADD"]
    layer += ["NORM_ACT", "MATMUL_SWIGLU", "ACT", "MATMUL_ADD"]
    last = [*layer[:5], "SELECT", "SELECT", *layer[5:]]
    kinds = [node.kind for node in nodes]
    assert kinds == ["ROPE_TABLE", "EMBED", *layer, *last, "NORM_ACT", "MATMUL", "SAMPLE"]
    assert len(next(n for n in nodes if n.kind == "MATMUL").outputs) == 3


def small_graph() -> tuple[Graph, Tensor, list[Weight]]:
    graph = Graph(1, 1, 1, 8, Rope(np.ones(4)))
    return graph, graph.add("EMBED", [], 8, "tokens"), [Weight(f"w{i}", 8, 8) for i in range(5)]


def kinds_after(graph: Graph) -> list[str]:
    return [n.kind for n in fuse(graph.nodes)]


def test_a_norm_read_twice_stays() -> None:
    graph, x, w = small_graph()
    h = graph.add("NORM", [x], 8, "tokens", vector=w[0])
    _ = matmul(h, w[1]) + h
    assert "NORM" in kinds_after(graph)


def test_a_residual_read_later_is_not_overwritten() -> None:
    graph, x, w = small_graph()
    y = x + matmul(x, w[0])
    _ = y + x
    assert "MATMUL_ADD" not in kinds_after(graph)


def test_a_product_read_twice_is_not_swallowed() -> None:
    graph, x, w = small_graph()
    gate, up = matmul(x, w[0]), matmul(x, w[1])
    _ = graph.add("SWIGLU", [gate, up], 8, "tokens") + gate
    assert "MATMUL_SWIGLU" not in kinds_after(graph)
    graph, x, w = small_graph()
    y = matmul(x, w[0])
    z = x + y
    _ = z + y
    assert "MATMUL_ADD" not in kinds_after(graph)


def test_at_most_three_matmuls_are_joined() -> None:
    graph, x, w = small_graph()
    for each in w:
        matmul(x, each)
    assert [len(n.outputs) for n in fuse(graph.nodes) if n.kind == "MATMUL"] == [3, 2]


# ---- memory


def plan_of(path: str, rules: Sequence[Rule] = RULES, **options: Any) -> Model:
    small = {"n_threads": 3, "prefill_chunk": 8, "max_batch": 4}
    model, file = make_model(path, rules=rules, **(small | options))
    file.close()
    return model


def row_bytes(b: np.void) -> int:
    """Bytes per row of a buffer."""
    return int(4 * b["width"]) if b["act"] < 0 else _core.act_bytes(b["act"], b["width"])


def extents(model: Model) -> dict[int, tuple[int, int]]:
    """Begin and end in the workspace of each buffer, from its record and the limits alone."""
    found = {}
    for i, b in enumerate(model.plan.buffers):
        rows = (model.limits.max_rows, model.limits.max_outputs, model.limits.head_rows)[b["domain"]]
        if b["is_private"]:
            rows = max(rows, PRIVATE_ROWS * model.limits.n_threads)
        found[i] = (int(b["offset"]), int(b["offset"]) + rows * row_bytes(b))
    return found


def lifetimes(model: Model) -> dict[int, tuple[int, int]]:
    """First and last op that touches each buffer; what the head's chunks use must outlive them."""
    found: dict[int, tuple[int, int]] = {}
    for i, op in enumerate(model.plan.ops):
        for buffer in [b for b in (*op["out"], *op["in"]) if b >= 0]:
            found[buffer] = (found.get(buffer, (i, i))[0], i)
    head = model.plan.head_op
    in_head = {b for op in model.plan.ops[head:] for b in (*op["out"], *op["in"]) if b >= 0}
    return {b: (first, len(model.plan.ops) if b in in_head else last) for b, (first, last) in found.items()}


@pytest.mark.parametrize("rules", [(), RULES], ids=["plain", "fused"])
@pytest.mark.parametrize("shape", SHAPES)
def test_memory_of_the_living_is_apart(files: ModelFiles, shape: str, rules: Sequence[Rule]) -> None:
    for options in ({}, {"prefill_chunk": 1, "max_batch": 1}, {"n_threads": 16, "max_batch": 100}):
        model = plan_of(files(**SHAPES[shape]), rules, **options)
        where, alive = extents(model), lifetimes(model)
        assert set(where) == set(alive)
        for a, b in itertools.combinations(where, 2):
            together = alive[a][0] <= alive[b][1] and alive[b][0] <= alive[a][1]
            assert not together or where[a][1] <= where[b][0] or where[b][1] <= where[a][0], (a, b)
        p = model.plan
        parts = [
            (p.scratch_offset, p.scratch_bytes * p.n_threads),
            (p.partial_offset, p.partial_bytes),
            (p.supply_offset, 2 * len(p.ops) * p.n_threads * _core.SUPPLY_BYTES),
        ]
        end = max(end for _, end in where.values())
        for offset, size in parts:
            assert offset >= end
            end = offset + size
        assert end <= p.workspace_bytes


def test_weights_are_apart(files: ModelFiles) -> None:
    model = plan_of(files(**SHAPES["odd"]))
    tables, lanes = model.tables, model.kernels.lanes
    used = [(m["offset"], m["panel_bytes"] * -(-m["n_rows"] // lanes)) for m in model.plan.matrices]
    used += [(int(model.plan.vectors[i]), 4 * w.n_cols) for i, w in tables.vectors.values()]
    used.sort()
    assert all(at + size <= after for (at, size), (after, _) in itertools.pairwise(used))
    assert used[-1][0] + used[-1][1] <= tables.size


# ---- barriers: who touches which byte, member by member


@dataclass
class Setting:
    """A run as csrc/program.c sees it."""

    model: Model
    n: int
    outputs: list[int]
    n_members: int = 3

    @property
    def private(self) -> bool:
        return self.n <= PRIVATE_ROWS

    def rows(self, domain: int) -> int:
        return (self.n, len(self.outputs), min(len(self.outputs), HEAD_ROWS))[domain]

    def share(self, n: int, member: int) -> range:
        return range(n * member // self.n_members, n * (member + 1) // self.n_members)


class Memory:
    """One bool per byte of the buffers, and per byte of a cache that all its writers share out."""

    def __init__(self, s: Setting) -> None:
        self.s, self.plan = s, s.model.plan
        self.cache_row = 4 * self.plan.head_dim
        self.layer = s.n * self.plan.n_kv_heads * self.cache_row
        self.size = self.plan.scratch_offset + self.layer * self.plan.n_layers

    def empty(self) -> np.ndarray:
        return np.zeros(self.size, bool)

    def rows(self, mask: np.ndarray, buffer: int, rows: range, member: int) -> None:
        """Rows; of activations, which lie interleaved in tiles, stand-ins of the same size."""
        b = self.plan.buffers[buffer]
        size = row_bytes(b)
        begin = b["offset"] + (member * PRIVATE_ROWS * size if self.s.private and b["is_private"] else 0)
        mask[begin + rows.start * size : begin + rows.stop * size] = True

    def all_rows(self, mask: np.ndarray, buffer: int, member: int) -> None:
        self.rows(mask, buffer, range(self.s.rows(self.plan.buffers[buffer]["domain"])), member)

    def row(self, mask: np.ndarray, buffer: int, row: int, member: int) -> None:
        self.rows(mask, buffer, range(row, row + 1), member)

    def heads(self, mask: np.ndarray, buffer: int, unit: int) -> None:
        """The heads of a kv head's group in a row."""
        width = int(self.plan.buffers[buffer]["width"]) // self.plan.n_kv_heads * 4
        begin = self.plan.buffers[buffer]["offset"] + unit * width
        mask[begin : begin + width] = True

    def cached(self, mask: np.ndarray, layer: int, units: range) -> None:
        begin = self.plan.scratch_offset + layer * self.layer
        mask[begin + units.start * self.cache_row : begin + units.stop * self.cache_row] = True


def touched(s: Setting, op: np.void, node: Node, member: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes that a member may read and write in an op, by csrc/rowwise.c, matmul.c and attention.c."""
    memory = Memory(s)
    reads, writes = memory.empty(), memory.empty()
    ins, outs = [b for b in op["in"] if b >= 0], [b for b in op["out"] if b >= 0]
    if node.kind.startswith("MATMUL") or node.kind == "ATTEND":  # shared out as it comes
        for mask, buffers in ((reads, ins), (writes, outs)):
            for b in buffers:
                memory.all_rows(mask, b, member)
        if node.kind == "ATTEND":
            memory.cached(reads, node.layer, range(s.n * s.model.plan.n_kv_heads))
        return reads, writes
    if node.kind in ("ROPE", "KV_APPEND"):
        heads = s.model.plan.n_kv_heads
        units = s.share(s.rows(op["domain"]) * heads, member)
        for unit in units:
            for b in ins[: 2 if node.kind == "KV_APPEND" else 1]:
                memory.heads(reads, b, unit)
            if node.kind == "ROPE":
                memory.heads(writes, outs[0], unit)
                memory.row(reads, ins[1], unit // heads, member)
        if node.kind == "KV_APPEND":
            memory.cached(writes, node.layer, units)
        return reads, writes
    n = s.rows(op["domain"])
    copies = s.private and len(outs) > 0 and s.model.plan.buffers[outs[0]]["is_private"]
    for row in range(n) if copies else s.share(n, member):
        for b in ins:
            memory.row(reads, b, s.outputs[row] if node.kind == "SELECT" else row, member)
        for b in outs:
            memory.row(writes, b, row, member)
    return reads, writes


def races(s: Setting, waits: Sequence[bool]) -> Iterator[int]:
    """Ops in which a member touches what another has touched since the last barrier, one writing."""
    members = range(s.n_members)
    zero = Memory(s).empty()
    read, written = [zero.copy() for _ in members], [zero.copy() for _ in members]
    for i, (op, node, wait) in enumerate(zip(s.model.plan.ops, s.model.nodes, waits, strict=True)):
        if wait:
            read, written = [zero.copy() for _ in members], [zero.copy() for _ in members]
        now = [touched(s, op, node, m) for m in members]
        for a, b in itertools.permutations(members, 2):
            reads, writes = now[b]
            if (written[a] & (reads | writes)).any() or (read[a] & writes).any():
                yield i
                break
        for m in members:
            read[m] |= now[m][0]
            written[m] |= now[m][1]


SETTINGS = [(7, [2, 4, 6]), (8, [7]), (2, [0, 1]), (2, [1]), (1, [0])]


@pytest.mark.parametrize("rules", [(), *([rule] for rule in RULES), RULES], ids=["plain", *BY_NAME])
@pytest.mark.parametrize("shape", ["gqa", "group of 16", "one layer"])
def test_nobody_races(files: ModelFiles, shape: str, rules: Sequence[Rule]) -> None:
    model = plan_of(files(**SHAPES[shape]), rules, max_batch=1)
    for n, outputs in SETTINGS:
        s = Setting(model, n, outputs)
        bit = 2 if s.private else 1
        assert not list(races(s, [bool(op["barrier"] & bit) for op in model.plan.ops])), (n, outputs)


@pytest.mark.parametrize(("n", "outputs"), [(7, [2, 4, 6]), (2, [0, 1])])
def test_every_barrier_is_needed(files: ModelFiles, n: int, outputs: list[int]) -> None:
    """Without any one of them the checker above finds a race: it is not blind, none is idle."""
    s = Setting(plan_of(files(**SHAPES["gqa"]), max_batch=1), n, outputs)
    bit = 2 if s.private else 1
    waits = [bool(op["barrier"] & bit) for op in s.model.plan.ops]
    for i in [i for i, wait in enumerate(waits) if wait]:
        assert list(races(s, [wait and j != i for j, wait in enumerate(waits)])), s.model.nodes[i].describe()


def waits_of(graph: Graph) -> dict[str, list[bool]]:
    """By kind of node: must it wait, under the split and the private schedule?"""
    buffers = live_buffers(graph.nodes, Limits(8, 4, 3))
    place(list(buffers.values()))
    schedules = [barriers(graph.nodes, buffers, private) for private in (False, True)]
    return {node.kind: list(pair) for node, *pair in zip(graph.nodes, *schedules, strict=True)}


def test_the_cache_is_memory_too() -> None:
    """Nothing but the cache joins these two, or the two of the next step."""
    graph, x, w = small_graph()
    q, k, v = matmul(x, w[0]), matmul(x, w[1]), matmul(x, w[2])
    kv_append(k, v, 0)
    attend(q, 1.0, 0)
    assert waits_of(graph)["ATTEND"] == [True, True]
    kv_append(k, v, 0)
    assert waits_of(graph)["KV_APPEND"] == [True, True]


def test_shares_of_rows_and_of_heads_differ() -> None:
    graph, x, _ = small_graph()
    graph.rope_table = graph.add("ROPE_TABLE", [], 8, "tokens")
    k = rope(x + x)
    kv_append(k, k, 0)
    waits = waits_of(graph)
    assert waits["ADD"] == [False, False]  # a member adds the rows that it has made itself
    assert waits["ROPE"] == [True, True] and waits["KV_APPEND"] == [False, False]


def test_level_of_the_environment(files: ModelFiles) -> None:
    assert plan_of(files()).kernels.name == _core.Kernels(os.environ.get("PYLLAMA_ISA") or None).name
