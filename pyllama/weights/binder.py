"""Tensors of a model file -> Weights of a model: each shape and type checked, none left over."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from .. import _core
from ..errors import ModelLoadError, UnsupportedModelError
from ..program import Weight
from .source import ModelSource

VECTOR_TYPES = ("F32", "F16", "BF16")


def expect(source: ModelSource, field: str, expected: object, found: object, ok: bool | None = None) -> None:
    """Raises ModelLoadError naming file and field unless `ok`, or found == expected."""
    if not (found == expected if ok is None else ok):
        raise ModelLoadError(f"{source.path}: {field}: expected {expected}, found {found}")


def read_vector(source: ModelSource, w: Weight) -> np.ndarray:
    """float32 [n_cols]: a vector's values, its rotated halves put together as a matrix's rows are."""
    raw = source.read(w.name)
    if w.source == "BF16":
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[w.source]).astype(np.float32)
    values = values[w.first_row : w.first_row + w.n_cols]
    if w.rope_head:
        order = np.arange(w.rope_head)
        order[: w.rope_dim] = order[: w.rope_dim].reshape(-1, 2).T.reshape(-1)
        values = values.reshape(-1, w.rope_head)[:, order].reshape(-1)
    return values


class Binder:
    """Hands out Weights by tensor name for one kernel table, compute mode and wish to quantize."""

    # what may come beside an architecture's own tensors: rope.py reads these
    SHARED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")

    def __init__(
        self, source: ModelSource, kernels: _core.Kernels, compute: str, quantize: str | None = None
    ) -> None:
        self.source, self.kernels, self.compute, self.quantize = source, kernels, compute, quantize
        self.bound: set[str] = set(self.SHARED)
        self.kept: list[str] = []  # matrices that do not divide into blocks of `quantize`

    def _check(self, name: str, shape: tuple[int, ...], able: tuple[str, ...]) -> str:
        """The tensor's type, one of `able`; its shape must be `shape`."""
        tensor = self.source.tensor(name)
        expect(self.source, f"shape of {name}", list(shape), list(tensor.shape))
        if tensor.type not in able:
            one_of = ", ".join(able)
            raise UnsupportedModelError(
                f"{self.source.path}: type of {name}: expected one of {one_of}, found {tensor.type}"
            )
        self.bound.add(name)
        return tensor.type

    def _format(self, name: str, source: str, n_cols: int) -> str:
        """The kernel's format for a matrix that the file has as `source`."""
        if self.compute != "auto":
            return self.compute.upper()
        if self.quantize is None or source not in VECTOR_TYPES:
            return source
        wanted = self.quantize.upper()
        if n_cols % self.kernels.block(self.kernels.formats[wanted]) == 0:
            return wanted
        self.kept.append(name)
        return source

    def matrix(
        self,
        name: str,
        n_rows: int,
        n_cols: int,
        rope: tuple[int, int] = (0, 0),
        rows: tuple[int, int] | None = None,
    ) -> Weight:
        """The matrix `name` [n_rows, n_cols]; with rows = (first, all), n_rows of a larger one.

        rope: head_dim and rope_dim of the rotated heads that the rows belong to.
        """
        first, total = rows or (0, n_rows)
        source = self._check(name, (total, n_cols), tuple(self.kernels.formats))
        fmt = self._format(name, source, n_cols)
        head, rotated = rope if self.source.rope_interleaved else (0, 0)
        return Weight(
            name,
            n_rows,
            n_cols,
            format=fmt,
            source=source,
            act=self.kernels.act(self.kernels.formats[fmt]),
            rope_head=head,
            rope_dim=rotated,
            first_row=first,
        )

    def vector(
        self, name: str, n: int, rope: tuple[int, int] = (0, 0), rows: tuple[int, int] | None = None
    ) -> Weight:
        """The vector `name` [n]; `rope` and `rows` as for a matrix."""
        first, total = rows or (0, n)
        source = self._check(name, (total,), VECTOR_TYPES)
        head, rotated = rope if self.source.rope_interleaved else (0, 0)
        return Weight(name, 0, n, source=source, rope_head=head, rope_dim=rotated, first_row=first)

    def linear(
        self,
        name: str,
        n_rows: int,
        n_cols: int,
        *,
        bias: bool | None = None,
        rope: tuple[int, int] = (0, 0),
        rows: tuple[int, int] | None = None,
    ) -> Weight:
        """The matrix `name`.weight with the vector `name`.bias: required, or if there is one (None)."""
        w = self.matrix(f"{name}.weight", n_rows, n_cols, rope, rows)
        if bias is None and f"{name}.bias" not in self.source.tensors:
            return w
        return dataclasses.replace(w, bias=self.vector(f"{name}.bias", n_rows, rope, rows))

    def stacked(self, name: str, n_rows: tuple[int, ...], n_cols: int) -> list[Weight]:
        """Matrices of n_rows[i] rows each that lie one below the other in `name`.weight."""
        ends = list(itertools.accumulate(n_rows))
        return [
            self.linear(name, n, n_cols, rows=(end - n, ends[-1]))
            for n, end in zip(n_rows, ends, strict=True)
        ]

    def finish(self) -> None:
        """Raises UnsupportedModelError if a tensor was left: ignoring it would change the model."""
        left = sorted(set(self.source.tensors) - self.bound)
        if left:
            raise UnsupportedModelError(
                f"{self.source.path}: tensors: expected none but those of the architecture, "
                f"found {left[0]} ({len(left)} such)"
            )
