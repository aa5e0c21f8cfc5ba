"""From nodes to what csrc/program.c runs: memory for every tensor, barriers between ops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import _core
from .program import DOMAINS, Graph, Node, Tensor, Weight

KINDS = (
    "ROPE_TABLE", "EMBED", "NORM", "ACT", "NORM_ACT", "MATMUL", "MATMUL_ADD", "MATMUL_SWIGLU",
    "SWIGLU", "ADD", "SCALE", "NORM_HEADS", "ROPE", "KV_APPEND", "ATTEND", "SELECT", "SAMPLE",
)  # fmt: skip  # enum pl_op_kind

# Row-wise ops whose result may be computed by every member for itself when rows are few: their
# input is at hand everywhere, and a barrier costs more than the work.
PRIVATE = {"NORM", "ACT", "NORM_ACT"}
BY_HEAD = {"ROPE", "NORM_HEADS", "KV_APPEND"}  # split by (row, kv head), not by row
PRIVATE_ROWS = 2
HEAD_ROWS = 32
ALIGN = 64
PARTIAL_BYTES = 4 << 20  # partial results of attention that is split over the team


@dataclass(frozen=True)
class KVPlan:
    """Layout of the KV cache: [n_blocks][n_layers][n_kv_heads] of K then V (csrc/kernels.h)."""

    n_layers: int
    n_kv_heads: int
    head_dim: int
    dtype: int
    n_blocks: int

    @property
    def k_bytes(self) -> int:
        """Bytes of the keys of one head in one block, aligned."""
        return align(_core.kv_bytes(self.dtype, self.head_dim))

    @property
    def head_bytes(self) -> int:
        """Bytes of keys and values of one head in one block."""
        return self.k_bytes + align(_core.kv_bytes(self.dtype, -(-self.head_dim // 16) * 16))

    @property
    def block_bytes(self) -> int:
        """Bytes from one block to the next, which holds all layers and heads: an odd number of heads, lest a
        power of two send the same head of all blocks to the same few sets of a cache."""
        return self.head_bytes * (self.n_kv_heads * self.n_layers | 1)


@dataclass
class Plan:
    """Everything _core.Program takes; offsets are bytes in the workspace or the arena."""

    ops: np.ndarray
    buffers: np.ndarray
    matrices: np.ndarray
    vectors: np.ndarray
    inv_freq: np.ndarray
    kv: KVPlan
    head_op: int
    n_threads: int
    head_rows: int
    private_rows: int
    scratch_offset: int
    scratch_bytes: int
    partial_offset: int
    partial_bytes: int
    supply_offset: int
    workspace_bytes: int
    weight_bytes: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int


def align(n: int) -> int:
    """n rounded up to a cache line."""
    return -(-n // ALIGN) * ALIGN


@dataclass(frozen=True)
class Limits:
    """The most rows of each domain that a batch may have, and the team."""

    max_rows: int
    max_outputs: int
    n_threads: int

    @property
    def head_rows(self) -> int:
        return min(self.max_outputs, HEAD_ROWS)

    def rows(self, domain: str) -> int:
        """The most rows of a domain."""
        return {"tokens": self.max_rows, "outputs": self.max_outputs, "head": self.head_rows}[domain]


@dataclass
class Buffer:
    """The memory of a tensor and of all that share it, alive from op `first` to op `last`."""

    tensor: Tensor
    first: int
    last: int
    is_private: bool
    offset: int = 0
    size: int = 0


def live_buffers(nodes: list[Node], limits: Limits) -> dict[int, Buffer]:
    """One Buffer per root tensor, by id."""
    buffers: dict[int, Buffer] = {}
    for i, node in enumerate(nodes):
        for tensor in node.outputs + node.inputs:
            root = tensor.root()
            found = buffers.setdefault(id(root), Buffer(root, i, i, node.kind in PRIVATE))
            found.last = i
    for b in buffers.values():
        t = b.tensor
        row = _core.act_bytes(t.act, t.width) if t.act >= 0 else 4 * t.width
        copies = limits.n_threads * PRIVATE_ROWS if b.is_private else 0
        b.size = align(max(limits.rows(t.domain), copies) * row)
        if t.domain != "tokens":  # the head's chunks run its ops again and again
            b.last = len(nodes)
    return buffers


def place(buffers: list[Buffer]) -> int:
    """Gives every buffer the lowest offset free while it lives; returns the bytes needed."""
    placed: list[Buffer] = []
    for b in sorted(buffers, key=lambda b: -b.size):
        b.offset = 0
        for other in sorted(placed, key=lambda o: o.offset):
            alive = b.first <= other.last and other.first <= b.last
            if alive and b.offset < other.offset + other.size and other.offset < b.offset + b.size:
                b.offset = other.offset + other.size
        placed.append(b)
    return max((b.offset + b.size for b in buffers), default=0)


@dataclass(frozen=True)
class Access:
    """What an op does to memory: who touches which rows decides whether the next op must wait."""

    start: int
    end: int
    writes: bool
    buffer: int
    space: str  # equal spaces split the rows of a buffer among the members alike

    def conflicts(self, other: Access) -> bool:
        if self.end <= other.start or other.end <= self.start or not (self.writes or other.writes):
            return False
        return not (self.buffer == other.buffer and self.space == other.space != "")


def accesses(node: Node, buffers: dict[int, Buffer], private: bool) -> list[Access]:
    """The memory that a node touches, under the private or the always-split schedule."""
    row_wise = ("heads " if node.kind in BY_HEAD else "rows ") + node.domain
    space = "" if node.kind.startswith("MATMUL") or node.kind in ("ATTEND", "SELECT") else row_wise
    if private and node.kind in PRIVATE:
        space = ""  # everybody reads all rows

    def access(tensor: Tensor, writes: bool) -> Access:
        b = buffers[id(tensor.root())]
        mine = "private" if private and b.is_private else space
        return Access(b.offset, b.offset + b.size, writes, id(b), mine)

    found = [access(t, False) for t in node.inputs] + [access(t, True) for t in node.outputs]
    if node.kind == "SELECT":
        found[-1] = Access(found[-1].start, found[-1].end, True, found[-1].buffer, row_wise)
    if node.kind in ("KV_APPEND", "ATTEND"):
        at = -1 - node.layer
        found.append(Access(at, at + 1, node.kind == "KV_APPEND", at, ""))
    return found


def barriers(nodes: list[Node], buffers: dict[int, Buffer], private: bool) -> list[bool]:
    """Before which nodes the members must wait for each other."""
    needed, since = [], []  # type: list[bool], list[Access]
    for node in nodes:
        now = accesses(node, buffers, private)
        wait = any(a.conflicts(b) for a in now for b in since)
        if wait:
            since = []
        since += now
        needed.append(wait)
    return needed


class Tables:
    """Matrices and vectors in order of first use, with their places in the arena."""

    def __init__(self, kernels: _core.Kernels) -> None:
        self.kernels = kernels
        self.matrices: dict[tuple[str, int], tuple[int, Weight]] = {}
        self.vectors: dict[tuple[str, int], tuple[int, Weight]] = {}
        self.rows: list[tuple[int, int, int, int, int, int]] = []
        self.offsets: list[int] = []
        self.size = 0

    def matrix(self, w: Weight) -> int:
        """The index of a matrix."""
        if w.key not in self.matrices:
            fmt = self.kernels.formats[w.format]
            panel = self.kernels.panel_bytes(fmt, w.n_cols)
            self.matrices[w.key] = (len(self.rows), w)
            self.rows.append((self.size, align(panel), w.n_rows, w.n_cols, fmt, 0))
            self.size += align(panel) * -(-w.n_rows // self.kernels.lanes)
        return self.matrices[w.key][0]

    def vector(self, w: Weight | None) -> int:
        """The index of a vector, -1 for none."""
        if w is None:
            return -1
        if w.key not in self.vectors:
            self.vectors[w.key] = (len(self.offsets), w)
            self.offsets.append(self.size)
            self.size += align(4 * w.n_cols)
        return self.vectors[w.key][0]


def encode(nodes: list[Node], index: dict[int, int], tables: Tables, waits: list[int]) -> np.ndarray:
    """The nodes as records of _core.OP; unused indices are -1."""
    ops = np.zeros(len(nodes), _core.OP)
    for op, node, wait in zip(ops, nodes, waits, strict=True):
        for name in ("out", "in", "weight", "bias"):
            op[name] = -1
        op["kind"], op["domain"] = KINDS.index(node.kind), DOMAINS.index(node.domain)
        op["barrier"], op["layer"], op["window"], op["value"] = wait, node.layer, node.window, node.value
        op["vector"], op["n_out"] = tables.vector(node.vector), len(node.outputs)
        for name, tensors in (("out", node.outputs), ("in", node.inputs)):
            for i, t in enumerate(tensors):
                op[name][i] = index[id(t.root())]
        for i, w in enumerate(node.weights):
            op["weight"][i], op["bias"][i] = tables.matrix(w), tables.vector(w.bias)
    return ops


def make_plan(graph: Graph, nodes: list[Node], tables: Tables, limits: Limits, kv: KVPlan) -> Plan:
    """Memory and barriers for `nodes`; fills `tables`."""
    buffers = live_buffers(nodes, limits)
    size = place(list(buffers.values()))
    waits = [
        s + 2 * p
        for s, p in zip(barriers(nodes, buffers, False), barriers(nodes, buffers, True), strict=True)
    ]
    index = {key: i for i, key in enumerate(buffers)}
    records = [
        (b.offset, b.tensor.width, b.tensor.act, DOMAINS.index(b.tensor.domain), b.is_private)
        for b in buffers.values()
    ]
    ops = encode(nodes, index, tables, waits)
    v_dim = -(-graph.head_dim // 16) * 16
    widest = max(b.tensor.width for b in buffers.values())
    floats = max(_core.QUERY_MAX * (graph.head_dim + 2 * v_dim + 8), widest)
    scratch = align(max(4 * floats, tables.kernels.scratch_bytes()))
    scratch_at = align(size)
    partial_at = scratch_at + scratch * limits.n_threads
    supply_at = partial_at + PARTIAL_BYTES
    return Plan(
        ops=ops,
        buffers=np.array(records, _core.BUFFER),
        matrices=np.array(tables.rows, _core.MATRIX),
        vectors=np.array(tables.offsets, np.int64),
        inv_freq=np.ascontiguousarray(graph.rope.inv_freq, np.float64),
        kv=kv,
        head_op=next(i for i, n in enumerate(nodes) if n.domain == "head"),
        n_threads=limits.n_threads,
        head_rows=limits.head_rows,
        private_rows=PRIVATE_ROWS,
        scratch_offset=scratch_at,
        scratch_bytes=scratch,
        partial_offset=partial_at,
        partial_bytes=PARTIAL_BYTES,
        supply_offset=supply_at,
        workspace_bytes=supply_at + 2 * len(nodes) * limits.n_threads * _core.SUPPLY_BYTES,
        weight_bytes=sum(r[1] * -(-r[2] // tables.kernels.lanes) for r in tables.rows),
        n_layers=graph.n_layers,
        n_heads=graph.n_heads,
        n_kv_heads=graph.n_kv_heads,
        head_dim=graph.head_dim,
    )
