"""Rewrite rules on recorded nodes. Each keeps every bit of the result; tests compare them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .program import Node, Tensor

Rule = Callable[[list[Node]], list[Node]]


def users(nodes: Iterable[Node], tensor: Tensor) -> list[Node]:
    """The nodes that read `tensor` itself."""
    return [n for n in nodes if tensor in n.inputs]


def replace(nodes: Iterable[Node], old: Tensor, new: Tensor) -> None:
    """Makes every reader of `old` read `new`."""
    for node in nodes:
        if old in node.inputs:
            node.inputs = [new if t is old else t for t in node.inputs]


def share_activations(nodes: list[Node]) -> list[Node]:
    """ACT(x), ACT(x) -> one ACT(x): an input is quantized once for all its matrices."""
    seen: dict[tuple[int, int], Tensor] = {}
    kept = []
    for node in nodes:
        if node.kind == "ACT":
            key = (id(node.inputs[0]), node.outputs[0].act)
            if key in seen:
                replace(nodes, node.outputs[0], seen[key])
                continue
            seen[key] = node.outputs[0]
        kept.append(node)
    return kept


def norm_act(nodes: list[Node]) -> list[Node]:
    """ACT(NORM(x)) -> NORM_ACT(x): the normed row never leaves the cache."""
    kept = list(nodes)
    for norm in nodes:
        readers = users(nodes, norm.outputs[0]) if norm.kind == "NORM" else []
        if len(readers) == 1 and readers[0].kind == "ACT":
            readers[0].kind, readers[0].inputs = "NORM_ACT", norm.inputs
            readers[0].vector, readers[0].value = norm.vector, norm.value
            kept.remove(norm)
    return kept


def matmul_swiglu(nodes: list[Node]) -> list[Node]:
    """SWIGLU(a W1, a W2) -> MATMUL_SWIGLU(a): silu is applied while both panels are at hand."""
    kept = list(nodes)
    for node in nodes:
        if node.kind != "SWIGLU":
            continue
        made = [n for t in node.inputs for n in nodes if n.kind == "MATMUL" and n.outputs == [t]]
        if len(made) != 2 or made[0].inputs != made[1].inputs:
            continue
        if any(len(users(nodes, n.outputs[0])) != 1 for n in made):
            continue
        node.kind, node.inputs = "MATMUL_SWIGLU", made[0].inputs
        node.weights = made[0].weights + made[1].weights
        kept = [n for n in kept if n not in made]
    return kept


def matmul_add(nodes: list[Node]) -> list[Node]:
    """ADD(x, a W) or ADD(x, a W * factor) -> MATMUL_ADD into x, where nobody needs the old x any more."""
    kept = list(nodes)
    for i, node in enumerate(nodes):
        if node.kind != "ADD":
            continue
        x, y = node.inputs
        root = x.root()
        scale = [n for n in nodes if n.kind == "SCALE" and n.outputs == [y]]
        product = scale[0].inputs[0] if scale else y
        made = [n for n in nodes if n.kind == "MATMUL" and n.outputs == [product]]
        later = any(t.root() is root for n in nodes[i + 1 :] for t in n.inputs)
        if len(made) != 1 or later or len(users(nodes, y)) != 1 or len(users(nodes, product)) != 1:
            continue
        node.kind, node.inputs, node.weights = "MATMUL_ADD", [*made[0].inputs, x], made[0].weights
        node.outputs[0].base, node.value = root, scale[0].value if scale else 1.0
        kept = [n for n in kept if n not in made + scale]
    return kept


def join_matmuls(nodes: list[Node]) -> list[Node]:
    """Adjacent matmuls of one input, as Q, K and V, become one op of up to three outputs."""
    kept: list[Node] = []
    for node in nodes:
        last = kept[-1] if kept else None
        if (
            last is not None
            and last.kind == node.kind == "MATMUL"
            and last.inputs == node.inputs
            and len(last.outputs) < 3
        ):
            last.weights += node.weights
            last.outputs += node.outputs
        else:
            kept.append(node)
    return kept


RULES: tuple[Rule, ...] = (share_activations, norm_act, matmul_swiglu, matmul_add, join_matmuls)


def fuse(nodes: list[Node], rules: Iterable[Rule] = RULES) -> list[Node]:
    """All rules, in order."""
    for rule in rules:
        nodes = rule(nodes)
    return nodes
