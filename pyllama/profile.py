"""What the ops of a Program take, beside what the machine could do."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from . import _core
from .model import Model
from .roofline import Roofline


@dataclass(frozen=True)
class OpTime:
    """The same op of all layers together.

    seconds: of wall clock, waiting for the other threads included. runs: how often it ran. n_bytes: of
    weights read. macs: multiply-adds with weights. least: seconds that those take at the limits; 0 without
    weights.
    """

    op: str
    seconds: float
    runs: int
    n_bytes: int
    macs: int
    least: float


class Profiler:
    """with Profiler(model) as profiler: what runs in the block is counted. Nothing may run at its ends."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._ops = np.zeros(len(model.plan.ops), _core.PROFILE)

    def __enter__(self) -> Profiler:
        self._model.program.profile(self._ops)
        return self

    def __exit__(self, *_: object) -> None:
        self._model.program.profile(None)

    def times(self, roofline: Roofline) -> list[OpTime]:
        """One for each op by its kind and its weights, in the order of the Program."""
        found: dict[str, OpTime] = {}
        for node, op, spent in zip(self._model.nodes, self._model.plan.ops, self._ops, strict=True):
            roles = [re.sub(r"blk\.\d+\.|\.weight", "", w.name) for w in node.weights]
            name = " ".join([node.kind, *dict.fromkeys(roles)])
            runs, rows = int(spent["runs"]), int(spent["rows"])
            reads, macs, least = 0, 0, 0.0
            for index in op["weight"][op["weight"] >= 0] if node.kind.startswith("MATMUL") else ():
                matrix = self._model.plan.matrices[index]
                n_panels = -(-int(matrix["n_rows"]) // self._model.kernels.lanes)
                size = n_panels * int(matrix["panel_bytes"])
                n_macs = int(matrix["n_rows"]) * int(matrix["n_cols"]) * rows
                rate = roofline.macs_per_s[_core.ACTS[self._model.kernels.act(int(matrix["format"]))]]
                least += max(runs * size / roofline.bytes_per_s, n_macs / rate)
                reads, macs = reads + runs * size, macs + n_macs
            before = found.get(name, OpTime(name, 0.0, 0, 0, 0, 0.0))
            found[name] = OpTime(
                name,
                before.seconds + float(spent["seconds"]),
                before.runs + runs,
                before.n_bytes + reads,
                before.macs + macs,
                before.least + least,
            )
        return [time for time in found.values() if time.runs]
